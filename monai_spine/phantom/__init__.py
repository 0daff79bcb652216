"""Simulated lumbar MRI studies: anatomy, contrast, scanner and readers.

    readers.py    hidden narrowing of each target and the grade a reader gives
    column.py     the curve of the spine and coordinates along it
    spine.py      one patient's sizes, posture and degeneration
    profiles.py   what changes along the column, tabulated
    tissues.py    relaxation times and pulse sequences
    textures.py   trabeculae, fat streaks, roots, unevenness
    render.py     tissues painted onto points
    protocol.py   the three series that are planned
    scanner.py    slices, coil, noise, reconstruction
    simulate.py   one study
    dicom.py      as DICOM files       export.py    with the competition's tables
    prepared.py   as training data     floor.py     best possible score
    structures.py where a point lies   replica/     the studies of the RSNA 2024 tables
    lesions/      lesions of known size, on this anatomy or on real one

The phantom is no patient: what is trained on it shows the path and grades nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_spine.phantom.export import write_phantom_studies
    from monai_spine.phantom.floor import floor
    from monai_spine.phantom.prepared import prepare_phantom
    from monai_spine.phantom.replica import write_replica

__all__ = ["floor", "prepare_phantom", "write_phantom_studies", "write_replica"]

_HOME = {"floor": "floor", "prepare_phantom": "prepared", "write_phantom_studies": "export", "write_replica": "replica"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"monai_spine.phantom.{_HOME[name]}"), name)
