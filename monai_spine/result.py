"""The one frozen object that every output is written from, and its JSON."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_spine import __version__
from monai_spine.anatomy import Severity, Target
from monai_spine.geometry import Affine, Point, apply_affine, invert_affine
from monai_spine.level_slices import slices_json

if TYPE_CHECKING:
    from monai_spine.degeneration import Degeneration
    from monai_spine.grades import Grade
    from monai_spine.levels import LevelPoint, Levels, VertebraPoint
    from monai_spine.series import SeriesRole
    from monai_spine.weights import Bundle

__all__ = ["RESEARCH_NOTICE", "SCHEMA_VERSION", "StudyResult", "provenance_of"]

SCHEMA_VERSION = 1
RESEARCH_NOTICE = "For research use, not for diagnosis."

_REPORTED_PACKAGES = ("torch", "monai", "numpy", "pydicom", "nibabel")


@dataclass(frozen=True)
class StudyResult:
    """What was found in one study.

    Attributes:
        study_instance_uid: DICOM UID of the study; None where the input was no DICOM.
        source: The input as it was given.
        series: Every series with its role, or the reason why it has none.
        levels: Disc and canal points, and the centres of the vertebrae, RAS+ mm.
        grades: One per target that was asked for.
        flags: What a reader of the result should know of the study as a whole, in words.
        provenance: `versions`, `bundles`, `settings`, `notice` and more; see `provenance_of`.
        picture_affine: For a picture without geometry only: the affine from (column, row, slice) to the millimetres that stand in
            for pixels. Points are then written as `point_px` [x, y], counted from 0 at the centre of the top left pixel.
        degeneration: Graded discs, then graded vertebrae; empty where no bundle grades them, or there is no slice for it.
    """

    study_instance_uid: str | None
    source: str
    series: tuple[SeriesRole, ...]
    levels: Levels
    grades: tuple[Grade, ...]
    flags: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    picture_affine: Affine | None = field(default=None, compare=False)
    degeneration: tuple[Degeneration, ...] = ()

    @property
    def notice(self) -> str:
        """The notice of the provenance; that this is research comes first, whatever else it says."""
        notice = str(self.provenance.get("notice", "")).strip()
        return notice if RESEARCH_NOTICE in notice else f"{RESEARCH_NOTICE} {notice}".strip()

    def grade_of(self, target: Target) -> Grade | None:
        """The grade of a target, or None where it was left out of this run."""
        return next((grade for grade in self.grades if grade.target == target), None)

    def to_json(self) -> dict[str, Any]:
        """The result as plain dictionaries and lists, as `report/result.schema.json` specifies.

        Millimetres and pixels are rounded to 0.001, confidences and probabilities to 1e-6. `severity` is the class with the
        largest probability, the milder one where two are equal.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            "study": {"study_instance_uid": self.study_instance_uid, "source": self.source},
            "series": [_series_json(role) for role in self.series],
            "levels": [self._level_json(level) for level in self.levels.levels],
            "vertebrae": [self._vertebra_json(vertebra) for vertebra in self.levels.vertebrae],
            "grades": [self._grade_json(grade) for grade in self.grades],
            **self._degeneration_json(),
            "flags": list(dict.fromkeys((*self.flags, *self.levels.flags))),
            "doubts": [doubt.to_json() for doubt in self.levels.doubts],
            "provenance": {"versions": {}, "bundles": [], "settings": {}, **self.provenance, "notice": self.notice},
        }

    def _level_json(self, level: LevelPoint) -> dict[str, Any]:
        canal = {} if level.canal_ras_mm is None else self._point_json(level.canal_ras_mm, "canal")
        return {
            "level": level.level.label,
            **self._point_json(level.disc_ras_mm),
            **canal,
            **self._foramina_json(level),
            **({} if self.picture_affine is not None else slices_json(level)),
            "confidence": round(float(level.confidence), 6),
            "series_instance_uid": level.series_instance_uid,
            "flags": list(level.flags),
        }

    def _foramina_json(self, level: LevelPoint) -> dict[str, Any]:
        """Both foramina, or the one that was seen, under one name."""
        entries = {side.value: self._point_json(point, "foramina") for side, point in level.foramina_ras_mm.items()}
        names = dict.fromkeys(name for entry in entries.values() for name in entry)
        return {name: {side: entry[name] for side, entry in entries.items()} for name in names}

    def _vertebra_json(self, vertebra: VertebraPoint) -> dict[str, Any]:
        point = self._point_json(vertebra.point_ras_mm)
        return {"vertebra": vertebra.vertebra.value, **point, "confidence": round(float(vertebra.confidence), 6)}

    def _grade_json(self, grade: Grade) -> dict[str, Any]:
        target, side = grade.target, grade.target.side
        return {
            "condition": target.condition.value,
            "side": None if side is None else side.value,
            "level": target.level.label,
            "status": grade.status,
            "reason": grade.reason,
            "probabilities": _probabilities_json(grade.probabilities),
            "severity": None if grade.severity is None else grade.severity.value,
            "series_instance_uid": grade.series_instance_uid,
            **({"point_ras_mm": None} if grade.point_ras_mm is None else self._point_json(grade.point_ras_mm)),
            "flags": list(grade.flags),
            "doubts": [doubt.to_json() for doubt in grade.doubts],
        }

    def _degeneration_json(self) -> dict[str, list[dict[str, Any]]]:
        """`disc_grades` and `vertebra_grades` of a picture, and of a scan where anything was graded."""
        lists: dict[str, list[dict[str, Any]]] = {"disc_grades": [], "vertebra_grades": []}
        for found in self.degeneration:
            kind = "vertebra" if found.schmorl_node is None else "disc"
            node = {} if found.schmorl_node is None else {"schmorl_node": round(found.schmorl_node, 6)}
            shares = {name: round(share, 6) for name, share in found.probabilities.items()}
            entry = {kind: found.structure.label, "grade": found.grade, "probabilities": shares, **node}
            lists[f"{kind}_grades"].append({**entry, **self._point_json(found.point_ras_mm)})
        return lists if self.degeneration or self.picture_affine is not None else {}

    def _point_json(self, point_ras_mm: Point, name: str = "point") -> dict[str, Any]:
        """A point in millimetres, or as column and row of a picture."""
        if self.picture_affine is None:
            return {f"{name}_ras_mm": _rounded(point_ras_mm)}
        return {f"{name}_px": _rounded(apply_affine(invert_affine(self.picture_affine), point_ras_mm)[:2])}


def provenance_of(bundles: Iterable[Bundle], settings: Mapping[str, Any]) -> dict[str, Any]:
    """How a result came about: versions, bundles with the hashes of their weights, settings, and the notice.

    Args:
        bundles: Those that were run.
        settings: What was chosen for this run, as JSON can hold it.
    """
    entries = [_bundle_json(bundle) for bundle in bundles]
    notices = dict.fromkeys(entry["notice"] for entry in entries if entry["notice"])
    return {
        "versions": {"monai_spine": __version__, "python": platform.python_version(), **_package_versions()},
        "bundles": entries,
        "settings": dict(settings),
        "notice": " ".join([RESEARCH_NOTICE, *notices]),
    }


def _bundle_json(bundle: Bundle) -> dict[str, Any]:
    referral = bundle.option("referral")
    return {
        "name": bundle.name,
        "version": bundle.version,
        "weights_sha256": dict(bundle.weights_sha256),
        "training_data": bundle.training_data,
        "notice": bundle.notice,
        **({} if referral is None else {"referral": referral}),
    }


def _package_versions() -> dict[str, str]:
    found = {}
    for name in _REPORTED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _series_json(role: SeriesRole) -> dict[str, Any]:
    return {
        "series_instance_uid": role.series_instance_uid,
        "role": None if role.role is None else role.role.value,
        "reason": role.reason,
        "used": role.used,
        "description": role.description,
    }


def _probabilities_json(probabilities: tuple[float, float, float] | None) -> dict[str, float] | None:
    if probabilities is None:
        return None
    return {severity.value: round(float(probabilities[severity.index]), 6) for severity in Severity}


def _rounded(point: Iterable[float]) -> list[float]:
    return [round(float(value), 3) + 0.0 for value in np.asarray(point, dtype=float)]
