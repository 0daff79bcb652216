"""The official score against an independent computation by scikit-learn, and each of its edge cases."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.multiprocessing
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from sklearn.metrics import log_loss

from monai_spine.anatomy import TARGETS, Severity
from monai_spine.errors import AnatomyError, TableError
from monai_spine.studies.priors import submission_prior
from monai_spine.studies.rsna2024 import long_labels, prior_by_level, read_train, solution_from_train
from monai_spine.training.metrics import PARTS, OfficialScoreMetric, official_score, reweight

COLUMNS = ["normal_mild", "moderate", "severe"]
SPINAL = [target.slug for target in TARGETS if target.condition.score_group == "spinal"]


def make_solution(studies: int, *, seed: int = 0, unlabelled: float = 0.1) -> pd.DataFrame:
    """A long solution with random labels; unlabelled rows are 0 everywhere."""
    rng = np.random.default_rng(seed)
    rows = [f"{4_290_000_000 + study}_{target.slug}" for study in range(studies) for target in TARGETS]
    labels = rng.choice(3, size=len(rows), p=(0.75, 0.16, 0.09))
    one_hot = np.eye(3, dtype=int)[labels]
    weights = 2**labels
    hidden = rng.random(len(rows)) < unlabelled
    one_hot[hidden], weights[hidden] = 0, 0
    return pd.DataFrame({"row_id": rows, **dict(zip(COLUMNS, one_hot.T, strict=True)), "sample_weight": weights})


def make_submission(solution: pd.DataFrame, *, seed: int = 1) -> pd.DataFrame:
    """Random probabilities, in another order than the solution."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet((2, 1, 1), size=len(solution))
    table = pd.DataFrame({"row_id": solution["row_id"], **dict(zip(COLUMNS, probabilities.T, strict=True))})
    return table.sample(frac=1, random_state=seed)


def scikit_learn_score(solution: pd.DataFrame, submission: pd.DataFrame) -> dict[str, float]:
    """The four parts, by scikit-learn's log loss on rows that already sum to 1 and have no 0."""
    rows = solution[solution["sample_weight"] > 0].merge(submission, on="row_id", suffixes=("_true", ""))
    truth = rows[[f"{column}_true" for column in COLUMNS]].to_numpy().argmax(axis=1)
    rows["study"] = rows["row_id"].str.split("_", n=1).str[0]
    parts = {}
    for part, word in zip(PARTS, ("spinal", "foraminal", "subarticular"), strict=False):
        here = rows["row_id"].str.contains(word)
        parts[part] = log_loss(
            truth[here], rows.loc[here, COLUMNS].to_numpy(), sample_weight=rows.loc[here, "sample_weight"], labels=[0, 1, 2]
        )
    spinal = rows[rows["row_id"].str.contains("spinal")].groupby("study")[["severe_true", "severe", "sample_weight"]].max()
    parts["any_severe_spinal"] = log_loss(
        spinal["severe_true"], spinal["severe"], sample_weight=spinal["sample_weight"], labels=[0, 1]
    )
    return parts


def with_labels(solution: pd.DataFrame, label: int | None, *, where: str = "") -> pd.DataFrame:
    """The rows whose id contains `where` get one label, or none."""
    table = solution.copy()
    here = table["row_id"].str.contains(where)
    table.loc[here, [*COLUMNS, "sample_weight"]] = 0
    if label is not None:
        table.loc[here, COLUMNS[label]] = 1
        table.loc[here, "sample_weight"] = 2**label
    return table


def wide(solution: pd.DataFrame) -> pd.DataFrame:
    """The same labels in the form of train.csv."""
    parts = solution["row_id"].str.split("_", n=1)
    labels = [
        next((severity.label for severity in Severity if row[severity.slug] == 1), None) for row in solution.to_dict("records")
    ]
    table = pd.DataFrame({"study_id": parts.str[0].astype(np.int64), "target": parts.str[1], "label": labels})
    return table.pivot(index="study_id", columns="target", values="label").reset_index()


@pytest.mark.parametrize("seed", range(5))
def test_the_score_is_that_of_scikit_learn_on_random_tables(seed: int) -> None:
    solution = make_solution(20, seed=seed)
    submission = make_submission(solution, seed=100 + seed)
    score = official_score(solution, submission)
    expected = scikit_learn_score(solution, submission)
    assert score.parts == pytest.approx(expected, abs=1e-12)
    assert score.score == pytest.approx(np.mean(list(expected.values())), abs=1e-12)


def test_a_wide_solution_scores_as_the_long_one() -> None:
    solution = make_solution(6)
    submission = make_submission(solution)
    assert official_score(wide(solution), submission) == official_score(solution, submission)


def test_a_long_solution_without_weights_takes_those_of_the_labels() -> None:
    solution = make_solution(6)
    submission = make_submission(solution)
    assert official_score(solution.drop(columns="sample_weight"), submission) == official_score(solution, submission)


def test_the_published_figures_come_out_on_the_real_labels(rsna_tables_dir: Path) -> None:
    train = read_train(rsna_tables_dir / "train.csv")
    solution = solution_from_train(train)
    rows = long_labels(train)

    def score_of(probabilities: np.ndarray) -> float:
        table = pd.DataFrame({"row_id": solution["row_id"], **dict(zip(COLUMNS, probabilities.T, strict=True))})
        score = official_score(pd.read_csv(rsna_tables_dir / "train.csv"), table)
        assert score.parts == pytest.approx(scikit_learn_score(solution, table), abs=1e-12)
        return score.score

    labelled = rows[rows["label"] >= 0]
    shares = labelled.groupby("condition")["label"].value_counts(normalize=True).unstack()
    by_level = prior_by_level(train).set_index(["condition", "level"])[COLUMNS]
    assert score_of(np.full((len(rows), 3), 1 / 3)) == pytest.approx(0.999, abs=1e-3)
    assert score_of(reweight(shares.loc[rows["condition"]].to_numpy())) == pytest.approx(0.911, abs=1e-3)
    keys = pd.MultiIndex.from_frame(rows[["condition", "level"]])
    assert score_of(reweight(by_level.loc[keys].to_numpy())) == pytest.approx(0.790, abs=1e-3)
    shipped = {target.slug: submission_prior(target) for target in TARGETS}
    assert score_of(np.array([shipped[slug] for slug in rows["target"]])) == pytest.approx(0.790, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("much", "'much', which is not a number"),
        (None, "'', which is not a number"),
        (np.inf, "'inf', which is not finite"),
        ("nan", "'nan', which is not finite"),
        (-0.1, "-0.1, below 0"),
        (True, "'True', which is not a number"),
    ],
)
def test_a_probability_that_is_none_is_refused(value: object, complaint: str) -> None:
    solution = make_solution(2)
    submission = make_submission(solution).astype({"moderate": object}).reset_index(drop=True)
    submission.loc[7, "moderate"] = value
    with pytest.raises(TableError, match=rf"the submission, row 7: .*{complaint}"):
        official_score(solution, submission)


def test_a_row_of_zeros_is_refused() -> None:
    solution = make_solution(2)
    submission = make_submission(solution).reset_index(drop=True)
    submission.loc[3, COLUMNS] = 0.0
    with pytest.raises(TableError, match=r"row 3: .* three probabilities of 0, which cannot be brought to sum 1"):
        official_score(solution, submission)


def test_rows_are_brought_to_sum_one() -> None:
    solution = make_solution(4)
    submission = make_submission(solution)
    scaled = submission.copy()
    scaled[COLUMNS] = scaled[COLUMNS].mul(np.random.default_rng(0).uniform(0.01, 1e6, len(scaled)), axis=0)
    assert official_score(solution, scaled).score == pytest.approx(official_score(solution, submission).score, abs=1e-12)


def test_a_certain_and_wrong_prediction_costs_minus_log_eps_and_not_infinity() -> None:
    solution = with_labels(make_solution(2), 2)
    submission = make_submission(solution)
    submission[COLUMNS] = [1.0, 0.0, 0.0]
    expected = -math.log(np.finfo(np.float64).eps)
    assert official_score(solution, submission).parts == pytest.approx(dict.fromkeys(PARTS, expected))


def test_a_certain_and_right_prediction_costs_nothing() -> None:
    solution = make_solution(5, unlabelled=0)
    score = official_score(solution, solution[["row_id", *COLUMNS]])
    assert score.parts == pytest.approx(dict.fromkeys(PARTS, 0.0), abs=1e-12)


def test_rows_without_a_label_are_not_scored_but_must_be_predicted() -> None:
    solution = make_solution(4)
    submission = make_submission(solution)
    hidden = solution.loc[solution["sample_weight"] == 0, "row_id"]
    changed = submission.copy()
    changed.loc[changed["row_id"].isin(hidden), COLUMNS] = [0.0, 0.0, 1.0]
    assert official_score(solution, changed) == official_score(solution, submission)
    assert official_score(solution[solution["sample_weight"] > 0], submission) == official_score(solution, submission)
    with pytest.raises(TableError, match=rf"lacks {len(hidden)} of the 100 rows that the 4 studies .*{hidden.iloc[0]}"):
        official_score(solution, submission[~submission["row_id"].isin(hidden)])


def test_ids_that_became_floats_are_refused() -> None:
    solution = make_solution(2)
    table = wide(solution).astype({"study_id": float})
    with pytest.raises(TableError, match=r"the solution, row 0: study_id '4290000000\.0' is not a whole number"):
        official_score(table, make_submission(solution))


def test_missing_rows_are_counted_and_shown() -> None:
    solution = make_solution(3)
    submission = make_submission(solution)
    study = solution["row_id"].iloc[0].split("_")[0]
    with pytest.raises(TableError, match=rf"lacks 25 of the 75 rows .*{study}_left_neural_foraminal_narrowing_l1_l2, .*…"):
        official_score(solution, submission[~submission["row_id"].str.startswith(study)])


def test_rows_of_other_studies_are_ignored_and_counted() -> None:
    solution, more = make_solution(2), make_solution(3)
    submission = make_submission(more)
    score = official_score(solution, submission)
    kept = submission[submission["row_id"].isin(solution["row_id"])]
    assert score.ignored_rows == 25
    assert score.parts == official_score(solution, kept).parts


def test_a_second_row_for_a_target_is_refused() -> None:
    solution = make_solution(1)
    submission = make_submission(solution)
    with pytest.raises(TableError, match=r"row 25: a second row for row_id '4290000000_"):
        official_score(solution, pd.concat([submission, submission.head(1)]))


def test_a_study_without_a_spinal_label_drops_out_of_any_severe_only() -> None:
    solution = make_solution(5, unlabelled=0)
    study = solution["row_id"].iloc[0].split("_")[0]
    without = with_labels(solution, None, where=f"^{study}_spinal")
    submission = make_submission(solution)
    submission.loc[submission["row_id"].str.contains(f"^{study}_spinal"), COLUMNS] = [0.0, 0.0, 1.0]
    score = official_score(without, submission)
    assert score.counts == {"spinal": 20, "foraminal": 50, "subarticular": 50, "any_severe_spinal": 4}
    assert score.parts == pytest.approx(scikit_learn_score(without, submission), abs=1e-12)


def test_any_severe_takes_the_largest_label_weight_and_probability_of_a_study() -> None:
    solution = with_labels(with_labels(make_solution(1), 0), 1, where="spinal.*l2_l3")
    submission = make_submission(solution)
    spinal = submission["row_id"].str.contains("spinal")
    submission.loc[spinal, COLUMNS] = [0.8, 0.1, 0.1]
    submission.loc[submission["row_id"].str.contains("spinal.*l5_s1"), COLUMNS] = [0.5, 0.1, 0.4]
    two = pd.concat([solution, with_labels(make_solution(2).tail(25), 0)])
    second = make_submission(two).tail(0)
    second = pd.DataFrame({"row_id": two["row_id"].tail(25), "normal_mild": 0.9, "moderate": 0.0, "severe": 0.1})
    score = official_score(two, pd.concat([submission, second]))
    assert score.any_severe_spinal == pytest.approx((-2 * math.log(0.6) - 1 * math.log(0.9)) / 3)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_class_only_does_not_fail(label: int) -> None:
    solution = with_labels(make_solution(4), label)
    submission = make_submission(solution)
    score = official_score(solution, submission)
    assert score.parts == pytest.approx(scikit_learn_score(solution, submission), abs=1e-12)


def test_a_condition_without_labels_leaves_its_part_and_the_score_undefined() -> None:
    solution = with_labels(make_solution(4), None, where="spinal")
    score = official_score(solution, make_submission(solution))
    assert math.isnan(score.spinal)
    assert math.isnan(score.any_severe_spinal)
    assert math.isnan(score.score)
    assert score.mean_of_parts == pytest.approx((score.foraminal + score.subarticular) / 2)
    assert score.counts["spinal"] == 0


def test_a_solution_without_any_label_is_refused() -> None:
    solution = with_labels(make_solution(2), None)
    with pytest.raises(TableError, match="No row of the solution has a label"):
        official_score(solution, make_submission(solution))


def test_the_arguments_are_left_as_they_were() -> None:
    solution = make_solution(2)
    submission = make_submission(solution)
    before = solution.copy(), submission.copy()
    official_score(solution, submission)
    pd.testing.assert_frame_equal(solution, before[0])
    pd.testing.assert_frame_equal(submission, before[1])


def test_reweighted_probabilities_minimise_the_expected_weighted_loss() -> None:
    honest = np.array([0.7, 0.2, 0.1])
    weights = np.array([1, 2, 4])
    best = reweight(honest)
    expected = (weights * honest * -np.log(best)).sum()
    others = np.random.default_rng(0).dirichlet((1, 1, 1), size=2000)
    assert best == pytest.approx(np.array([0.7, 0.4, 0.4]) / 1.5)
    assert (expected <= (weights * honest * -np.log(others)).sum(axis=1) + 1e-12).all()
    with pytest.raises(ValueError, match=r"3 severities in the last axis, got shape \(2,\)"):
        reweight(np.array([0.5, 0.5]))


def batches_of(
    solution: pd.DataFrame, submission: pd.DataFrame, size: int = 7
) -> list[tuple[list[str], list[int], object, object]]:
    """The rows of two tables as updates of the metric."""
    rows = solution.merge(submission, on="row_id", suffixes=("_true", ""))
    truth = rows[[f"{column}_true" for column in COLUMNS]].to_numpy()
    labels = np.where(truth.any(axis=1), truth.argmax(axis=1), -1)
    keys = rows["row_id"].str.split("_", n=1)
    result = []
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        probabilities = torch.from_numpy(rows[COLUMNS].to_numpy()[part].copy())
        studies = [int(study) for study in keys.str[0].iloc[part]]
        result.append((keys.str[1].iloc[part].tolist(), studies, probabilities, torch.from_numpy(labels[part].copy())))
    return result


@pytest.mark.parametrize("part", ["score", "mean_of_parts", *PARTS])
def test_the_ignite_metric_equals_the_function(part: str) -> None:
    solution = make_solution(8)
    submission = make_submission(solution)
    engine = Engine(lambda engine, batch: batch)
    OfficialScoreMetric(part).attach(engine, "val_score")
    state = engine.run(batches_of(solution, submission))
    assert state.metrics["val_score"] == pytest.approx(getattr(official_score(solution, submission), part), abs=1e-12)


def test_the_ignite_metric_forgets_between_epochs_and_counts_a_repeated_row_once() -> None:
    solution = make_solution(3)
    submission = make_submission(solution)
    metric = OfficialScoreMetric()
    for batch in batches_of(solution, submission) * 2:
        metric.update(batch)
    assert metric.compute() == pytest.approx(official_score(solution, submission).score, abs=1e-12)
    metric.reset()
    with pytest.raises(NotComputableError, match="at least one row with a label"):
        metric.compute()


def test_the_ignite_metric_can_scale_by_the_weights() -> None:
    solution = make_solution(3)
    submission = make_submission(solution)
    metric = OfficialScoreMetric(reweighted=True)
    for batch in batches_of(solution, submission):
        metric.update(batch)
    scaled = submission.copy()
    scaled[COLUMNS] = reweight(scaled[COLUMNS].to_numpy())
    assert metric.compute() == pytest.approx(official_score(solution, scaled).score, abs=1e-12)


@pytest.mark.parametrize(
    ("probabilities", "label", "complaint"),
    [
        ([0.2, -1.0, 3.0], 0, "Softmax the logits first"),
        ([float("nan"), 0.5, 0.5], 0, "must be finite"),
        ([0.5, 0.5], 0, r"3 probabilities, got shape \(2,\)"),
        ([0.2, 0.3, 0.5], 3, r"must be 0, 1, 2, or -1 for none, got \[3.0\]"),
        ([0.2, 0.3, 0.5], [1, 0, 0], "must be 0, 1, 2, or -1"),
    ],
)
def test_the_ignite_metric_refuses_what_is_no_row(probabilities: list[float], label: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        OfficialScoreMetric().update((["spinal_canal_stenosis_l1_l2"], [1], torch.tensor([probabilities]), [label]))


def test_the_ignite_metric_refuses_unknown_targets_parts_and_uneven_batches() -> None:
    thirds = torch.full((1, 3), 1 / 3)
    with pytest.raises(AnatomyError, match="Unknown target 'spinal'"):
        OfficialScoreMetric().update((["spinal"], [1], thirds, [0]))
    with pytest.raises(ValueError, match="Unknown part 'lateral'"):
        OfficialScoreMetric("lateral")
    with pytest.raises(ValueError, match=r"of one length, got \[1, 2, 1, 1\]"):
        OfficialScoreMetric().update(([SPINAL[0]], [1, 2], thirds, [0]))


def run_share(rank: int, port: int, folder: str) -> None:
    """One of two processes: an uneven share of the batches, the first of them in both."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    solution = make_solution(4)
    batches = batches_of(solution, make_submission(solution))
    metric = OfficialScoreMetric()
    for batch in [batches[0], *batches[rank::2]] if rank else batches[rank::2]:
        metric.update(batch)
    Path(folder, f"{rank}.txt").write_text(repr(metric.compute()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    torch.multiprocessing.spawn(run_share, args=(port, str(tmp_path)), nprocs=2)
    solution = make_solution(4)
    expected = official_score(solution, make_submission(solution)).score
    scores = [float((tmp_path / f"{rank}.txt").read_text()) for rank in range(2)]
    assert scores == pytest.approx([expected, expected], abs=1e-12)
