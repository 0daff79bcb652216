"""The prepared layout: one folder with a `datalist.json` that training reads, whatever data set it came from.

All points are RAS+ millimetres. What a set does not label is absent: absence never means "not there". A point that was
derived with a known error rather than seen is listed in `estimated`: training may use it, evaluation does not count it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_spine.anatomy import Level, Severity, Target, Vertebra
from monai_spine.errors import AnatomyError, OutputError, TableError
from monai_spine.geometry import Point
from monai_spine.studies.datalist_checks import check_datalist

__all__ = [
    "SPLITS",
    "Datalist",
    "PreparedCase",
    "PreparedTarget",
    "PreparedVolume",
    "Shares",
    "case_from_json",
    "case_to_json",
    "read_datalist",
    "summary_of",
    "write_datalist",
]

Shares = tuple[float, float, float]
"""Of normal or mild, moderate and severe."""

SCHEMA_VERSION = 1
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class PreparedVolume:
    """One image file of a case.

    Attributes:
        image: Path of a NIfTI file, relative to `datalist.json`.
        role: A series role as text: `sagittal_t1`, `sagittal_t2`, `axial_t2` or `sagittal`.
        series_instance_uid: The series it came from, if that was DICOM.
        bodies: Path of a label map on the same grid (1..7 = L1..L5, S1, T12; 0 elsewhere), relative to `datalist.json`.
        bodies_labelled: The bodies that the label map marks wherever they are visible.
    """

    image: str
    role: str
    series_instance_uid: str | None = None
    bodies: str | None = None
    bodies_labelled: tuple[Vertebra, ...] = ()


@dataclass(frozen=True)
class PreparedTarget:
    """Where a finding was graded, and how.

    Attributes:
        point_ras_mm: The place, RAS+ mm.
        severity: None where the readers gave no grade.
        image: The volume that the place was marked on, by its path in the data list; None where that is not known.
        shares: How many of all readers would give each of the three severities, where that is known, as of simulated ones: what
            training learns from instead of one reader's grade. They sum to 1.
    """

    point_ras_mm: Point
    severity: Severity | None
    image: str | None = None
    shares: Shares | None = None


@dataclass(frozen=True)
class PreparedCase:
    """One study of one patient with what is labelled on it.

    Attributes:
        case: Unique name in its data list.
        patient: Cases with the same patient never lie in different splits.
        volumes: Its images, all in one frame of reference.
        discs: Centres of discs, RAS+ mm.
        canals: Centres of the canal at the height of each disc, RAS+ mm.
        vertebrae: Centres of vertebral bodies, RAS+ mm.
        targets: Graded findings.
        estimated: Points that were derived and not seen: `disc L5/S1`, `canal L1/L2`; used in training only.
        degeneration: Grades of discs and bodies by their labels, such as `protrusion` of `L4/L5`; absent where there is none.
        schmorl_nodes: Whether a disc bears a Schmorl node, by its label; absent where that is not known.
    """

    case: str
    patient: str
    volumes: tuple[PreparedVolume, ...]
    discs: Mapping[Level, Point] = field(default_factory=dict)
    canals: Mapping[Level, Point] = field(default_factory=dict)
    vertebrae: Mapping[Vertebra, Point] = field(default_factory=dict)
    targets: Mapping[Target, PreparedTarget] = field(default_factory=dict)
    estimated: tuple[str, ...] = ()
    degeneration: Mapping[str, str] = field(default_factory=dict)
    schmorl_nodes: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Datalist:
    """The cases of one data set and how they are split.

    Attributes:
        study: Name of the data set, such as `phantom` or `lumbar_volumes`.
        source: `simulated` or `real`.
        root: Folder that the cases' paths are relative to.
        splits: Case names of `training`, `validation` and `test`.
    """

    study: str
    source: str
    root: Path
    cases: tuple[PreparedCase, ...]
    splits: Mapping[str, tuple[str, ...]]

    def cases_of(self, split: str) -> tuple[PreparedCase, ...]:
        """The cases of one split, in the order of the list.

        Raises:
            TableError: There is no such split.
        """
        if split not in self.splits:
            raise TableError(f"{self.study} has no split {split!r}. Choose from: {', '.join(self.splits)}.")
        wanted = set(self.splits[split])
        return tuple(case for case in self.cases if case.case in wanted)


def write_datalist(
    out_dir: Path | str, *, study: str, source: str, cases: Iterable[PreparedCase], splits: Mapping[str, Sequence[str]]
) -> Path:
    """Write `datalist.json` into a prepared folder. It is written beside its place and then renamed.

    Raises:
        TableError: A case name appears twice, a split names an unknown case, or a patient lies in two splits.
        OutputError: The folder cannot be written.
    """
    datalist = Datalist(study, source, Path(out_dir), tuple(cases), {name: tuple(splits.get(name, ())) for name in SPLITS})
    check_datalist(datalist)
    path = datalist.root / "datalist.json"
    part = path.with_name(f".datalist.{os.getpid()}.part")
    try:
        datalist.root.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(_to_json(datalist), indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}). Free space there or choose another folder.") from error
    return path


def read_datalist(path: Path | str) -> Datalist:
    """Read a `datalist.json`, or the one inside a prepared folder.

    Raises:
        TableError: It is missing, is no data list, or contradicts itself.
    """
    path = Path(path)
    path = path / "datalist.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise TableError(f"{path} cannot be read as a data list ({error}). Write it with `monai-spine prepare`.") from error
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise TableError(f"{path} is no data list of schema version {SCHEMA_VERSION}. Prepare the data again.")
    try:
        datalist = _from_json(document, path.parent)
    except (KeyError, TypeError, ValueError, AnatomyError) as error:
        raise TableError(f"{path} does not follow the data list's schema: {error!r}. Prepare the data again.") from error
    check_datalist(datalist)
    return datalist


def summary_of(datalist: Datalist) -> str:
    """One line: how many cases of how many patients each split has, and what is labelled on them."""
    parts = {split: datalist.cases_of(split) for split in datalist.splits}
    patients = {split: len({case.patient for case in cases}) for split, cases in parts.items()}
    counts = [f"{len(cases)} cases of {patients[split]} patients for {split}" for split, cases in parts.items() if cases]
    labels = {
        "discs": sum(len(case.discs) for case in datalist.cases),
        "canal points": sum(len(case.canals) for case in datalist.cases),
        "label maps of bodies": sum(volume.bodies is not None for case in datalist.cases for volume in case.volumes),
    }
    return f"{datalist.study}: {', '.join(counts)}; {', '.join(f'{count} {what}' for what, count in labels.items())}"


def _to_json(datalist: Datalist) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "study": datalist.study,
        "source": datalist.source,
        "splits": {name: list(members) for name, members in datalist.splits.items()},
        "cases": [case_to_json(case) for case in datalist.cases],
    }


def case_to_json(case: PreparedCase) -> dict[str, Any]:
    """A case as a data list holds it."""
    return {
        "case": case.case,
        "patient": case.patient,
        "volumes": [
            {
                "image": volume.image,
                "role": str(volume.role),
                "series_instance_uid": volume.series_instance_uid,
                "bodies": volume.bodies,
                "bodies_labelled": [body.label for body in volume.bodies_labelled],
            }
            for volume in case.volumes
        ],
        "discs": {level.label: _rounded(point) for level, point in case.discs.items()},
        "canals": {level.label: _rounded(point) for level, point in case.canals.items()},
        "vertebrae": {vertebra.label: _rounded(point) for vertebra, point in case.vertebrae.items()},
        "targets": {
            target.slug: {
                "point_ras_mm": _rounded(found.point_ras_mm),
                "severity": None if found.severity is None else found.severity.slug,
                **({} if found.image is None else {"image": found.image}),
                **({} if found.shares is None else {"shares": [round(share, 5) for share in found.shares]}),
            }
            for target, found in case.targets.items()
        },
        "estimated": list(case.estimated),
        **({"degeneration": dict(case.degeneration)} if case.degeneration else {}),
        **({"schmorl_nodes": dict(case.schmorl_nodes)} if case.schmorl_nodes else {}),
    }


def _from_json(document: Mapping[str, Any], root: Path) -> Datalist:
    splits = {str(name): tuple(str(member) for member in members) for name, members in document["splits"].items()}
    cases = tuple(case_from_json(case) for case in document["cases"])
    return Datalist(str(document["study"]), str(document["source"]), root, cases, splits)


def case_from_json(case: Mapping[str, Any]) -> PreparedCase:
    """The case that `case_to_json` wrote."""
    volumes = tuple(_volume_from_json(volume) for volume in case["volumes"])
    return PreparedCase(
        case=str(case["case"]),
        patient=str(case["patient"]),
        volumes=volumes,
        discs={Level.parse(name): _point(point) for name, point in case.get("discs", {}).items()},
        canals={Level.parse(name): _point(point) for name, point in case.get("canals", {}).items()},
        vertebrae={Vertebra.parse(name): _point(point) for name, point in case.get("vertebrae", {}).items()},
        targets={Target.parse(slug): _target_from_json(found, volumes) for slug, found in case.get("targets", {}).items()},
        estimated=tuple(str(name) for name in case.get("estimated", ())),
        degeneration={str(name): str(grade) for name, grade in case.get("degeneration", {}).items()},
        schmorl_nodes={str(name): bool(there) for name, there in case.get("schmorl_nodes", {}).items()},
    )


def _volume_from_json(volume: Mapping[str, Any]) -> PreparedVolume:
    return PreparedVolume(
        image=str(volume["image"]),
        role=str(volume["role"]),
        series_instance_uid=volume.get("series_instance_uid"),
        bodies=volume.get("bodies"),
        bodies_labelled=tuple(Vertebra.parse(name) for name in volume.get("bodies_labelled") or ()),
    )


def _target_from_json(found: Mapping[str, Any], volumes: Sequence[PreparedVolume]) -> PreparedTarget:
    severity = found.get("severity")
    severity = None if severity is None else Severity.parse(severity)
    shares = None if found.get("shares") is None else _shares(found["shares"])
    image = None if found.get("image") is None else _marked(str(found["image"]), volumes)
    return PreparedTarget(_point(found["point_ras_mm"]), severity, image, shares)


def _marked(image: str, volumes: Sequence[PreparedVolume]) -> str:
    """A target's volume by its path in this list: lists of folds had it by its path in the whole list at first."""
    return next((one.image for one in volumes if one.image == image or one.image.endswith(f"../{image}")), image)


def _shares(values: Sequence[float]) -> Shares:
    mild, moderate, severe = (float(value) for value in values)
    if min(mild, moderate, severe) < 0 or abs(mild + moderate + severe - 1) > 1e-3:
        raise ValueError(f"the shares {list(values)} do not sum to 1")
    return mild, moderate, severe


def _rounded(point: Point) -> list[float]:
    return [round(float(value), 3) for value in point]


def _point(values: Sequence[float]) -> Point:
    r, a, s = (float(value) for value in values)
    return r, a, s
