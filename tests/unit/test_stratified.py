"""Patients dealt into parts by class."""

from __future__ import annotations

import numpy as np
import pytest

from monai_spine.errors import TableError
from monai_spine.studies.stratified import stratified_parts


def cohort(count: int = 500) -> dict[str, dict[str, int]]:
    rng = np.random.default_rng(0)
    chances = {"common": 0.6, "rare": 0.06, "rarest": 0.01}
    return {f"p{k}": {name: 1 for name, chance in chances.items() if rng.random() < chance} for k in range(count)}


def test_every_patient_lies_in_one_part_of_its_share() -> None:
    parts = stratified_parts(cohort(), (0.7, 0.15, 0.15))
    assert sorted(name for part in parts for name in part) == sorted(cohort())
    assert [len(part) for part in parts] == [350, 75, 75]


@pytest.mark.parametrize("name", ["common", "rare", "rarest"])
def test_every_fold_has_its_share_of_a_class(name: str) -> None:
    patients = cohort()
    total = sum(found.get(name, 0) for found in patients.values())
    for part in stratified_parts(patients, (0.2,) * 5):
        assert sum(patients[patient].get(name, 0) for patient in part) == pytest.approx(total / 5, abs=1)


def test_the_order_of_patients_changes_nothing() -> None:
    patients = cohort(60)
    assert stratified_parts(dict(reversed(patients.items())), (0.5, 0.5)) == stratified_parts(patients, (0.5, 0.5))


def test_patients_without_any_class_are_dealt_too() -> None:
    assert [len(part) for part in stratified_parts({f"p{k}": {} for k in range(10)}, (0.8, 0.2))] == [8, 2]


def test_too_few_patients_and_odd_shares_are_refused() -> None:
    with pytest.raises(TableError, match="2 patients cannot be dealt into 5 parts"):
        stratified_parts(cohort(2), (0.2,) * 5)
    with pytest.raises(TableError, match="add up to 1"):
        stratified_parts(cohort(9), (0.5, 0.2))
