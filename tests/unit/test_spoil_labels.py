"""Labels are exchanged on purpose, to measure what wrong ones cost."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from monai_spine.anatomy import TARGETS, Severity
from monai_spine.studies.prepared import Datalist, PreparedCase, PreparedTarget, read_datalist, write_datalist
from monai_spine.studies.rsna2024 import read_solution

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import spoil_labels

STUDIES = 40


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A prepared study without images: every label moderate, but one that nobody gave; a quarter of the studies is the test."""
    graded = {target: PreparedTarget((0.0, 0.0, 0.0), Severity.MODERATE) for target in TARGETS[1:]}
    graded[TARGETS[0]] = PreparedTarget((0.0, 0.0, 0.0), None)
    cases = [PreparedCase(str(number), str(number), (), targets=graded) for number in range(STUDIES)]
    names = [case.case for case in cases]
    folder = tmp_path / "prepared"
    splits = {"training": names[10:30], "validation": names[30:], "test": names[:10]}
    write_datalist(folder, study="rsna2024", source="real", cases=cases, splits=splits)
    fold = {"training": names[:20], "validation": names[20:]}
    write_datalist(folder / "folds" / "fold_0", study="rsna2024", source="real", cases=cases, splits=fold)
    return folder


def wrong(datalist: Datalist, cases: range) -> int:
    return sum(
        found.severity not in (Severity.MODERATE, None)
        for case in datalist.cases
        if int(case.case) in cases
        for found in case.targets.values()
    )


def test_a_tenth_of_the_labels_is_exchanged_in_the_same_way_everywhere_but_in_the_test(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "spoiled"
    assert spoil_labels.main([str(prepared), "-o", str(out), "--share", "0.1"]) == 0
    whole, fold = read_datalist(out), read_datalist(out / "folds" / "fold_0")
    assert wrong(whole, range(10)) == 0
    assert 0.07 < wrong(whole, range(10, STUDIES)) / (30 * (len(TARGETS) - 1)) < 0.13
    assert {case.case: dict(case.targets) for case in fold.cases} == {case.case: dict(case.targets) for case in whole.cases}
    assert fold.splits["validation"] == read_datalist(prepared / "folds" / "fold_0").splits["validation"]
    assert all(case.targets[TARGETS[0]].severity is None for case in whole.cases)


def test_the_tables_say_what_stands_now_and_what_was_exchanged(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "spoiled"
    count = spoil_labels.write_spoiled(prepared, out, share=0.2, seed=3)
    exchanged, now = pd.read_csv(out / "exchanged.csv"), read_solution(out / "labels.csv")
    assert len(exchanged) == count == wrong(read_datalist(out), range(STUDIES))
    assert set(exchanged["before"]) == {"moderate"}
    assert set(exchanged["now"]) == {"normal_mild", "severe"}
    assert (now["label"] != Severity.MODERATE.index).sum() == count


def test_a_folder_in_use_is_refused(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spoil_labels.main([str(prepared), "-o", str(prepared)]) == 2
    assert "Choose a new folder" in capsys.readouterr().err


def test_a_seed_below_0_is_refused(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        spoil_labels.main([str(prepared), "-o", str(tmp_path / "out"), "--seed", "-1"])
    assert "--seed is -1: give a whole number from 0" in capsys.readouterr().err
