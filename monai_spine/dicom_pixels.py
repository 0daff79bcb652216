"""Decode the pixels of DICOM files, each file once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from monai_spine.decoder import decode
from monai_spine.dicom_elements import first_line, read_whole
from monai_spine.errors import UnreadableInputError
from monai_spine.instances import Instance, PixelLayout
from monai_spine.mosaic import packed_shape, split_mosaic

__all__ = ["read_pixels"]

_NAMES = """
    SamplesPerPixel PhotometricInterpretation NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
    PlanarConfiguration PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths
"""
_TAGS = [Tag(name) for name in _NAMES.split()]
_WITHOUT_CODEC = (
    "",
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
)
"""Transfer syntaxes that pydicom decodes itself."""


def read_pixels(instance: Instance) -> npt.NDArray[np.generic]:
    """Decode one file, whatever its transfer syntax.

    Stored values are turned into output units by each frame's rescale slope and intercept (PS3.3 C.11.1). MONOCHROME1, where
    low values are bright, is turned round within the range of its stored bits, so that bright is high.

    Args:
        instance: One DICOM file with its frames.

    Returns:
        Shape (frames, rows, columns), in the order of `instance.frames`: float32, or integers as stored where nothing
        changes them.

    Raises:
        UnreadableInputError: The pixels are cut off, broken, in colour, or packed by a syntax for which there is no decoder.
    """
    photometric = instance.tags.photometric_interpretation
    if photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise UnreadableInputError(
            f"{instance.path} is in colour ({photometric}): colours are no MR signal. Choose the original series."
        )
    try:
        stored = _plain(instance) if instance.pixels.offset is not None else _decoded(instance)
    except MemoryError:
        raise
    except Exception as error:  # pydicom and its decoders raise errors of many kinds for one cause
        _refuse_undecodable(instance, error)
        raise UnreadableInputError(
            f"The pixels of {instance.path} cannot be read ({type(error).__name__}: {first_line(error)}): the file is cut off, "
            "broken or packed in an unknown way. Export it again."
        ) from error
    frames = split_mosaic(stored[0], instance.tiles) if instance.tiles > 1 else stored
    stated = (len(instance.frames), instance.frames[0].rows, instance.frames[0].columns)
    if frames.shape != stated:
        raise UnreadableInputError(
            f"{instance.path} holds {_size(frames.shape)} where its header names {_size(stated)}. Export it again."
        )
    if photometric == "MONOCHROME1":
        frames = _turned_round(frames, instance.pixels)
    return _rescaled(frames, instance)


def _refuse_undecodable(instance: Instance, error: Exception) -> None:
    """Say so where a file could not be read because nothing is installed that decodes its transfer syntax."""
    from pydicom.pixels import get_decoder

    syntax = UID(instance.pixels.transfer_syntax)
    if syntax in _WITHOUT_CODEC:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        remedy = "Export the study uncompressed"
    else:
        if decoder.is_available:
            return
        packages = " or ".join(said.partition("requires ")[2] for said in decoder.missing_dependencies)
        remedy = f"Install {packages}, or export the study uncompressed"
    raise UnreadableInputError(
        f"{instance.path} is packed as {syntax.name} (transfer syntax {syntax}), for which there is no decoder here. {remedy}."
    ) from error


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} frames of {' × '.join(map(str, shape[1:]))} pixels"


def _plain(instance: Instance) -> npt.NDArray[np.generic]:
    """Uncompressed little-endian pixels, straight from their place in the file."""
    layout, model = instance.pixels, instance.frames[0]
    rows, columns = (
        (model.rows, model.columns) if instance.tiles == 1 else packed_shape(model.rows, model.columns, instance.tiles)
    )
    count = rows * columns * (len(instance.frames) if instance.tiles == 1 else 1)
    kind = np.dtype(f"<{'i' if layout.is_signed else 'u'}{layout.bits_allocated // 8}")
    values = np.fromfile(instance.path, kind, count, offset=layout.offset or 0)
    if len(values) < count:
        raise EOFError(f"{len(values)} of {count} pixels are there")
    return values.reshape(-1, rows, columns)


def _decoded(instance: Instance) -> npt.NDArray[np.generic]:
    if instance.pixels.transfer_syntax in _WITHOUT_CODEC:
        stored = read_whole(instance.path, specific_tags=_TAGS).pixel_array
    else:
        stored = decode(instance.path, _TAGS)
    return np.asarray(stored).reshape(-1, *stored.shape[-2:])


def _turned_round(frames: npt.NDArray[np.generic], layout: PixelLayout) -> npt.NDArray[np.float32]:
    lowest_plus_highest = -1 if layout.is_signed else 2**layout.bits_stored - 1
    return np.asarray(lowest_plus_highest - frames.astype(np.float32), np.float32)


def _rescaled(frames: npt.NDArray[np.generic], instance: Instance) -> npt.NDArray[np.generic]:
    if all(frame.rescale == (1.0, 0.0) for frame in instance.frames):
        return frames
    slopes, intercepts = np.array([frame.rescale for frame in instance.frames]).T[:, :, None, None]
    with np.errstate(over="ignore"):
        return np.asarray(frames * slopes + intercepts, dtype=np.float32)
