"""Other splits of prepared data: no patient lies in two parts, and every part is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_spine.anatomy import LEVELS
from monai_spine.errors import TableError
from monai_spine.studies.folds import part_of, patient_folds, write_split
from monai_spine.studies.prepared import PreparedCase, PreparedVolume, read_datalist, write_datalist


def case(name: str, patient: str | None = None) -> PreparedCase:
    volume = PreparedVolume(f"volumes/{name}/t2.nii", "sagittal_t2", bodies=f"volumes/{name}/bodies.nii.gz")
    plain = PreparedVolume(f"volumes/{name}/t1.nii", "sagittal_t1")
    return PreparedCase(name, patient or name, (volume, plain), discs={LEVELS[0]: (1.0, 2.0, 3.0)})


CASES = [
    *(case(f"VB3_{number:02d}") for number in range(11)),
    *(case(f"VB2_{number:02d}") for number in range(5)),
    case("VB1_02"), case("VB1_03", "VB1_02"), case("IVD_20"),
]  # fmt: skip


def test_a_case_belongs_to_the_part_before_its_underscore() -> None:
    assert part_of(case("VB3_07")) == "VB3"
    assert part_of(case("053")) == ""


def test_folds_share_no_patient_and_hold_every_case_once() -> None:
    folds = patient_folds(CASES)
    assert len(folds) == 5
    assert sorted(name for fold in folds for name in fold) == sorted(case.case for case in CASES)
    assert any({"VB1_02", "VB1_03"} <= fold for fold in folds)


def test_every_fold_has_its_share_of_every_part() -> None:
    for fold in patient_folds(CASES):
        assert sum(name.startswith("VB3") for name in fold) in (2, 3)
        assert sum(name.startswith("VB2") for name in fold) == 1


def test_folds_do_not_depend_on_the_order_of_the_cases() -> None:
    assert patient_folds(CASES[::-1], 4) == patient_folds(CASES, 4)


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(TableError, match="2 patients cannot be dealt into 3 folds"):
        patient_folds([case("a"), case("b"), case("c", "b")], 3)


def test_a_split_refers_to_the_files_where_they_are(tmp_path: Path) -> None:
    write_datalist(tmp_path / "all", study="lumbar", source="real", cases=CASES, splits={"training": [one.case for one in CASES]})
    whole = read_datalist(tmp_path / "all")
    held_out = patient_folds(whole.cases)[1]
    split = read_datalist(write_split(whole, tmp_path / "folds" / "fold_1", held_out=held_out))
    assert (split.study, split.source) == ("lumbar", "real")
    assert set(split.splits["validation"]) == held_out
    assert set(split.splits["training"]) == {one.case for one in CASES} - held_out
    assert split.splits["test"] == ()
    for one, moved in zip(whole.cases, split.cases, strict=True):
        assert moved.discs == one.discs
        for volume, seen in zip(one.volumes, moved.volumes, strict=True):
            assert (split.root / seen.image).resolve() == (whole.root / volume.image).resolve()
            assert (seen.bodies is None) == (volume.bodies is None)
            assert seen.bodies is None or (split.root / seen.bodies).resolve() == (whole.root / volume.bodies).resolve()


def test_a_patient_on_both_sides_of_a_split_is_refused(tmp_path: Path) -> None:
    write_datalist(tmp_path, study="lumbar", source="real", cases=CASES, splits={})
    with pytest.raises(TableError, match="patient 'VB1_02' lies in 'training' and in 'validation'"):
        write_split(read_datalist(tmp_path), tmp_path / "fold", held_out={"VB1_03"})
