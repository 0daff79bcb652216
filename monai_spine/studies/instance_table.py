"""The way back from a prepared volume to the DICOM files: one row for each slice, with its place in space in full precision.

`instances.csv` lies beside a study's volumes. A pixel's x counts columns along a row and y rows down a column, from 0 at the
centre of the first pixel. Slices that no volume took are listed, too, with an empty `volume`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy.typing as npt

from monai_spine.errors import OutsideFieldOfViewError, TableError, VolumeGeometryError
from monai_spine.geometry import Affine, Point, Triple, apply_affine, invert_affine, normal_of, slice_affine
from monai_spine.instances import Frame
from monai_spine.studies.table_output import write_rows

__all__ = ["INSTANCES_FILE", "InstanceRow", "locate_voxel", "read_instances", "write_instances"]

INSTANCES_FILE = "instances.csv"
_PLACE = (
    "position_l_mm", "position_p_mm", "position_s_mm", "row_l", "row_p", "row_s", "column_l", "column_p", "column_s",
    "row_distance_mm", "column_distance_mm",
)  # fmt: skip
_COLUMNS = ("series_id", "instance_number", "sop_instance_uid", "volume", "slice", "rows", "columns", *_PLACE)


@dataclass(frozen=True)
class InstanceRow:
    """One slice as it was stored.

    Attributes:
        series_id: Its series in the tables.
        instance_number: The name of its file.
        sop_instance_uid: Of the file.
        volume: Name of the NIfTI file that holds it; empty where none does.
        slice_index: Its place along the third axis of that file.
        rows: Pixels down a column.
        columns: Pixels along a row.
        place: ImagePositionPatient, ImageOrientationPatient and PixelSpacing (11 numbers); empty where the header lacks one, or
            its two directions span no plane.
    """

    series_id: int
    instance_number: int
    sop_instance_uid: str
    volume: str
    slice_index: int
    rows: int
    columns: int
    place: tuple[float, ...]

    @classmethod
    def of(cls, frame: Frame, *, series_id: int, volume: str, slice_index: int) -> InstanceRow:
        """The row of a slice that is alone in its file, which is named by its instance number."""
        place: tuple[float, ...] = ()
        if frame.position_lps_mm and frame.orientation and frame.pixel_spacing_mm and _spans_a_plane(frame.orientation):
            place = (*frame.position_lps_mm, *frame.orientation, *frame.pixel_spacing_mm)
        number = int(frame.path.stem)
        uid = frame.sop_instance_uid
        return cls(series_id, number, uid, volume, slice_index, frame.rows, frame.columns, place)

    @property
    def key(self) -> tuple[int, int]:
        """Series and instance number, as points name them."""
        return self.series_id, self.instance_number

    def normal_lps(self) -> Triple:
        """Unit normal, row × column direction.

        Raises:
            VolumeGeometryError: The header says nothing of the orientation.
        """
        self._refuse_unplaced()
        right, back, up = normal_of(self.place[3:9])
        return float(right), float(back), float(up)

    def point_of(self, x: float, y: float) -> Point:
        """Where a pixel lies, RAS+ mm.

        Raises:
            VolumeGeometryError: The header does not say where the slice lies.
        """
        r, a, s = apply_affine(self._affine(), (x, y, 0.0))
        return float(r), float(a), float(s)

    def pixel_of(self, point_ras_mm: npt.ArrayLike) -> tuple[float, float, float]:
        """The pixel (x, y) nearest to a point, and how many mm the point lies off the slice along its normal.

        Raises:
            VolumeGeometryError: The header does not say where the slice lies.
        """
        x, y, off = apply_affine(invert_affine(self._affine()), point_ras_mm)
        return float(x), float(y), float(off)

    def _affine(self) -> Affine:
        normal = self.normal_lps()
        return slice_affine(self.place[:3], self.place[3:9], pixel_spacing_mm=(self.place[9], self.place[10]), step_lps_mm=normal)

    def _refuse_unplaced(self) -> None:
        if not self.place:
            raise VolumeGeometryError(
                f"Instance {self.instance_number} of series {self.series_id} lacks ImagePositionPatient, ImageOrientationPatient "
                "or PixelSpacing: its pixels have no place in space. Restore the file from the data set."
            )


def _spans_a_plane(orientation: Sequence[float]) -> bool:
    try:
        normal_of(orientation)
    except VolumeGeometryError:
        return False
    return True


def locate_voxel(
    rows: Iterable[InstanceRow], volume: str, affine: Affine, voxel: Sequence[float]
) -> tuple[InstanceRow, float, float]:
    """The slice, and the pixel (x, y) on it, that a voxel of a prepared volume came from.

    Args:
        rows: The rows of its study.
        volume: Name of the NIfTI file.
        affine: 4 × 4 of that file.
        voxel: (i, j, k); k is rounded to the nearest slice.

    Raises:
        OutsideFieldOfViewError: The volume has no such slice.
    """
    for row in rows:
        if row.volume == volume and row.slice_index == round(voxel[2]):
            x, y, _ = row.pixel_of(apply_affine(affine, (voxel[0], voxel[1], round(voxel[2]))))
            return row, x, y
    raise OutsideFieldOfViewError(f"{volume} has no slice {round(voxel[2])}. Give a voxel inside the volume.")


def write_instances(rows: Iterable[InstanceRow], folder: Path) -> None:
    """Write `instances.csv` into a study's folder.

    Raises:
        OutputError: It cannot be written.
    """
    write_rows(folder / INSTANCES_FILE, _COLUMNS, [_cells(row) for row in rows])


def read_instances(folder: Path) -> tuple[InstanceRow, ...]:
    """Read `instances.csv` of a study's folder.

    Raises:
        TableError: It is missing or broken.
    """
    path = folder / INSTANCES_FILE
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(_row(cells) for cells in csv.DictReader(file))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TableError(f"{path} cannot be read ({error!r}). Remove {folder} and prepare the data again.") from error


def _cells(row: InstanceRow) -> tuple[object, ...]:
    where = (row.volume, row.slice_index if row.volume else "")
    place = row.place or ("",) * len(_PLACE)
    return row.series_id, row.instance_number, row.sop_instance_uid, *where, row.rows, row.columns, *place


def _row(cells: dict[str, str]) -> InstanceRow:
    return InstanceRow(
        series_id=int(cells["series_id"]),
        instance_number=int(cells["instance_number"]),
        sop_instance_uid=cells["sop_instance_uid"],
        volume=cells["volume"],
        slice_index=int(cells["slice"] or -1),
        rows=int(cells["rows"]),
        columns=int(cells["columns"]),
        place=tuple(float(cells[name]) for name in _PLACE) if cells[_PLACE[0]] else (),
    )
