"""The images of one RSNA 2024 study as compressed NIfTI volumes, one per block, with the way back to instance and pixel.

    OUT/volumes/<study>/sagittal_t1_0.nii.gz …   voxels (column, row, slice) as stored, integers where the pixels are
                        instances.csv            see instance_table.py
                        study.json               what was seen on the way: series, volumes, flags
                        .complete

The folder is written beside its place and then renamed. Series are read one after the other, so that memory holds one at a time.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from monai_spine.errors import OutputError, TableError, UnreadableInputError, VolumeGeometryError
from monai_spine.instances import Instance
from monai_spine.series import Role
from monai_spine.store import COMPLETE
from monai_spine.studies.instance_table import INSTANCES_FILE, InstanceRow, read_instances, write_instances
from monai_spine.studies.nifti_files import save_nifti
from monai_spine.studies.rsna2024_files import files_digest, read_headers, refuse_points_outside
from monai_spine.studies.rsna2024_headers import header_doubts
from monai_spine.studies.rsna2024_tables import StudyRows
from monai_spine.study import Series
from monai_spine.volume import Volume, load_series

__all__ = ["SeriesFacts", "StudyImages", "VolumeFacts", "read_images", "why_to_write", "write_images"]

_STUDY_FILE = "study.json"
RESAMPLED = "slices of several sizes"
"""How the flag of a volume begins whose slices had to be brought to one size."""
_EXACT = 2**24
"""Below this, float32, in which volumes are put together, holds every whole number."""
_KINDS = (np.int16, np.uint16, np.int32)


@dataclass(frozen=True)
class VolumeFacts:
    """One file that was written.

    Attributes:
        name: Of the file.
        shape: Voxels along i, j, k.
        spacing_mm: Along i, j, k.
        checksum: CRC-32 of the voxels.
        flags: What was noticed while it was put together.
    """

    name: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    checksum: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class SeriesFacts:
    """One series as it was read.

    Attributes:
        series_id: Its number in the tables.
        role: What the table calls it.
        series_instance_uid: Of its first file.
        frame_of_reference_uid: Of its first file.
        volumes: What was written of it.
        patient_ids: PatientIDs of its files, each once.
        study_instance_uids: StudyInstanceUIDs of its files, each once.
        doubts: What its headers say against its role.
        left_out: Why it has no volume; empty where it has.
    """

    series_id: int
    role: Role
    series_instance_uid: str
    frame_of_reference_uid: str
    volumes: tuple[VolumeFacts, ...]
    patient_ids: tuple[str, ...]
    study_instance_uids: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    left_out: str = ""


@dataclass(frozen=True)
class StudyImages:
    """What `study.json` holds.

    Attributes:
        study_id: Of the study.
        series: Its series in the order of the table.
        files: `files_digest` of what it was made from.
        sizes: Bytes of each file that lies beside `study.json`, by its name.
    """

    study_id: int
    series: tuple[SeriesFacts, ...]
    files: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)


def why_to_write(data: Path, out: Path, study: StudyRows) -> str | None:
    """Why a study's images have to be written: what changed since they were; empty where they are not there at all.

    Returns:
        None where all is there and whole, made from the files of today, under the series and with the slices that the tables name
        today.
    """
    folder = out / "volumes" / str(study.study_id)
    if not (folder / COMPLETE).is_file():
        return ""
    try:
        written = read_images(out, study.study_id)
    except TableError:
        return f"{_STUDY_FILE} is missing, damaged or of an earlier version"
    if _sizes(folder) != written.sizes:
        return "a file of it is missing, cut off or was changed"
    if [(series.series_id, series.role) for series in written.series] != list(study.series.items()):
        return "the table names other series now"
    try:
        if written.files != files_digest(data, study.study_id):
            return "its files are not those that it was made from (names, sizes or times differ)"
        refuse_points_outside(data, study, {row.key: (row.rows, row.columns) for row in read_instances(folder)})
    except (OSError, TableError):
        return "its tables and its files do not fit together"
    return None


def write_images(data: Path, out: Path, study: StudyRows) -> None:
    """Write the volumes of one study.

    Args:
        data: The competition's folder.
        out: The prepared folder.
        study: What the tables say of it; its points have to lie on its pictures.

    Raises:
        TableError: The tables and the disk do not fit together: a series, an instance, or a pixel that is not there.
        UnreadableInputError: A file cannot be read, or has pixels that are not finite.
        OutputError: The folder cannot be written.
    """
    digest, instances = _digest(data, study), read_headers(data, study)
    sizes = {(number, int(one.path.stem)): (one.frames[0].rows, one.frames[0].columns) for number, one in _pairs(instances)}
    refuse_points_outside(data, study, sizes)
    folder = out / "volumes" / str(study.study_id)
    beside = folder.with_name(f".{folder.name}.part")
    try:
        for left in (beside, folder):
            if left.exists():
                shutil.rmtree(left)
        beside.mkdir(parents=True)
        _write(study, instances, beside, digest=digest)
        (beside / COMPLETE).touch()
        beside.replace(folder)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror or error}). Free some space or choose another folder, and use --resume."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_images(out: Path, study_id: int) -> StudyImages:
    """What was written of a study.

    Raises:
        TableError: Its `study.json` cannot be read.
    """
    path = out / "volumes" / str(study_id) / _STUDY_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        series = tuple(_series_from_json(one) for one in document["series"])
        return StudyImages(int(document["study_id"]), series, str(document["files"]), dict(document["sizes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TableError(f"{path} cannot be read ({error!r}). Remove {path.parent} and use --resume.") from error


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the volumes of a study and of the table of its instances, by name; a missing file has no entry."""
    files = [folder / INSTANCES_FILE, *sorted(folder.glob("*.nii.gz"))]
    return {path.name: path.stat().st_size for path in files if path.is_file()}


def _series_from_json(one: Mapping[str, Any]) -> SeriesFacts:
    volumes = tuple(
        VolumeFacts(
            str(volume["name"]), tuple(volume["shape"]), tuple(volume["spacing_mm"]), volume["checksum"], tuple(volume["flags"])
        )
        for volume in one["volumes"]
    )
    names = {key: tuple(map(str, one[key])) for key in ("patient_ids", "study_instance_uids", "doubts")}
    return SeriesFacts(**{**one, **names, "role": Role(one["role"]), "volumes": volumes})


def _digest(data: Path, study: StudyRows) -> str:
    """Taken before anything is read, so that what is changed meanwhile is seen by the next run."""
    try:
        return files_digest(data, study.study_id)
    except OSError as error:
        raise UnreadableInputError(f"{error.filename} cannot be opened ({error.strerror}). Check its permissions.") from error


def _write(study: StudyRows, instances: Mapping[int, Sequence[Instance]], folder: Path, *, digest: str) -> None:
    series: list[SeriesFacts] = []
    places: dict[str, tuple[str, int]] = {}
    for number, role in study.series.items():
        first = sum(len(one.volumes) for one in series if one.role is role)
        series.append(_write_series(number, role, instances[number], folder=folder, first=first, places=places))
    rows = [
        InstanceRow.of(one.frames[0], series_id=number, volume=volume, slice_index=index)
        for number, one in _pairs(instances)
        for volume, index in [places.get(one.sop_instance_uid, ("", -1))]
    ]
    write_instances(rows, folder)
    document = asdict(StudyImages(study.study_id, tuple(series), digest, _sizes(folder)))
    (folder / _STUDY_FILE).write_text(json.dumps(document, indent=1), encoding="utf-8")


def _pairs(instances: Mapping[int, Sequence[Instance]]) -> list[tuple[int, Instance]]:
    return [(number, one) for number, members in instances.items() for one in members]


def _write_series(
    number: int, role: Role, instances: Sequence[Instance], *, folder: Path, first: int, places: dict[str, tuple[str, int]]
) -> SeriesFacts:
    """Write the volumes of a series, and enter into `places` the volume and the slice of each instance."""
    tags, uid = instances[0].tags, instances[0].series_instance_uid
    patients = tuple(dict.fromkeys(one.patient_id for one in instances if one.patient_id))
    studies = tuple(dict.fromkeys(one.study_instance_uid for one in instances if one.study_instance_uid))
    series = Series(uid, tags.number, tags.description, tuple(instances), tags)
    doubts = tuple(header_doubts(series, role))
    facts = SeriesFacts(number, role, uid, tags.frame_of_reference_uid, (), patients, studies, doubts)
    try:
        volumes = load_series(series)
    except VolumeGeometryError as error:
        return replace(facts, left_out=str(error))
    written = []
    for index, volume in enumerate(volumes, start=first):
        name = f"{role.value}_{index}.nii.gz"
        voxels, remarks = _as_stored(volume, instances)
        save_nifti(voxels, volume.affine, folder / name)
        places.update({sop: (name, k) for k, sop in enumerate(volume.sop_instance_uids)})
        spacing = tuple(round(edge, 4) for edge in volume.spacing_mm)
        written.append(VolumeFacts(name, voxels.shape, spacing, zlib.crc32(voxels.T.data), (*volume.flags, *remarks)))
    return replace(facts, volumes=tuple(written))


def _as_stored(volume: Volume, instances: Sequence[Instance]) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """The voxels as the smallest whole numbers that hold them, else as float32, and what is to be said of them.

    Slices that were resampled onto another size lie between whole numbers and are rounded to them.
    """
    array = volume.array
    if any(flag.startswith(RESAMPLED) for flag in volume.flags):
        array = np.rint(array)
    lowest, highest = float(array.min()), float(array.max())
    if not np.isfinite([lowest, highest]).all():
        _refuse_not_finite(volume, instances)
    remarks = tuple(_remarks(lowest, highest))
    for kind in _KINDS:
        limits = np.iinfo(kind)
        if limits.min <= lowest and highest <= limits.max:
            whole = array.astype(kind)
            return (whole if np.array_equal(whole, array) else array), remarks
    return array, remarks


def _remarks(lowest: float, highest: float) -> Iterator[str]:
    if lowest == highest:
        yield f"every voxel is {lowest:g}: the volume shows nothing"
    if max(-lowest, highest) >= _EXACT:
        yield f"voxels of up to {max(-lowest, highest):.0f}: of what lies beyond {_EXACT}, the first 24 binary digits are kept"


def _refuse_not_finite(volume: Volume, instances: Sequence[Instance]) -> NoReturn:
    broken = next(k for k in range(volume.array.shape[2]) if not np.isfinite(volume.array[..., k]).all())
    file = next(one.path for one in instances if one.sop_instance_uid == volume.sop_instance_uids[broken])
    raise UnreadableInputError(
        f"{file} has pixels that are NaN or infinite, as they are stored or by RescaleSlope and RescaleIntercept. "
        "Restore the file from the data set."
    )
