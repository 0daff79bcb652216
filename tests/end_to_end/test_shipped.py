"""The bundles that are shipped, on simulated studies: what `make demo` shows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monai_spine.anatomy import LEVELS, TARGETS
from monai_spine.cli import app
from monai_spine.models import GRADERS, LOCALIZER, NAMER, REFINER

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.fixture(scope="module", autouse=True)
def _with_weights() -> None:
    needed = (LOCALIZER, NAMER, REFINER, *GRADERS.values())
    missing = [name for name in needed if not (BUNDLES / name / "models" / "model.pt").is_file()]
    if missing:
        pytest.skip(f"no weights in {', '.join(missing)}: train them first")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    _run("phantom", root / "studies", "--studies", 1, "--seed", 7)
    (study,) = (root / "studies" / "train_images").iterdir()
    _run("analyze", study, "-o", root / "out", "--bundles", BUNDLES, "--formats", "json,csv,html")
    return root


def _run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_every_finding_of_a_simulated_study_is_graded(results):
    (path,) = results.glob("out/*/result.json")
    content = json.loads(path.read_text())
    assert [level["level"] for level in content["levels"] if level["level"] in LEVELS] == list(LEVELS)
    assert {grade["status"] for grade in content["grades"]} == {"graded"}
    assert "simulated" in content["provenance"]["notice"]


@pytest.mark.slow
def test_levels_lie_where_the_phantom_has_them(results):
    (path,) = results.glob("out/*/result.json")
    found = {level["level"]: level["point_ras_mm"] for level in json.loads(path.read_text())["levels"]}
    with (results / "studies" / "levels.csv").open() as file:
        truth = {row["level"]: [float(row[f"disc_{axis}_mm"]) for axis in "ras"] for row in csv.DictReader(file)}
    for level, point in truth.items():
        assert sum((a - b) ** 2 for a, b in zip(point, found[level], strict=True)) ** 0.5 < 5, level


@pytest.mark.slow
def test_the_submission_is_scored(results):
    arguments = ["evaluate", "--solution", results / "studies" / "train.csv", "--submission", results / "out" / "submission.csv"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert len((results / "out" / "submission.csv").read_text().splitlines()) == 1 + len(TARGETS)
