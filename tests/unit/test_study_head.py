"""The study head: what it may look at, what it says untrained, and that it learns what lies between the findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tiny_features import correlated

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Side
from monai_spine.errors import TableError
from monai_spine.networks.study_head import StudyHead
from monai_spine.training.out_of_fold import read_predictions
from monai_spine.training.study_features import head_items, read_features, widths_of
from monai_spine.training.study_head import RandMirrorStudy, RandMissing, StudyLoss, study_rows

pytestmark = pytest.mark.filterwarnings("default")

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "study_head"
WIDTHS = {Condition.SPINAL_CANAL_STENOSIS: 5, Condition.NEURAL_FORAMINAL_NARROWING: 4, Condition.SUBARTICULAR_STENOSIS: 6}


def head(*, trained: bool = True) -> StudyHead:
    torch.manual_seed(0)
    made = StudyHead({condition.slug: width for condition, width in WIDTHS.items()}, width=16, dropout=0.0).eval()
    if trained:
        torch.nn.init.normal_(made.correction.weight)
    return made


def tokens(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(2, 25, 3), torch.randn(2, 25, 6), torch.ones(2, 25, dtype=torch.bool)


def test_an_untrained_head_gives_the_graders_own_answers() -> None:
    logits, features, present = tokens()
    assert torch.equal(head(trained=False)(logits, features, present), logits)
    assert not torch.allclose(head()(logits, features, present), logits, atol=0.1)


def test_what_is_missing_changes_nothing_elsewhere_whatever_stands_in_its_place() -> None:
    logits, features, present = tokens()
    present[0, [3, 7, 20]] = False
    before = head()(logits, features, present)
    for value in (1e6, float("nan")):
        logits[0, [3, 7, 20]], features[0, [3, 7, 20]] = value, value
        assert torch.equal(head()(logits, features, present), before)
    assert torch.equal(before[0, [3, 7, 20]], torch.zeros(3, 3))


def test_whether_a_target_is_there_changes_what_is_said_of_the_others() -> None:
    logits, features, present = tokens()
    fewer = present.clone()
    fewer[:, 3] = False
    changed = (head()(logits, features, fewer) - head()(logits, features, present)).abs().amax(dim=2)
    assert bool((changed > 1e-4).all())


def test_a_study_of_which_nothing_is_there_gives_no_answer_and_leaves_the_others_alone() -> None:
    logits, features, present = tokens()
    whole = head()(logits, features, present)
    present[0] = False
    found = head()(logits, features, present)
    assert torch.equal(found[0], torch.zeros(25, 3))
    torch.testing.assert_close(found[1], whole[1])


def exchanged(one: Any, other: Any) -> list[int]:
    """The order of targets in which two levels, or sides, have changed places."""
    swap = {one: other, other: one}
    moved = [(target.condition, swap.get(target.side, target.side), swap.get(target.level, target.level)) for target in TARGETS]
    places = [(target.condition, target.side, target.level) for target in TARGETS]
    return [places.index(place) for place in moved]


@pytest.mark.parametrize(("pair", "embedding"), [(LEVELS[:2], "level"), ((Side.LEFT, Side.RIGHT), "side")])
def test_only_the_embeddings_tell_levels_and_sides_apart(pair: tuple[Any, Any], embedding: str) -> None:
    logits, features, present = tokens()
    order, made = exchanged(*pair), head()
    moved = made(logits[:, order], features[:, order], present)
    assert not torch.allclose(moved, made(logits, features, present)[:, order], atol=1e-2)
    torch.nn.init.zeros_(getattr(made, embedding).weight)
    moved = made(logits[:, order], features[:, order], present)
    torch.testing.assert_close(moved, made(logits, features, present)[:, order], rtol=0, atol=1e-4)


def test_of_each_condition_only_its_own_features_are_read() -> None:
    logits, features, present = tokens()
    before = head()(logits, features, present)
    foraminal = [at for at, target in enumerate(TARGETS) if target.condition is Condition.NEURAL_FORAMINAL_NARROWING]
    features[:, foraminal, 4:] = 9.0
    assert torch.equal(head()(logits, features, present), before)
    features[:, foraminal, 3:] = 9.0
    assert not torch.equal(head()(logits, features, present), before)


def test_tokens_of_another_shape_are_refused() -> None:
    logits, features, present = tokens()
    with pytest.raises(ValueError, match=r"takes logits \(B, 25, 3\), features \(B, 25, 6 or more\).* got .*\(2, 25, 5\)"):
        head()(logits, features[..., :5], present)


def test_labels_that_are_missing_do_not_count() -> None:
    logits, labels = torch.randn(2, 25, 3), torch.full((2, 25), -1)
    labels[1, 4] = 2
    expected = -torch.log_softmax(logits[1, 4], dim=0)[2]
    torch.testing.assert_close(StudyLoss()(logits, labels), expected)


def example() -> dict[str, Any]:
    logits, features, present = (rows[0] for rows in tokens())
    return {"image": logits, "features": features, "present": present, "label": torch.arange(25) % 3, "case": "1"}


def test_single_targets_and_whole_conditions_are_left_out_and_never_all() -> None:
    missing, whole = RandMissing(0.2, 0.5, seed=0), 0
    for _ in range(200):
        made = missing(example())
        assert made["present"].any()
        assert bool(((made["label"] >= 0) == made["present"]).all())
        there = {TARGETS[at].condition for at in made["present"].nonzero()[:, 0].tolist()}
        whole += len(there) < 3
    assert 100 < whole < 200
    assert example()["present"].all()
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 1"):
        RandMissing(1)


def test_a_mirrored_study_has_its_sides_exchanged_in_all_that_is_known_of_it() -> None:
    before, after = example(), RandMirrorStudy(prob=1.0)(example())
    for at, target in enumerate(TARGETS):
        there = TARGETS.index(target.mirrored)
        assert torch.equal(after["image"][at], before["image"][there])
        assert after["label"][at] == before["label"][there]
    assert after["case"] == "1"


def run(dataset: Path, out: Path, what: str = "training", *more: str, **changes: Any) -> ConfigWorkflow:
    files = [str(CONFIGS / name) for name in ("train.json", *more)]
    places = {"dataset_dir": str(dataset), "output_dir": str(out), "device": torch.device("cpu")}
    kind = "train" if what == "training" else "infer"
    flow = ConfigWorkflow(workflow_type=kind, config_file=files, logging_file=False, run_id=what, **{**places, **changes})
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Features, and the run of a head that was trained on them."""
    features, out = tmp_path_factory.mktemp("features"), tmp_path_factory.mktemp("run")
    correlated(160, 1).write(features / "training.npz")
    correlated(40, 2).write(features / "validation.npz")
    correlated(100, 3).write(features / "test.npz")
    run(features, out, epochs=6, learning_rate=0.003, val_interval=3)
    return features, out


def test_a_head_beats_the_graders_on_studies_that_it_never_saw(trained: tuple[Path, Path]) -> None:
    features, out = trained
    flow = run(features, out / "test", "evaluating", "evaluate.json", split="test", ckpt_path=str(out / "model.pt"))
    metrics = flow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert metrics["weighted_log_loss"] < 0.9 * metrics["graders_alone"]
    rows, studies = read_predictions(out / "test" / "predictions.csv"), read_features(features / "test.npz")
    assert len(rows) == int(studies.present.sum())


def test_a_head_beats_the_graders_where_a_series_is_missing(trained: tuple[Path, Path], tmp_path: Path) -> None:
    features, out = trained
    studies = read_features(features / "test.npz")
    studies.present[:, [target.condition is Condition.NEURAL_FORAMINAL_NARROWING for target in TARGETS]] = False
    studies.write(tmp_path / "test.npz")
    read_features(features / "training.npz").write(tmp_path / "training.npz")
    flow = run(tmp_path, tmp_path, "evaluating", "evaluate.json", split="test", ckpt_path=str(out / "model.pt"))
    metrics = flow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert metrics["weighted_log_loss"] < 0.92 * metrics["graders_alone"]


def test_a_training_that_goes_on_ends_where_an_uninterrupted_one_ends(trained: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {"epochs": 3, "limit": 20, "val_interval": 1}
    run(trained[0], tmp_path / "whole", **settings)
    run(trained[0], tmp_path / "parts", **{**settings, "epochs": 1})
    run(trained[0], tmp_path / "parts", **settings, resume=True)
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    assert one["trainer"] == other["trainer"]
    assert all(torch.equal(value, other["network"][name]) for name, value in one["network"].items())


def test_features_survive_their_file(tmp_path: Path) -> None:
    studies = correlated(4, 0)
    found = read_features(studies.write(tmp_path / "training.npz"))
    assert all(np.array_equal(value, getattr(found, name)) for name, value in vars(studies).items())
    assert widths_of(tmp_path / "training.npz") == {condition.slug: 4 for condition in Condition}
    assert [path.name for path in tmp_path.iterdir()] == ["training.npz"]
    with pytest.raises(TableError, match=r"nowhere.npz cannot be read as features .*study_head.py features"):
        read_features(tmp_path / "nowhere.npz")


def test_studies_without_a_label_are_left_out_and_none_at_all_is_refused(tmp_path: Path) -> None:
    studies = correlated(3, 0)
    studies.label[1] = -1
    assert [item["case"] for item in head_items(studies.write(tmp_path / "a.npz"))] == [studies.case[0], studies.case[2]]
    studies.label[:] = -1
    with pytest.raises(TableError, match="no study with a label: there is nothing to learn"):
        head_items(studies.write(tmp_path / "a.npz"))


def test_rows_are_those_of_the_official_score() -> None:
    output = [{**example(), "case_id": "1", "pred": example()["image"].softmax(dim=1)}]
    targets, studies, probabilities, labels = study_rows(output)
    assert (targets[4], studies[4], int(labels[4])) == (TARGETS[4].slug, "1", 1)
    torch.testing.assert_close(probabilities, study_rows(output, "image")[2])
