"""Which series is sagittal T1, sagittal T2 or STIR, or axial T2, and why.

Geometry and MR tags decide; a description is a hint, taken where they are silent. A competition's table and the user's own
choice come before both. Every series gets its reason in words. No pixel is read, and torch is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from monai_spine.errors import SeriesSelectionError, TableError
from monai_spine.files import name_of
from monai_spine.series_facts import Facts, Finding, read_facts, weigh
from monai_spine.study import Series, Study

__all__ = ["Role", "SeriesRole", "SeriesTable", "assign_roles", "role_from_table", "used_series"]

SeriesTable: TypeAlias = Mapping[tuple[str, str], str]
"""Study and series to a description, as the competition's table has them."""


class Role(str, Enum):
    """What a series is to the findings."""

    SAGITTAL_T1 = "sagittal_t1"
    SAGITTAL_T2 = "sagittal_t2"
    AXIAL_T2 = "axial_t2"
    SAGITTAL = "sagittal"
    PICTURE = "picture"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def words(self) -> str:
        """The role within a sentence: `sagittal T1`."""
        return self.value.replace("_t", " T")

    @property
    def label(self) -> str:
        """Text for people, as the competition's table writes it where it has the role."""
        return {"sagittal_t1": "Sagittal T1", "sagittal_t2": "Sagittal T2/STIR", "axial_t2": "Axial T2"}.get(
            self.value, self.value.capitalize()
        )


@dataclass(frozen=True)
class SeriesRole:
    """The verdict on one series.

    Attributes:
        series_instance_uid: The series; the file name of a NIfTI or picture.
        role: What it shows, or None where it is none of the roles.
        reason: Why, in words.
        used: True where findings are read from it.
        description: SeriesDescription.
    """

    series_instance_uid: str
    role: Role | None
    reason: str
    used: bool
    description: str = ""


@dataclass(frozen=True)
class _Candidate:
    series: Series
    facts: Facts
    role: Role | None
    reason: str

    @property
    def uid(self) -> str:
        return self.series.series_instance_uid


def role_from_table(label: str) -> Role:
    """Read a label of the competition's table of series, such as `Sagittal T2/STIR`.

    Raises:
        TableError: The label is none of the three.
    """
    for role in (Role.SAGITTAL_T1, Role.SAGITTAL_T2, Role.AXIAL_T2):
        if label.strip().lower() in (role.label.lower(), role.value):
            return role
    raise TableError(f"Unknown series description {label!r}. Choose from: Sagittal T1, Sagittal T2/STIR, Axial T2.")


def used_series(study: Study, roles: Sequence[SeriesRole], role: Role) -> tuple[Series, ...]:
    """The series of a study from which a role's findings are read, in the study's order; empty where there is none."""
    uids = {one.series_instance_uid for one in roles if one.used and one.role is role}
    return tuple(series for series in study.series if series.series_instance_uid in uids)


def assign_roles(
    study: Study,
    *,
    chosen: Mapping[Role, str] | None = None,
    table: SeriesTable | None = None,
    nifti_role: Role | None = None,
    unreadable: Mapping[str, str] | None = None,
) -> tuple[SeriesRole, ...]:
    """Give each series its role, and choose which are used.

    One series is used for each sagittal role; for axial T2 all that are no copies, as one patient's blocks may be split over
    several series.

    Args:
        study: An opened study.
        chosen: The user's own choice: role to SeriesInstanceUID.
        table: The competition's labels: study and series, each by its UID or by the name of its folder (a study also by that of
            its file), to `Sagittal T1`, `Sagittal T2/STIR` or `Axial T2`.
        nifti_role: What a NIfTI file shows; by default `sagittal`, of unknown weighting.
        unreadable: Series that turned out to be of no use, and why: the next best is used, but for a role that the user chose.

    Returns:
        One verdict for each series, in the study's order.

    Raises:
        SeriesSelectionError: A chosen series is not in the study.
        TableError: The table holds another label.
    """
    wanted, unreadable = dict(chosen or {}), unreadable or {}
    _check_chosen(study, wanted)
    if study.kind == "dicom":
        labels = [_label(study, series, table or {}) for series in study.series]
        unlisted = "; by its headers, as the table of series does not list this study" if table and not any(labels) else ""
        candidates = [_judge(series, label, listed=any(labels)) for series, label in zip(study.series, labels, strict=True)]
        candidates = [replace(one, reason=f"{one.reason}{unlisted}") for one in candidates]
    else:
        candidates = [_unweighted(study, nifti_role)]
    verdicts: dict[str, SeriesRole] = {one.uid: _verdict(one, used=False) for one in candidates}
    for role in Role:
        if role not in wanted:
            out = {*wanted.values(), *unreadable}
            verdicts.update(_choose([one for one in candidates if one.role is role and one.uid not in out]))
    if any(verdicts[uid].used and verdicts[uid].role in (Role.SAGITTAL_T1, Role.SAGITTAL_T2) for uid in verdicts):
        verdicts.update(_without_unweighted(verdicts))
    for role, uid in wanted.items():
        verdicts.update(_override(candidates, verdicts, role, uid))
    for uid, why in unreadable.items():
        verdicts[uid] = replace(verdicts[uid], used=False, reason=f"{verdicts[uid].reason}; set aside: {why}")
    return tuple(verdicts[series.series_instance_uid] for series in study.series)


def _check_chosen(study: Study, chosen: Mapping[Role, str]) -> None:
    known = {series.series_instance_uid for series in study.series}
    for role, uid in chosen.items():
        if uid not in known:
            listed = "; ".join(f"{series.series_instance_uid} ({series.title})" for series in study.series)
            raise SeriesSelectionError(f"Series {uid!r}, chosen as {role.value}, is not in {study.source}. It holds: {listed}.")


def _label(study: Study, series: Series, table: SeriesTable) -> str | None:
    """What the table says of a series; a series number that belongs to another study says nothing."""
    folder = series.instances[0].path.parent
    stem = Path(study.source).name.removesuffix(".zip")
    studies = (study.study_instance_uid or "", name_of(folder.parent), name_of(folder), stem)
    keys = ((one, name) for one in studies for name in (series.series_instance_uid, name_of(folder)))
    return next((table[key] for key in keys if key in table), None)


def _judge(series: Series, label: str | None, *, listed: bool) -> _Candidate:
    """A series' role by table or tags."""
    facts = read_facts(series)
    if label is not None:
        role = role_from_table(label)
        expected = role.value.split("_")[0]
        conflict = f"; but its slices lie {facts.plane_words}" if facts.plane and facts.plane.value != expected else ""
        return _Candidate(series, facts, role, f"{role.label} by the table{conflict}")
    if listed:
        return _Candidate(series, facts, None, "not listed in the table of series")
    finding: Finding = weigh(facts)
    return _Candidate(series, facts, Role(finding.role) if finding.role else None, finding.reason)


def _unweighted(study: Study, nifti_role: Role | None) -> _Candidate:
    """A NIfTI file or picture: its role is given, or unknown.

    Raises:
        SeriesSelectionError: A picture is said to be anything but sagittal T2.
    """
    series = study.series[0]
    if study.kind == "picture":
        if nifti_role not in (None, Role.SAGITTAL_T2):
            raise SeriesSelectionError(
                f"{study.source} is a picture: it is read as mid-sagittal T2, and cannot be {nifti_role.label}. Leave --role out."
            )
        return _Candidate(series, Facts(), Role.PICTURE, "a picture: no geometry and no weighting is known")
    if nifti_role is not None:
        return _Candidate(series, Facts(), nifti_role, f"{nifti_role.label} as given by --role")
    reason = "a NIfTI file says nothing of its weighting (--role gives it): levels are found, grades that need it are not"
    return _Candidate(series, Facts(), Role.SAGITTAL, reason)


def _verdict(candidate: _Candidate, *, used: bool, more: str = "") -> SeriesRole:
    reason = f"{candidate.reason}; {more}" if more else candidate.reason
    return SeriesRole(candidate.uid, candidate.role, reason, used, candidate.series.description)


def _choose(candidates: list[_Candidate]) -> dict[str, SeriesRole]:
    """Rank the candidates for one role, use the best, and say why the others are not."""
    ranked = sorted(candidates, key=lambda one: one.facts.rank)
    verdicts: dict[str, SeriesRole] = {}
    used: list[_Candidate] = []
    for one in ranked:
        twin = next((other for other in used if other.facts.identity and other.facts.identity == one.facts.identity), None)
        if twin is not None:
            verdict = _verdict(one, used=False, more=f"a duplicate of {twin.series.title}: same positions, TE, TR and TI")
        elif used and (one.role is not Role.AXIAL_T2 or one.facts.quality > used[0].facts.quality):
            better = f"{used[0].series.title} is used: it {used[0].facts.advantage_over(one.facts)}"
            verdict = _verdict(one, used=False, more=better)
        else:
            used.append(one)
            verdict = _verdict(one, used=True)
        verdicts[one.uid] = verdict
    return {**verdicts, **_praise(used, ranked)}


def _praise(used: list[_Candidate], ranked: list[_Candidate]) -> dict[str, SeriesRole]:
    """Say why the used series was preferred, or that several are used together."""
    if not used:
        return {}
    if len(used) > 1:
        more = f"used with {len(used) - 1} other series of this kind"
        return {one.uid: _verdict(one, used=True, more=more) for one in used}
    first, rest = used[0], [one for one in ranked if one is not used[0]]
    more = f"chosen of {len(ranked)}: it {first.facts.advantage_over(rest[0].facts)}" if rest else ""
    return {first.uid: _verdict(first, used=True, more=more)}


def _without_unweighted(verdicts: Mapping[str, SeriesRole]) -> dict[str, SeriesRole]:
    """A sagittal series of unknown weighting is not needed beside one of known weighting."""
    unneeded = {uid: one for uid, one in verdicts.items() if one.used and one.role is Role.SAGITTAL}
    more = "not needed beside the sagittal series of known weighting"
    return {uid: SeriesRole(uid, one.role, f"{one.reason}; {more}", False, one.description) for uid, one in unneeded.items()}


def _override(candidates: list[_Candidate], verdicts: Mapping[str, SeriesRole], role: Role, uid: str) -> dict[str, SeriesRole]:
    """Use the series that the user chose for a role, and no other."""
    found = next(one for one in candidates if one.uid == uid)
    was = "" if found.role is role else f" (by itself: {found.reason})"
    changed = {uid: SeriesRole(uid, role, f"chosen as {role.value} by the user{was}", True, found.series.description)}
    for other, one in verdicts.items():
        if other != uid and one.role is role and not one.reason.startswith("chosen as"):
            more = f"{found.series.title} was chosen by the user"
            changed[other] = SeriesRole(other, one.role, f"{one.reason}; {more}", False, one.description)
    return changed
