"""An analysis of simulated studies is held against what is true of them, and wrong input is named."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_spine.anatomy import LEVELS, TARGETS
from monai_spine.phantom.readers import sample_reading
from monai_spine.studies.priors import submission_prior
from monai_spine.studies.rsna2024 import StudyLabels, write_train_tables
from monai_spine.studies.submissions import SubmissionRow, write_submission
from monai_spine.studies.table_output import write_rows

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import evaluate_phantom

STUDIES = range(101, 161)


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    """The tables of simulated studies without their images; every disc at (0, 0, 0), its canal 24 mm behind."""
    rng, folder = np.random.default_rng(1), tmp_path / "phantom"
    folder.mkdir()
    readings = {study: sample_reading(rng) for study in STUDIES}
    labels = [StudyLabels(study, dict(zip(TARGETS, one.severities, strict=True))) for study, one in readings.items()]
    write_train_tables(folder, labels=labels, points=[], series=[])
    header = ("study_id", *(target.slug for target in TARGETS))
    write_rows(folder / "latents.csv", header, [(study, *one.latents) for study, one in readings.items()])
    columns = [f"{place}_{axis}_mm" for place in ("disc", "canal") for axis in "ras"]
    rows = [(study, level.label, 0, 0, 0, 0, -24, 0) for study in STUDIES for level in LEVELS]
    write_rows(folder / "levels.csv", ("study_id", "level", *columns), rows)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An analysis that gives the prior everywhere, and finds the discs of the first study, 3 mm aside."""
    folder = tmp_path / "results"
    (folder / "101").mkdir(parents=True)
    levels = [{"level": level.label, "point_ras_mm": [3, 0, 0], "canal_ras_mm": None} for level in LEVELS]
    document = {"study": {"source": "there/101"}, "levels": levels}
    (folder / "101" / "result.json").write_text(json.dumps(document))
    rows = [SubmissionRow(study, target, submission_prior(target)) for study in STUDIES for target in TARGETS]
    write_submission(rows, folder / "submission.csv")
    return folder


def test_the_prior_lies_at_one_and_levels_are_measured(phantom: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_phantom.main([str(phantom), str(results)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].split()[-1] == "1.000"
    assert f"disc  within 5 mm {1 / len(STUDIES):.4f}" in printed
    assert "canal within 5 mm 0.0000" in printed
    distances = evaluate_phantom.level_distances_mm(phantom, results)
    assert distances["disc"][:5].tolist() == [3.0] * 5
    assert np.isinf(distances["disc"][5:]).all()


def rewrite(name: str, change: Callable[[str], str], encoding: str = "utf-8") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()), encoding=encoding) and None


def shift_sign(text: str) -> str:
    header, first, *rest = text.splitlines()
    name, value, *others = first.split(",")
    return "\n".join([header, ",".join([name, f"-{value}", *others]), *rest])


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("results", lambda folder: (folder / "submission.csv").unlink(), r"submission.csv cannot be read"),
        ("results", lambda folder: (folder / "101" / "result.json").unlink(), r"holds no study with a result.json"),
        ("results", rewrite("101/result.json", lambda text: text[:40]), r"no result of an analysis \(JSONDecodeError"),
        ("results", rewrite("101/result.json", lambda _: "[]"), r"no result of an analysis \(TypeError"),
        ("results", rewrite("101/result.json", lambda text: text.replace("[3,", "[")), r"no result of an analysis \(ValueError"),
        ("results", rewrite("submission.csv", lambda _: ""), r"submission.csv is empty"),
        ("results", rewrite("submission.csv", str, "utf-16"), r"submission.csv is no CSV file in UTF-8"),
        ("results", rewrite("submission.csv", shift_sign), r"line 2: .* below 0"),
        ("results", rewrite("submission.csv", lambda text: "\n".join(text.splitlines()[:4])), r"lacks 1497 of the 1500 rows"),
        ("phantom", lambda folder: (folder / "latents.csv").unlink(), r"latents.csv .*that `monai-spine phantom` wrote"),
        ("phantom", rewrite("latents.csv", lambda text: text.replace("101,", "101,x", 1)), r"latents.csv, line 2: .*no.* number"),
        ("phantom", rewrite("latents.csv", lambda text: text.replace("study_id", "id")), r"latents.csv has no column study_id"),
        ("phantom", rewrite("levels.csv", lambda text: text.replace("disc_r_mm", "x")), r"levels.csv has no column disc_r_mm"),
        ("phantom", rewrite("train.csv", lambda text: text.replace("Severe", "Bad")), r"train.csv, line \d+"),
    ],
)  # fmt: skip
def test_wrong_input_is_named_in_one_line(
    phantom: Path, results: Path, name: str, spoil: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil({"phantom": phantom, "results": results}[name])
    assert evaluate_phantom.main([str(phantom), str(results)]) == 2
    assert re.match(f"Error: .*{said}", capsys.readouterr().err)


def test_swapped_or_missing_folders_are_named(phantom: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ((results / "submission.csv", phantom / "train.csv"), (results, phantom), (phantom, results / "no.csv")):
        assert evaluate_phantom.main([str(path) for path in given]) == 2
        assert capsys.readouterr().err.startswith("Error: ")


def test_a_submission_of_another_set_is_named(phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [SubmissionRow(9, target, submission_prior(target)) for target in TARGETS]
    write_submission(rows, tmp_path / "submission.csv")
    assert evaluate_phantom.main([str(phantom), str(tmp_path / "submission.csv")]) == 2
    assert "lacks 1 of 1 studies, such as 9" in capsys.readouterr().err
