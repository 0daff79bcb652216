"""Which RSNA 2024 studies are of one patient, so that no split parts them.

Studies hang together by a PatientID or a StudyInstanceUID that files of both have, and by images that both have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from monai_spine.studies.quirks import Quirk
from monai_spine.studies.rsna2024_images import StudyImages

__all__ = ["image_keys", "patients_of"]

_Key = TypeVar("_Key", bound=Hashable)

MAX_STUDIES = 10
"""A PatientID or StudyInstanceUID that more studies share is a placeholder of whoever took the names out."""


def patients_of(studies: Sequence[StudyImages]) -> tuple[dict[int, str], tuple[Quirk, ...]]:
    """The patient of each study, named by their first study, and what was odd."""
    by_patient, by_image = _groups(studies, _patient_keys), _groups(studies, image_keys)
    quirks = []
    for (keyword, value), members in by_patient.items():
        if len(members) > MAX_STUDIES:
            seen = f"{keyword} {value!r} in {len(members)} studies"
            quirks.append(Quirk("shared_patient_id", members[0], seen, "not used, each study is taken for a patient"))
    for alike in dict.fromkeys(tuple(members) for members in by_image.values() if len(members) > 1):
        seen = f"studies {', '.join(map(str, alike))} have a volume with the same voxels"
        quirks.append(Quirk("same_images", alike[0], seen, "taken for one patient, never parted by a split"))
    together = [members for members in by_patient.values() if len(members) <= MAX_STUDIES]
    return _joined([one.study_id for one in studies], [*together, *by_image.values()]), tuple(quirks)


def image_keys(study: StudyImages) -> Iterable[Hashable]:
    """What tells the volumes of a study from all others: size and checksum of the voxels."""
    return [(volume.shape, volume.checksum) for series in study.series for volume in series.volumes]


def _patient_keys(study: StudyImages) -> Iterable[tuple[str, str]]:
    for series in study.series:
        yield from (("PatientID", value) for value in series.patient_ids)
        yield from (("StudyInstanceUID", value) for value in series.study_instance_uids)


def _groups(studies: Sequence[StudyImages], keys: Callable[[StudyImages], Iterable[_Key]]) -> Mapping[_Key, list[int]]:
    groups: dict[_Key, list[int]] = defaultdict(list)
    for study in studies:
        for key in set(keys(study)):
            groups[key].append(study.study_id)
    return groups


def _joined(studies: Sequence[int], groups: Iterable[Sequence[int]]) -> dict[int, str]:
    """Study to the first study of all that hang together with it."""
    first = {study: study for study in studies}

    def root(study: int) -> int:
        while first[study] != study:
            study = first[study]
        return study

    for members in groups:
        roots = {root(member) for member in members}
        for other in roots:
            first[other] = min(roots)
    return {study: str(root(study)) for study in studies}
