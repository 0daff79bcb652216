"""Folds are put together, calibrated across one another, and scored as the competition scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monai_spine.anatomy import TARGETS, Condition, Target
from monai_spine.errors import TableError
from monai_spine.studies.priors import prior_probabilities
from monai_spine.studies.submissions import PROBABILITIES, read_submission, write_submission
from monai_spine.studies.table_output import write_rows
from monai_spine.training.out_of_fold import calibrated, fold_scores, out_of_fold_table, read_predictions, submission_rows
from monai_spine.training.scaling import tempered
from monai_spine.training.score import official_score, reweight

MEMBERS = {str(fold): [str(100 * fold + number) for number in range(60)] for fold in range(3)}
STUDIES = [study for studies in MEMBERS.values() for study in studies]
COLUMNS = list(PROBABILITIES)


def truth(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (study, target, 3) and the labels that were drawn from them."""
    probabilities = np.random.default_rng(seed).dirichlet((3, 1, 0.6), size=(len(STUDIES), len(TARGETS)))
    drawn = np.random.default_rng(seed + 1).random((*probabilities.shape[:2], 1))
    return probabilities, (drawn > probabilities.cumsum(axis=2)).sum(axis=2).clip(max=2)


def labels_from(labels: np.ndarray) -> dict[tuple[str, str], int]:
    return {(study, target.slug): int(labels[at, to]) for at, study in enumerate(STUDIES) for to, target in enumerate(TARGETS)}


def write_predictions(folder: Path, values: np.ndarray, *conditions: Condition) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for fold, studies in MEMBERS.items():
        for condition in conditions:
            path = folder / f"{fold}_{condition.slug}.csv"
            rows = [
                (study, target.slug, *values[STUDIES.index(study), to], 0)
                for study in studies
                for to, target in enumerate(TARGETS)
                if target.condition is condition
            ]
            write_rows(path, ("case", "target", *PROBABILITIES, "label"), rows)
            files.setdefault(fold, []).append(path)
    return files


def table_of(folder: Path, *, power: float = 1.0) -> pd.DataFrame:
    probabilities, labels = truth()
    return out_of_fold_table(
        MEMBERS, write_predictions(folder, tempered(probabilities, 1 / power), *Condition), labels_from(labels)
    )


def test_the_table_of_all_folds_is_a_submission_whose_score_is_the_official_one(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    write_submission(submission_rows(table), tmp_path / "out_of_fold.csv")
    submission = pd.read_csv(tmp_path / "out_of_fold.csv")
    probabilities, labels = truth()
    assert submission[COLUMNS].to_numpy() == pytest.approx(reweight(probabilities).reshape(-1, 3), abs=1e-5)
    assert len(read_submission(tmp_path / "out_of_fold.csv")) == 25 * len(STUDIES)

    for fold, studies in MEMBERS.items():
        mine = [row for row in submission["row_id"] if row.split("_")[0] in studies]
        one_hot = np.eye(3, dtype=int)[labels.reshape(-1)]
        solution = pd.DataFrame({"row_id": submission["row_id"]}).assign(**dict(zip(COLUMNS, one_hot.T, strict=True)))
        official = official_score(solution[solution["row_id"].isin(mine)], submission)
        assert fold_scores(table).loc[fold, "score"] == pytest.approx(official.score, abs=1e-5)


def test_a_model_that_is_too_sure_is_calibrated_by_the_other_folds(tmp_path: Path) -> None:
    table = table_of(tmp_path, power=2.0)
    scaled, fitted = calibrated(table)
    assert len(fitted) == 9
    assert np.mean([scaling.temperature for scaling in fitted.values()]) == pytest.approx(2.0, rel=0.1)
    assert np.abs(scaled[COLUMNS].to_numpy() - truth()[0].reshape(-1, 3)).max() < 0.1
    assert (fold_scores(scaled)["score"] < fold_scores(table)["score"]).all()


def test_a_fold_s_own_labels_do_not_change_its_calibration(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    twisted = table.assign(label=np.where(table["fold"] == "1", 2 - table["label"], table["label"]))
    before, after = calibrated(table)[1], calibrated(twisted)[1]
    canal = Condition.SPINAL_CANAL_STENOSIS.slug
    assert before[canal, "1"] == after[canal, "1"]
    assert before[canal, "0"] != after[canal, "0"]


def test_what_was_not_predicted_holds_the_prior_and_is_scored_where_its_condition_was(tmp_path: Path) -> None:
    probabilities, labels = truth()
    files = write_predictions(tmp_path, probabilities, Condition.SPINAL_CANAL_STENOSIS)
    path = files["0"][0]
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    table = out_of_fold_table(MEMBERS, files, labels_from(labels))
    missing = table[(table["study"] == MEMBERS["0"][-1]) & (table["target"] == "spinal_canal_stenosis_l5_s1")]
    prior = prior_probabilities(Target.parse("spinal_canal_stenosis_l5_s1"))
    assert missing["predicted"].tolist() == [False]
    assert missing[COLUMNS].to_numpy()[0] == pytest.approx(prior)
    scaled, _ = calibrated(table)
    assert scaled.loc[missing.index, COLUMNS].to_numpy()[0] == pytest.approx(prior)
    scores = fold_scores(table)
    assert scores[["spinal", "any_severe_spinal", "mean_of_parts"]].notna().all(axis=None)
    assert scores[["foraminal", "subarticular", "score"]].isna().all(axis=None)


def test_a_prediction_for_a_study_that_was_trained_on_is_refused(tmp_path: Path) -> None:
    probabilities, labels = truth()
    files = write_predictions(tmp_path, probabilities, Condition.SPINAL_CANAL_STENOSIS)
    with pytest.raises(TableError, match=r"0_spinal_canal_stenosis.csv predicts 0, which fold 1 did not hold out"):
        out_of_fold_table(MEMBERS, {**files, "1": files["0"]}, labels_from(labels))
    with pytest.raises(TableError, match="held out by two folds"):
        out_of_fold_table({**MEMBERS, "3": MEMBERS["0"]}, files, labels_from(labels))


def test_predictions_that_are_no_probabilities_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_rows(path, ("case", "target", *PROBABILITIES, "label"), [("1", TARGETS[0].slug, 0.5, 0.5, 0.5, 0)])
    with pytest.raises(TableError, match=r"line 2: 0.5, 0.5, 0.5 are no probabilities. Remove the file"):
        read_predictions(path)
