"""What the DICOM headers of an RSNA 2024 series say against its description. The description is followed all the same."""

from __future__ import annotations

from collections.abc import Iterator

from monai_spine.series import Role
from monai_spine.series_facts import read_facts, weigh
from monai_spine.study import Series

__all__ = ["header_doubts"]

_WEIGHTED = {Role.SAGITTAL_T1: Role.SAGITTAL_T2, Role.SAGITTAL_T2: Role.SAGITTAL_T1}


def header_doubts(series: Series, role: Role) -> Iterator[str]:
    """What speaks against a role, in words: another modality, or a T1 series that is called T2, or the reverse.

    Headers that are silent speak against nothing. Planes are looked at slice by slice, in `rsna2024_quirks`.
    """
    if series.tags.modality not in ("MR", ""):
        yield f"Modality is {series.tags.modality}, not MR"
    found = weigh(read_facts(series))
    if role in _WEIGHTED and found.role == _WEIGHTED[role].value:
        yield f"{_WEIGHTED[role].label} by its headers ({found.reason})"
