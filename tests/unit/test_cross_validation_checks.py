"""Whatever a cross-validation could be refused for at its end is refused before anything is trained or written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_spine.anatomy import TARGETS, Condition, Severity
from monai_spine.models import GRADERS
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, write_datalist
from monai_spine.studies.rsna2024 import StudyLabels, write_train_tables

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import cross_validate
import cross_validate_discs
from cross_validation.runs import split_arguments

CANAL = GRADERS[Condition.SPINAL_CANAL_STENOSIS]
ORDINAL = str(Path(__file__).parents[2] / "configs" / "training" / "ordinal.json")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A prepared study of four without images, in two folds, and the labels of all in train.csv beside it."""
    graded = {target: PreparedTarget((0.0, 0.0, 0.0), Severity.MODERATE) for target in TARGETS}
    cases = [PreparedCase(str(number), str(number), (), targets=graded) for number in range(1, 5)]
    folder, names = tmp_path / "prepared", [case.case for case in cases]
    splits = {"training": names[:2], "validation": names[2:3], "test": names[3:]}
    write_datalist(folder, study="rsna2024", source="real", cases=cases, splits=splits)
    for fold in range(2):
        parts = {"training": names[fold::2], "validation": names[1 - fold :: 2]}
        write_datalist(folder / "folds" / f"fold_{fold}", study="rsna2024", source="real", cases=cases, splits=parts)
    labels = [StudyLabels(int(name), dict.fromkeys(TARGETS, Severity.MODERATE)) for name in names]
    write_train_tables(tmp_path, labels=labels, points=[], series=[])
    return folder


@pytest.fixture
def run(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The tool with a command that is never to be reached."""

    def reached(*_: object) -> None:
        raise OSError("the training has begun")

    monkeypatch.setattr(cross_validate, "perform", reached)
    monkeypatch.chdir(tmp_path)
    return lambda *more: cross_validate.main([str(prepared), "-o", "cv", "--bundles", CANAL, *more])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--folds", "fold_9"], "There is no fold 'fold_9' in"),
        (["--folds", "0"], "Choose from: fold_0, fold_1."),
        (["--folds", "fold_1", "fold_1"], "fold_1 is named twice"),
        (["--bundles", CANAL, CANAL], f"{CANAL} is named twice"),
        (
            ["--bundles", "lumbar_level_localization"],
            f"is no grader: its inference.json names no condition. Choose from: {CANAL}",
        ),
        (["--bundles", "lumbar_disc_degeneration_grading"], "is no grader"),
        (["--overlays", "nope.json"], "There is no overlay nope.json. Overlays lie in configs/training"),
        (["--second", "train.csv"], "The overlay train.csv cannot be read"),
        (["--solution", "no.csv"], "no.csv cannot be read (No such file or directory)"),
        (["--solution", "half.csv"], "half.csv lacks 2 of 4 studies, such as 3. Give the whole table."),
        (["--test", "prepared", "--folds", "fold_0", "--solution", "half.csv"], "half.csv lacks 1 of 2 studies, such as 4"),
        (["-o", "prepared"], "prepared holds the prepared study"),
        (["--ship", "prepared"], "prepared is there already. Choose another folder for the bundles with --ship"),
        (["--head", "answers", "--folds", "fold_0"], "takes two at least. Leave out --head or --folds"),
    ],
)
def test_what_could_not_be_ended_is_not_begun(
    run: Callable[..., int], tmp_path: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (tmp_path / "train.csv").read_text().splitlines(keepends=True)
    (tmp_path / "half.csv").write_text("".join(table[:3]))
    before = sorted(tmp_path.rglob("*"))
    assert run(*given) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "the training has begun" not in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_what_can_be_ended_is_begun(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--solution", "train.csv", "--overlays", ORDINAL, "--ship", "shipped", "--head", "answers") == 2
    assert capsys.readouterr().err.endswith("Error: the training has begun\n")


def test_what_stands_after_two_dashes_goes_to_the_trainings() -> None:
    given = ["work/pictures", "--members", "5", "--", "--epochs", "9", "--", "x"]
    assert split_arguments(given) == (["work/pictures", "--members", "5"], ["--epochs", "9", "--", "x"])
    assert split_arguments(given[:3]) == (given[:3], [])


def test_the_discs_cross_validation_refuses_an_overlay_that_is_not_there(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "localizer.pt").touch()
    given = [str(prepared), "-o", str(tmp_path / "cv"), "--localizers", str(tmp_path), "--folds", "0", "--overlay", "nope.json"]
    monkeypatch.setattr(sys, "argv", ["cross_validate_discs.py", *given])
    assert cross_validate_discs.main() == 2
    assert "Error: There is no overlay nope.json. " in capsys.readouterr().err
    assert not (tmp_path / "cv").exists()
