"""Cross-validation: which commands are run, what is kept, and what is said of all folds together."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.errors import OutputError, TableError, WeightsError
from monai_spine.studies.submissions import PROBABILITIES, read_submission
from monai_spine.training.out_of_fold import out_of_fold_table
from monai_spine.training.scaling import tempered

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from cross_validate import run_all
from cross_validation.report import write_report
from cross_validation.runs import AUGMENT, Plan, Step, folds_of, keep_settings, perform, steps

ROOT = Path(__file__).resolve().parents[2]
CANAL = ROOT / "bundles" / "spinal_canal_stenosis_grading"
ORDINAL, HEAD = (ROOT / "configs" / "training" / f"{name}.json" for name in ("ordinal", "weighted_head"))


def plan(tmp_path: Path, **changes: object) -> Plan:
    return replace(Plan(tmp_path / "prepared", tmp_path / "cv", (CANAL,), ("fold_0", "fold_1")), **changes)  # type: ignore[arg-type]


def flag(step: Step, name: str) -> str:
    return step.command[step.command.index(f"--{name}") + 1]


def test_each_fold_is_trained_on_its_own_data_list_and_predicts_what_it_held_out(tmp_path: Path) -> None:
    made = list(steps(plan(tmp_path, overlays=(ORDINAL,), arguments=("--epochs", "3"))))
    assert [step.command[4] for step in made] == ["training", "evaluating"] * 2
    for step, fold in zip(made, ("fold_0", "fold_0", "fold_1", "fold_1"), strict=True):
        assert flag(step, "dataset_dir") == str(tmp_path / "prepared" / "folds" / fold)
        assert str(ORDINAL) in flag(step, "config_file")
        assert step.command[-2:] == ("--epochs", "3")
    assert flag(made[1], "split") == "validation"
    assert flag(made[1], "ckpt_path") == str(made[0].made)


def test_the_studies_that_are_held_out_do_not_choose_the_epoch(tmp_path: Path) -> None:
    training = next(steps(plan(tmp_path)))
    assert flag(training, "val_interval") == "@epochs"


def test_the_second_step_starts_from_the_first_and_gives_the_predictions(tmp_path: Path) -> None:
    asked = {"second": (HEAD,), "arguments": ("--pretrained", "base.pt"), "second_arguments": ("--epochs", "1")}
    one, two, predicting = list(steps(plan(tmp_path, **asked)))[:3]
    assert flag(one, "pretrained") == "base.pt"
    assert two.command[-4:] == ("--epochs", "1", "--pretrained", str(one.made)), "the command's last word counts"
    assert str(HEAD) in flag(two, "config_file")
    assert str(HEAD) not in flag(one, "config_file")
    assert "--epochs" not in one.command
    assert flag(predicting, "ckpt_path") == str(two.made)
    assert flag(one, "output_dir") != flag(two, "output_dir")


def test_predicted_points_are_found_first_and_only_what_is_held_out_is_seen_at_them(tmp_path: Path) -> None:
    placing, training, predicting = list(steps(plan(tmp_path, predicted_points=True)))[:3]
    assert placing.made == tmp_path / "cv" / "points" / "fold_0" / "datalist.json"
    assert flag(training, "dataset_dir") == str(tmp_path / "prepared" / "folds" / "fold_0")
    assert flag(predicting, "dataset_dir") == str(placing.made.parent)
    labelled = list(steps(plan(tmp_path)))[:2]
    assert (training.made, predicting.made) != (labelled[0].made, labelled[1].made)
    assert training == labelled[0]


def test_augmentation_and_a_test_predict_anew_with_the_same_weights(tmp_path: Path) -> None:
    whole = plan(tmp_path, folds=("fold_0",), augment=True, test=tmp_path / "prepared", predicted_points=True)
    finding, _, training, held_out, tested = list(steps(whole))
    assert (flag_of(finding, "--split"), finding.made) == ("test", tmp_path / "cv" / "points" / "test" / "datalist.json")
    assert flag(training, "dataset_dir") == str(tmp_path / "cv" / "folds" / "fold_0")
    assert str(AUGMENT) not in flag(training, "config_file")
    for step, split in ((held_out, "validation"), (tested, "test")):
        assert str(AUGMENT) in flag(step, "config_file")
        assert flag(step, "split") == split
        assert flag(step, "ckpt_path") == str(training.made)
    assert flag(tested, "dataset_dir") == str(finding.made.parent)
    run = tmp_path / "cv" / "runs" / CANAL.name / "fold_0" / "at_predicted_points" / "augmented"
    assert (held_out.made, tested.made) == (run / "predictions.csv", run / "test" / "predictions.csv")
    assert training.made == next(steps(plan(tmp_path))).made


def flag_of(step: Step, name: str) -> str:
    return step.command[step.command.index(name) + 1]


def writing(folder: Path, code: str) -> Step:
    return Step("a step", (sys.executable, "-c", code), folder, folder / "model.pt", folder / "best.pt")


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    step = writing(tmp_path, f"open({str(tmp_path / 'best.pt')!r}, 'x').write('weights')")
    perform(step)
    perform(step)
    assert step.made.read_text() == "weights"
    assert not step.written.exists()


@pytest.mark.parametrize("code", ["print('out of memory'); raise SystemExit(3)", "print('out of memory')"])
def test_a_failure_shows_what_was_printed_and_leaves_nothing_as_finished(tmp_path: Path, code: str) -> None:
    with pytest.raises(WeightsError, match=r"a step ended with exit code [03]\. The end of .*log\.txt:\n(.*\n)*out of memory"):
        perform(writing(tmp_path, code))
    assert not (tmp_path / "model.pt").exists()


def test_runs_of_other_settings_are_not_mixed_but_bundles_and_folds_may_be_added(tmp_path: Path) -> None:
    keep_settings(plan(tmp_path, folds=("fold_0",)))
    keep_settings(plan(tmp_path))
    with pytest.raises(OutputError, match=r'settings: arguments was nothing, is \["--epochs", "3"\]\. Choose another folder'):
        keep_settings(plan(tmp_path, arguments=("--epochs", "3")))
    with pytest.raises(
        OutputError, match=r'overlays was nothing, is \[".*"\]; sha256 .*ordinal\.json was nothing, is "\w{64}"\.'
    ):
        keep_settings(plan(tmp_path, overlays=(ORDINAL,)))
    with pytest.raises(OutputError, match=r'arguments was .*; test was nothing, is ".*prepared"\. Choose') as refused:
        keep_settings(plan(tmp_path, test=tmp_path / "prepared", folds=("fold_0",), arguments=("--epochs", "3")))
    assert "folds" not in str(refused.value)


def test_a_resumed_run_says_what_it_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = plan(tmp_path, folds=("fold_0",))
    for step in steps(whole):
        step.made.parent.mkdir(parents=True, exist_ok=True)
        step.made.touch()
    run_all(whole)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("fold_0: ")[2] for line in said] == ["training, kept (1 of 2)", "predicting, kept (2 of 2)"]


def test_a_study_without_folds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"has no folds. Prepare a study of at least five patients"):
        folds_of(tmp_path)


def test_the_report_says_what_calibration_across_folds_gains(tmp_path: Path) -> None:
    """A grader that is twice too sure: its error falls under 0.03, its score under what it was."""
    members = {f"fold_{fold}": [str(1000 * fold + number) for number in range(120)] for fold in range(5)}
    table = out_of_fold_table(members, {}, {})
    rng = np.random.default_rng(0)
    true = rng.dirichlet((2.4, 0.6, 0.3), size=len(table))
    labels = (rng.random((len(table), 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=2)
    sure = dict(zip(PROBABILITIES, tempered(true, 0.5).T, strict=True))
    text = write_report(table.assign(label=labels, predicted=True, **sure), tmp_path)
    assert len(read_submission(tmp_path / "out_of_fold.csv")) == 600 * len(TARGETS)
    errors = rows_of(tmp_path / "calibration.csv")
    assert all(float(row["error_as_predicted"]) > 0.05 and float(row["error_scaled"]) < 0.03 for row in errors)
    means = {
        name: np.mean([float(row["score"]) for row in rows_of(tmp_path / "scores.csv") if row["scaling"] == name])
        for name in NAMES
    }
    assert means["with temperature"] < means["as predicted"]
    assert means["with temperature and fitted weights"] == pytest.approx(means["with temperature"], abs=0.01)
    assert "| with temperature |" in text
    header = next(line for line in text.splitlines() if line.startswith("| official score |"))
    assert header.endswith("| any severe spinal | score |")
    assert "Score: the mean of the four parts." in text
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "risk_coverage.png",
        *(f"reliability_{condition.slug}.png" for condition in Condition),
    }


NAMES = ("as predicted", "with temperature", "with temperature and fitted weights")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))
