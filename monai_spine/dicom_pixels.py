"""Decode the pixels of DICOM files, each file once."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation

from monai_spine.errors import UnreadableInputError
from monai_spine.instances import Instance
from monai_spine.mosaic import split_mosaic

__all__ = ["read_pixels"]

_KEYWORDS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
]
_DECODING_FAILURES = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    pydicom.errors.InvalidDicomError,
)


def read_pixels(instance: Instance) -> npt.NDArray[np.float32]:
    """Decode one file, whatever its transfer syntax.

    Stored values are turned into output units by each frame's rescale slope and intercept (PS3.3 C.11.1). MONOCHROME1, where
    low values are bright, is turned round within the range of its stored bits, so that bright is high.

    Args:
        instance: One DICOM file with its frames.

    Returns:
        float32 of shape (frames, rows, columns), in the order of `instance.frames`.

    Raises:
        UnreadableInputError: The pixels are cut off, broken, in colour, or packed by a syntax for which there is no decoder.
    """
    try:
        with disable_value_validation():
            data = pydicom.dcmread(instance.path, specific_tags=_KEYWORDS, force=True)
            stored = data.pixel_array
    except _DECODING_FAILURES as error:
        raise UnreadableInputError(
            f"The pixels of {instance.path} cannot be read ({_first_line(error)}): the file is cut off, broken or packed in an "
            "unknown way. Export it again, or leave its series out."
        ) from error
    if data.get("SamplesPerPixel", 1) != 1:
        raise UnreadableInputError(
            f"{instance.path} is in colour ({data.PhotometricInterpretation}): colours are no MR signal. "
            "Choose the original series."
        )
    frames = np.asarray(stored).reshape(-1, *stored.shape[-2:])
    if instance.tiles > 1:
        frames = split_mosaic(frames[0], instance.tiles)
    if data.PhotometricInterpretation == "MONOCHROME1":
        frames = _turned_round(frames, bits=int(data.BitsStored), signed=bool(data.get("PixelRepresentation", 0)))
    return _rescaled(frames, instance)


def _turned_round(frames: npt.NDArray[np.generic], *, bits: int, signed: bool) -> npt.NDArray[np.float32]:
    lowest_plus_highest = -1 if signed else 2**bits - 1
    return np.asarray(lowest_plus_highest - frames.astype(np.float32), np.float32)


def _rescaled(frames: npt.NDArray[np.generic], instance: Instance) -> npt.NDArray[np.float32]:
    if len(frames) != len(instance.frames):
        raise UnreadableInputError(
            f"{instance.path} holds {len(frames)} frames where its header names {len(instance.frames)}. Export it again."
        )
    if all(frame.rescale == (1.0, 0.0) for frame in instance.frames):
        return frames.astype(np.float32, copy=False)
    slopes, intercepts = np.array([frame.rescale for frame in instance.frames]).T[:, :, None, None]
    return np.asarray(frames * slopes + intercepts, dtype=np.float32)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no detail'}"
