"""A scan block as one array and one affine, and how it is read: from DICOM, NIfTI or a picture."""

from __future__ import annotations

import math
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.blocks import Block, plan_blocks
from monai_spine.dicom_elements import first_line
from monai_spine.dicom_pixels import read_pixels
from monai_spine.errors import StudyError, UnreadableInputError, VolumeGeometryError
from monai_spine.geometry import Affine, Triple, check_affine, invert_affine, spacing_of, to_ras_axes
from monai_spine.instances import Frame
from monai_spine.study import Series

__all__ = ["MIN_PICTURE_EDGE_PX", "Volume", "load_nifti", "load_picture", "load_series", "picture_volume"]

MIN_PICTURE_EDGE_PX = 32
"""A smaller picture cannot show a lumbar spine."""
MAX_PICTURE_PX = 64_000_000
PICTURE_SLICE_MM = 4.5
"""Thickness that a picture is given as a scan of one slice."""
MAX_VOXELS = 500_000_000
"""As many as 500 slices of 1000 × 1000: two gigabytes."""
MAX_SHEAR_DEG = 3.0
"""How far from perpendicular a voxel's edges may stand."""
_MM_PER = {"meter": 1000.0, "micron": 0.001}

_Grid = tuple[int, int, float, float]


@dataclass(frozen=True)
class Volume:
    """Slices of one orientation at even distances.

    Attributes:
        array: Voxels (i, j, k) as stored, float32.
        affine: 4 × 4, voxel centre (i, j, k) to RAS+ mm.
        series_instance_uid: The series it came from, if that was DICOM.
        sop_instance_uids: One per slice along `slice_axis`; empty where the source was not DICOM.
        slice_axis: The axis of `array` that counts slices.
        flags: What was noticed while it was put together, in words.
    """

    array: npt.NDArray[np.float32]
    affine: Affine
    series_instance_uid: str | None = None
    sop_instance_uids: tuple[str, ...] = ()
    slice_axis: int = 2
    flags: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> Triple:
        """Distance of voxel centres along i, j, k in mm."""
        return spacing_of(self.affine)

    @property
    def is_single_slice(self) -> bool:
        """Whether it is one slice, such as a picture."""
        return bool(self.array.shape[self.slice_axis] == 1)

    def to_ras(self) -> Volume:
        """The same voxels, stored along the axes nearest to R, A, S."""
        array, affine = to_ras_axes(self.array, self.affine)
        slice_direction = self.affine[:3, self.slice_axis] / np.linalg.norm(self.affine[:3, self.slice_axis])
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        alignment = slice_direction @ directions
        axis = int(np.argmax(np.abs(alignment)))
        uids = self.sop_instance_uids if alignment[axis] > 0 else self.sop_instance_uids[::-1]
        return replace(self, array=np.asarray(array, np.float32), affine=affine, slice_axis=axis, sop_instance_uids=uids)


def load_series(series: Series) -> tuple[Volume, ...]:
    """Read a DICOM series into blocks, one per orientation and run of even distances.

    Each file is decoded once. The arrays are (columns, rows, slices): i runs along a row, j down a column, k along the normal.

    Args:
        series: A series of an opened study.

    Returns:
        At least one volume, with the SOPInstanceUID of each slice. Repeats that equal another block voxel by voxel are dropped.

    Raises:
        VolumeGeometryError: The slices form no volume; the message names the series, and the gap or the shift.
        UnreadableInputError: The pixels of a file cannot be read.
    """
    try:
        blocks = plan_blocks([frame for instance in series.instances for frame in instance.frames])
    except VolumeGeometryError as error:
        raise VolumeGeometryError(f"{series.title[0].upper()}{series.title[1:]}: {error}") from error
    needed = {frame.path for block in blocks for frame in block.frames}
    pixels = {instance.path: read_pixels(instance) for instance in series.instances if instance.path in needed}
    is_inverted = series.tags.photometric_interpretation == "MONOCHROME1"
    inverted = ("MONOCHROME1: bright and dark were turned round",) if is_inverted else ()
    volumes = [
        _volume(replace(block, flags=(*inverted, *block.flags)), pixels, uid=series.series_instance_uid) for block in blocks
    ]
    return _without_copies(volumes)


def _volume(block: Block, pixels: dict[Path, npt.NDArray[np.generic]], *, uid: str) -> Volume:
    grids = Counter(_grid(frame) for frame in block.frames)
    common = grids.most_common(1)[0][0]
    index, model = next((k, frame) for k, frame in enumerate(block.frames) if _grid(frame) == common)
    affine = model.affine(block.step_lps_mm)
    affine[:3, 3] -= index * affine[:3, 2]
    array = np.empty((len(block.frames), model.rows, model.columns), np.float32)
    for k, frame in enumerate(block.frames):
        picture = pixels[frame.path][frame.index]
        array[k] = picture if _grid(frame) == common else _resampled(picture, frame, model)
    flags = block.flags
    if len(grids) > 1:
        sizes = ", ".join(f"{count} of {grid[0]} × {grid[1]}" for grid, count in grids.most_common())
        flags = (*flags, f"slices of several sizes ({sizes}): resampled onto {model.rows} × {model.columns}")
    return Volume(array.T, affine, uid, tuple(frame.sop_instance_uid for frame in block.frames), 2, flags)


def _grid(frame: Frame) -> _Grid:
    down, along = frame.spacing_mm
    return frame.rows, frame.columns, round(down, 4), round(along, 4)


def _resampled(picture: npt.NDArray[np.generic], frame: Frame, model: Frame) -> npt.NDArray[np.float32]:
    """Bilinear values of one slice (rows, columns) on the pixel grid of another that lies parallel to it; 0 outside."""
    from scipy.ndimage import affine_transform

    normal = np.cross(*model.directions)
    back = invert_affine(frame.affine(normal)) @ model.affine(normal)
    matrix, offset = back[1::-1, 1::-1], back[1::-1, 3]
    result = affine_transform(
        np.asarray(picture, np.float32), matrix, offset=offset, output_shape=(model.rows, model.columns), order=1
    )
    return np.asarray(result, np.float32)


def _without_copies(volumes: Sequence[Volume]) -> tuple[Volume, ...]:
    """Each volume once; how many copies were left out is flagged."""
    kept: list[Volume] = []
    copies: list[int] = []
    for volume in volumes:
        twin = next((k for k, other in enumerate(kept) if _same_voxels(volume, other)), None)
        if twin is None:
            kept.append(volume)
            copies.append(0)
        else:
            copies[twin] += 1
    flag = "left out: {} with the same voxels"
    return tuple(
        replace(one, flags=(*one.flags, flag.format(f"{count} cop{'y' if count == 1 else 'ies'}"))) if count else one
        for one, count in zip(kept, copies, strict=True)
    )


def _same_voxels(volume: Volume, other: Volume) -> bool:
    return (
        volume.array.shape == other.array.shape
        and np.allclose(volume.affine, other.affine, atol=1e-3)
        and np.array_equal(volume.array, other.array)
    )


def load_nifti(path: str | Path) -> Volume:
    """Read a NIfTI file with one volume.

    Raises:
        UnreadableInputError: The file is broken, in colour, complex or too large, or holds voxels that are not finite.
        VolumeGeometryError: It is not 3D (4D with one frame is taken), or its affine places nothing in space.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        _refuse_odd_voxels(image, path)
        array = np.asarray(image.dataobj, dtype=np.float32)
    except StudyError:
        raise
    except FileNotFoundError as error:
        raise UnreadableInputError(f"{path} does not exist. Check the path.") from error
    except PermissionError as error:
        raise UnreadableInputError(f"{path} cannot be opened: {error.strerror}. Check its permissions.") from error
    except MemoryError:
        raise
    except Exception as error:  # nibabel raises errors of many kinds for one cause
        raise UnreadableInputError(
            f"{path} cannot be read as NIfTI ({first_line(error)}): it is cut off, broken, or named for another format. "
            "Copy or convert it again; .nii is not compressed, .nii.gz is."
        ) from error
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3 or 0 in array.shape:
        raise VolumeGeometryError(
            f"{path} has the shape {array.shape}; one 3D volume is needed. "
            "Split it, or choose one frame; a single slice needs a third axis of length 1."
        )
    affine, flags = _nifti_affine(image, path)
    broken = int(array.size - np.isfinite(array).sum())
    if broken:
        raise UnreadableInputError(
            f"{path} holds {broken} of {array.size} voxels that are NaN or infinite: nothing was guessed in their place. "
            "Write it again with a value in each voxel."
        )
    return Volume(array, affine, slice_axis=_nifti_slice_axis(image, affine), flags=flags)


def _refuse_odd_voxels(image: Any, path: str | Path) -> None:
    """Refuse by the header what would not be one number per voxel, or not fit into memory."""
    kind, count = image.get_data_dtype(), math.prod(image.shape)
    if kind.fields is not None:
        raise UnreadableInputError(f"{path} is in colour: colours are no MR signal. Give the original scan.")
    if kind.kind == "c":
        raise UnreadableInputError(f"{path} holds complex numbers, no intensities. Give the magnitude.")
    if count > MAX_VOXELS:
        raise UnreadableInputError(
            f"{path} says that it holds {count / 1e6:.0f} million voxels; at most {MAX_VOXELS / 1e6:.0f} million are read. "
            "Check its header, or give one scan of the lumbar spine."
        )


def _nifti_affine(image: object, path: str | Path) -> tuple[Affine, tuple[str, ...]]:
    """The affine in mm, and a flag where the header counts in metres or micrometres."""
    header = image.header  # type: ignore[attr-defined]
    if int(header.get("sform_code", 1)) == 0 and int(header.get("qform_code", 1)) == 0:
        raise VolumeGeometryError(
            f"{path} says nothing of place and orientation (sform_code and qform_code are 0): left and right would be a guess. "
            "Convert the DICOM files again with a tool that keeps the orientation."
        )
    unit = getattr(header, "get_xyzt_units", lambda: ("mm", "sec"))()[0]
    to_mm = _MM_PER.get(unit, 1.0)
    try:
        affine = check_affine(np.diag([to_mm, to_mm, to_mm, 1.0]) @ image.affine)  # type: ignore[attr-defined]
    except VolumeGeometryError as error:
        raise VolumeGeometryError(f"{path}: {error}") from error
    _refuse_shear(affine, path)
    if int(header.get("sform_code", 1)) == 0:
        _refuse_odd_edges(image, path)
    return affine, (f"lengths were turned from {unit} into mm, as the NIfTI header says",) if to_mm != 1 else ()


def _refuse_shear(affine: Affine, path: str | Path) -> None:
    """Refuse voxels whose edges are not perpendicular: lengths and angles in the image would not be those of the patient."""
    edges = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    askew = float(np.degrees(np.arcsin(np.abs(np.triu(edges.T @ edges, 1)).max().clip(0, 1))))
    if askew > MAX_SHEAR_DEG:
        raise VolumeGeometryError(
            f"{path} has voxels whose edges stand up to {askew:.0f} degrees askew (at most {MAX_SHEAR_DEG:g} are taken): "
            "its affine is sheared. Resample the scan to a grid with perpendicular axes, or give the original."
        )


def _refuse_odd_edges(image: Any, path: str | Path) -> None:
    """Refuse voxel edges that nibabel mends in silence: it reads 0 as 1 mm, and a negative edge without its sign."""
    with image.file_map["image"].get_prepare_fileobj("rb") as stream:
        edges = [float(edge) for edge in image.header_class.from_fileobj(stream, check=False)["pixdim"][1:4]]
    if min(edges) <= 0:
        raise VolumeGeometryError(
            f"{path} states voxel edges of {' × '.join(f'{edge:g}' for edge in edges)}; each must be above 0 (NIfTI-1, pixdim), "
            "and no sform says better. Rewrite the file's header with its true spacing."
        )


def _nifti_slice_axis(image: object, affine: Affine) -> int:
    """The axis of a single slice; else the one that the header names as that of slices, or the one with the widest spacing."""
    edges = list(image.shape[:3])  # type: ignore[attr-defined]
    if edges.count(1) == 1:
        return edges.index(1)
    named = getattr(image.header, "get_dim_info", lambda: (None, None, None))()[2]  # type: ignore[attr-defined]
    spacing = spacing_of(affine)
    widest = int(np.argmax(np.round(spacing, 3))) if max(spacing) > 1.01 * min(spacing) else 2
    return widest if named is None else int(named)


def load_picture(path: str | Path) -> npt.NDArray[np.float32]:
    """Read a PNG or JPEG as grey values, float32 of shape (rows, columns), turned as its EXIF says. It has no millimetres.

    Raises:
        UnreadableInputError: Another format, a broken file, or a picture that is too small or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=("PNG", "JPEG"))
        with opened as picture:
            columns, rows = picture.size
            _check_picture_size(path, rows, columns)
            grey = picture if picture.mode in ("L", "I", "I;16", "F") else picture.convert("L")
            return np.asarray(ImageOps.exif_transpose(grey), np.float32)
    except FileNotFoundError as error:
        raise UnreadableInputError(f"{path} does not exist. Check the path.") from error
    except UnidentifiedImageError as error:
        raise UnreadableInputError(f"Wrong format: {path} is no PNG or JPEG picture. Convert it first.") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableInputError(
            f"{path} is too large ({error}); at most {MAX_PICTURE_PX // 1_000_000} million pixels are taken. "
            "Give the picture in its true size."
        ) from error
    except (OSError, ValueError, SyntaxError, zlib.error) as error:
        raise UnreadableInputError(
            f"{path} cannot be read ({error}): the picture is cut off or broken. Copy or export it again."
        ) from error


def picture_volume(picture: npt.NDArray[np.float32], mm_per_px: float) -> Volume:
    """A mid-sagittal picture as a scan of one slice, (1, columns, rows), centred at the origin, front to the left.

    Args:
        picture: (rows, columns), head up, the patient's front to the left.
        mm_per_px: Edge of a pixel.
    """
    affine = np.diag([PICTURE_SLICE_MM, -mm_per_px, -mm_per_px, 1.0])
    affine[1:3, 3] = mm_per_px * (np.array(picture.shape[::-1]) - 1) / 2
    return Volume(np.ascontiguousarray(picture.T[None], np.float32), affine, slice_axis=0)


def _check_picture_size(path: str | Path, rows: int, columns: int) -> None:
    if min(rows, columns) < MIN_PICTURE_EDGE_PX or rows * columns > MAX_PICTURE_PX:
        raise UnreadableInputError(
            f"{path} has {columns} × {rows} pixels; a picture of a spine needs at least {MIN_PICTURE_EDGE_PX} along each edge, "
            f"and at most {MAX_PICTURE_PX // 1_000_000} million are taken. Give the picture in its true size."
        )
