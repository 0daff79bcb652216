"""Studies that lie in no fold: held out, predicted by all folds' models, and graded by bundles that hold these together."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.crops import Crop
from monai_spine.errors import OutputError, TableError, WeightsError
from monai_spine.evaluation import evaluate_tables
from monai_spine.grades import load_grader
from monai_spine.referral import Referral
from monai_spine.result import provenance_of
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.submissions import PROBABILITIES
from monai_spine.studies.table_output import write_rows
from monai_spine.training.scaling import tempered
from monai_spine.weights import find_bundle, verify_bundle

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from cross_validate import conclude
from cross_validation.held_out import averaged, fitted_temperatures, member_tables
from cross_validation.runs import Plan, hold_out
from cross_validation.shipping import ship

CANAL = Path(__file__).resolve().parents[2] / "bundles" / "spinal_canal_stenosis_grading"
SLUG = Condition.SPINAL_CANAL_STENOSIS.slug
FOLDS = ("fold_0", "fold_1")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases in two folds and two of a test, which the folds have too, as `prepare` writes them."""
    folder = write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=2)
    datalist = read_datalist(folder)
    names = [case.case for case in datalist.cases]
    for at, fold in enumerate(FOLDS):
        write_splits(datalist, folder / "folds" / fold, splits={"training": names[1 - at :: 2], "validation": names[at::2]})
    return folder


@pytest.fixture
def plan(prepared: Path, tmp_path: Path) -> Plan:
    """Finished runs: weights as they were drawn, and predictions that are right in general and different in each fold."""
    made = Plan(prepared, tmp_path / "cv", (CANAL,), FOLDS, augment=True, test=prepared)
    hold_out(made)
    for number, fold in enumerate(FOLDS):
        torch.manual_seed(number)
        weights = made.weights_of(CANAL, fold)
        weights.parent.mkdir(parents=True)
        torch.save(find_bundle(CANAL.name).network_definition().state_dict(), weights)
        write_predictions(made.predictions_of(CANAL, fold), made.datalist_of(fold), "validation", number)
        write_predictions(made.test_predictions_of(CANAL, fold), made.test_points, "test", number)
    return made


def write_predictions(path: Path, datalist: Path, split: str, seed: int) -> None:
    rng, rows = np.random.default_rng(seed), []
    for case in read_datalist(datalist).cases_of(split):
        for target, found in case.targets.items():
            if target.condition.slug == SLUG and found.severity is not None:
                frequencies = rng.dirichlet(1 + 6 * np.eye(3)[found.severity.index])
                rows.append((case.case, target.slug, *frequencies, found.severity.index))
    write_rows(path, ("case", "target", *PROBABILITIES, "label"), rows)


def test_the_studies_of_the_test_take_no_part_in_the_folds(plan: Plan) -> None:
    tested = {case.case for case in read_datalist(plan.test_points).cases_of("test")}
    assert len(tested) == 2
    folds = [read_datalist(plan.datalist_of(fold)) for fold in FOLDS]
    assert not any(tested & set(names) for fold in folds for names in fold.splits.values())
    assert sorted(name for fold in folds for name in fold.splits["validation"]) == ["100", "101", "200", "201"]
    assert all((fold.root / volume.image).is_file() for fold in folds for volume in fold.cases[0].volumes)


def test_a_test_that_leaves_a_fold_nothing_is_refused(plan: Plan, tmp_path: Path) -> None:
    datalist = read_datalist(plan.prepared)
    names = [case.case for case in datalist.cases]
    write_splits(datalist, tmp_path / "all", splits={"training": [], "test": names})
    with pytest.raises(TableError, match="All studies of training in fold_0 belong to the test"):
        hold_out(replace(plan, test=tmp_path / "all"))
    write_splits(datalist, tmp_path / "none", splits={"training": names, "test": []})
    with pytest.raises(TableError, match=r"The split test of .* has no study"):
        hold_out(replace(plan, test=tmp_path / "none"))


def test_the_ensemble_is_the_mean_of_its_members_and_ends_in_a_submission(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    tables = member_tables(plan)
    mean = averaged(tables)
    columns = list(PROBABILITIES)
    np.testing.assert_allclose(mean[columns], (tables["fold_0"][columns] + tables["fold_1"][columns]) / 2)
    assert mean["predicted"].sum() == 10
    conclude(plan)
    printed = capsys.readouterr().out
    assert "| one fold's model |" in printed
    header = next(line for line in printed.splitlines() if line.startswith("| official score |"))
    assert header.endswith("| any severe spinal | mean of parts |"), "the canal alone has no official score"
    assert "| ensemble with temperature |" in printed
    place = plan.output / "augmented"
    assert (place / "test" / f"reliability_{SLUG}.png").stat().st_size > 5000
    true = [("study_id", *(target.slug for target in TARGETS))]
    labels = {(row.study, row.target): row.label for row in mean.itertuples()}
    words = {-1: "", 0: "Normal/Mild", 1: "Moderate", 2: "Severe"}
    true += [(study, *(words[labels[study, target.slug]] for target in TARGETS)) for study in sorted(set(mean["study"]))]
    (plan.output / "train.csv").write_text("\n".join(",".join(row) for row in true) + "\n")
    found = evaluate_tables(plan.output / "train.csv", place / "test" / "submission.csv", calibration=True)
    written = (place / "test" / "scores.csv").read_text().splitlines()
    scaled = next(line.split(",") for line in written if line.startswith("ensemble with temperature"))
    assert float(scaled[2]) == pytest.approx(found.score.parts["spinal"], abs=1e-5)
    assert found.calibration[0].rows == 10


def test_shipped_bundles_grade_as_the_members_do_together(plan: Plan, tmp_path: Path) -> None:
    ship(plan, tmp_path / "bundles", {SLUG: 2.0}, {SLUG: Referral(0.25, "refers many.")})
    bundle = find_bundle(CANAL.name, tmp_path / "bundles")
    grader = load_grader(bundle)
    rng = np.random.default_rng(0)
    crop = Crop(rng.normal(size=grader.spec.shape).astype(np.float32), np.eye(4), 1.0)
    (probabilities,) = grader.probabilities([crop])
    members = [load_member(plan, fold) for fold in FOLDS]
    image = bundle.preprocessing({"image": torch.from_numpy(crop.array[None])})["image"][None]
    with torch.inference_mode():
        shown = [bundle.inferer.shown(image, look) for look in bundle.inferer.looks]
        wanted = torch.stack([torch.softmax(member(one), dim=1) for member in members for one in shown]).mean(dim=0)
    np.testing.assert_allclose(probabilities, tempered(wanted.numpy()[0], 2.0), atol=1e-5)
    assert len(shown) == 18
    assert grader.referral == Referral(0.25, "refers many.")


def load_member(plan: Plan, fold: str) -> torch.nn.Module:
    network = find_bundle(CANAL.name).network_definition()
    network.load_state_dict(torch.load(plan.weights_of(CANAL, fold), weights_only=True))
    return network.eval()


def test_shipped_weights_are_verified_and_stand_in_the_provenance(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    ship(plan, folder, {}, {})
    bundle = find_bundle(CANAL.name, folder)
    (entry,) = provenance_of([bundle], {})["bundles"]
    assert entry["weights_sha256"] == verify_bundle(bundle)
    assert "2 networks of a cross-validation, trained on 4 simulated studies of tiny" in entry["notice"]
    assert "shows the path, grades no patient" in entry["notice"]
    assert set(bundle.metadata["members"]) == set(FOLDS)
    assert entry["version"] == bundle.version == f"{find_bundle(CANAL.name).version}+ensemble2"
    assert bundle.version in bundle.metadata["changelog"]
    readme = (bundle.root / "docs" / "README.md").read_text()
    assert readme.startswith("# Spinal canal stenosis grading: an ensemble\n")
    assert f"Version {bundle.version}." in readme
    assert "| networks | those of fold_0, fold_1; the mean" in readme
    assert "| refers | nothing |" in readme
    assert "referral" not in entry
    assert {path.name for path in folder.iterdir()} == {path.name for path in CANAL.parent.iterdir() if path.is_dir()}
    with (bundle.root / "models" / "model.pt").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(WeightsError, match="not the file that the bundle was released with"):
        bundle.network()
    with pytest.raises(OutputError, match="is there already"):
        ship(plan, folder, {}, {})


def test_temperatures_are_those_of_all_folds_together(plan: Plan) -> None:
    table = member_tables(plan)["fold_0"]
    values = table[list(PROBABILITIES)].to_numpy()
    sure = table.assign(**dict(zip(PROBABILITIES, tempered(values, 0.5).T, strict=True)))
    once, twice = fitted_temperatures(table)[SLUG], fitted_temperatures(sure)[SLUG]
    assert twice > 1.3 * once
