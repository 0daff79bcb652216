"""A study head in an analysis: it corrects the graders where the bundles offer one, and is known by the weights it belongs to."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_grades import ALL, LEVELS_FOUND, volumes
from tiny_bundles import write_bundles

from monai_spine.anatomy import TARGETS, Condition, Level
from monai_spine.errors import OutputError, TableError, WeightsError
from monai_spine.features import watching
from monai_spine.grades import Grade, grade_targets
from monai_spine.models import GRADERS, Models, check_models, load_models
from monai_spine.networks.study_head import StudyHead
from monai_spine.result import provenance_of
from monai_spine.series import Role
from monai_spine.study_grades import STUDY_HEAD, grade_study
from monai_spine.training.study_features import StudyFeatures
from monai_spine.weights import WEIGHT_FILES, find_bundle, record_weights

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from study_head import write_bundle


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundles(tmp_path_factory.mktemp("bundles"))


def widths_in(folder: Path) -> list[int]:
    networks = (find_bundle(name, folder).network() for name in GRADERS.values())
    return [network.class_layers.out.in_features for network in networks]


def features_of(folder: Path, **changes: Any) -> StudyFeatures:
    """A file of features of the graders in a folder, without any study."""
    sums = [find_bundle(name, folder).weights_sha256[WEIGHT_FILES[0]] for name in GRADERS.values()]
    empty = {name: np.zeros((0, 25)) for name in ("logits", "features", "present", "label")}
    given = {"case": np.array([], np.str_), **empty, "widths": np.array(widths_in(folder)), "grader": np.array(sums)}
    return StudyFeatures(**{**given, "source": np.array("simulated"), **changes})


def with_head(plain: Path, folder: Path, *, use_features: bool = True, trained: bool = True) -> Path:
    """The bundles of `plain` with a study head beside them."""
    shutil.copytree(plain, folder)
    features_of(folder).write(folder / "features" / "training.npz")
    torch.manual_seed(0)
    widths = dict(zip((condition.slug for condition in Condition), widths_in(folder), strict=True))
    head = StudyHead(widths if use_features else {})
    if trained:
        torch.nn.init.normal_(head.correction.weight, std=0.1)
    torch.save(head.state_dict(), folder / "head.pt")
    write_bundle(folder / "head.pt", folder / "features", folder)
    return folder


def graded(models: Models, scan: dict[Role, Any] | None = None) -> tuple[Grade, ...]:
    scan = volumes(*ALL) if scan is None else scan
    return grade_study(TARGETS, LEVELS_FOUND, scan, models.graders, corrector=models.corrector)


def probabilities(grades: tuple[Grade, ...]) -> np.ndarray:
    return np.array([grade.probabilities or (np.nan,) * 3 for grade in grades])


def test_without_a_head_the_grades_are_the_graders_own(plain: Path) -> None:
    models = load_models(plain, device="cpu")
    assert models.corrector is None
    alone = grade_targets(TARGETS, LEVELS_FOUND, volumes(*ALL), models.graders)
    assert np.array_equal(probabilities(graded(models)), probabilities(alone))
    assert STUDY_HEAD not in {bundle.name for bundle in models.bundles}


@pytest.mark.parametrize("use_features", [True, False])
def test_an_untrained_head_changes_nothing_and_a_trained_one_corrects(plain: Path, tmp_path: Path, use_features: bool) -> None:
    alone = probabilities(graded(load_models(plain, device="cpu")))
    untrained = with_head(plain, tmp_path / "untrained", use_features=use_features, trained=False)
    assert np.allclose(probabilities(graded(load_models(untrained, device="cpu"))), alone, atol=1e-6)
    corrected = graded(load_models(with_head(plain, tmp_path / "trained", use_features=use_features), device="cpu"))
    assert np.allclose(probabilities(corrected).sum(axis=1), 1)
    assert (np.abs(probabilities(corrected) - alone).max(axis=1) > 1e-4).all()
    assert [grade.target for grade in corrected] == list(TARGETS)


def test_each_target_s_own_features_reach_the_head(plain: Path, tmp_path: Path) -> None:
    """What an analysis gives the head is what the graders give crop by crop."""
    models = load_models(with_head(plain, tmp_path / "bundles"), device="cpu")
    assert models.corrector is not None
    seen: dict[str, torch.Tensor] = {}
    models.corrector.network.register_forward_pre_hook(lambda _, args, given: seen.update(given), with_kwargs=True)
    scan = volumes(*ALL)
    few = [target for target in TARGETS if target.level is not Level.L3_L4]
    grades = grade_study(few, LEVELS_FOUND, scan, models.graders, corrector=models.corrector)
    assert [TARGETS[at].level is Level.L3_L4 for at in range(25)] == (~seen["present"][0]).tolist()
    for condition, grader in models.graders.items():
        for grade in [one for one in grades if one.target.condition is condition][-2:]:
            with watching(grader.network) as features:
                grade_targets([grade.target], LEVELS_FOUND, scan, {condition: grader})
            own = features.take(1)[0]
            found = seen["features"][0, TARGETS.index(grade.target)]
            torch.testing.assert_close(found[: len(own)], own, rtol=1e-4, atol=1e-5)


def test_what_was_not_graded_stays_so(plain: Path, tmp_path: Path) -> None:
    models = load_models(with_head(plain, tmp_path / "bundles"), device="cpu")
    scan = volumes(Role.SAGITTAL_T2)
    alone = grade_targets(TARGETS, LEVELS_FOUND, scan, models.graders)
    for before, after in zip(alone, graded(models, scan), strict=True):
        assert (after.status, after.reason) == (before.status, before.reason)
        assert (after.probabilities is None) == (before.target.condition is not Condition.SPINAL_CANAL_STENOSIS)
    assert all(grade.status == "not_assessable" for grade in graded(models, {}))


def test_provenance_names_the_head_and_what_it_was_trained_on(plain: Path, tmp_path: Path) -> None:
    folder = with_head(plain, tmp_path / "bundles")
    check_models(folder, device="cpu")
    entries = provenance_of(load_models(folder, device="cpu").bundles, {})["bundles"]
    assert entries[-1]["name"] == STUDY_HEAD
    assert entries[-1]["training_data"] == "simulated"
    assert "trained on the graders' answers on simulated images" in entries[-1]["notice"]
    (folder / STUDY_HEAD / WEIGHT_FILES[0]).write_bytes(b"other")
    with pytest.raises(WeightsError, match="is not the file that the bundle was released with"):
        check_models(folder, device="cpu")


def test_a_head_that_knows_the_features_of_other_graders_is_refused(plain: Path, tmp_path: Path) -> None:
    folder = with_head(plain, tmp_path / "features")
    other = with_head(plain, tmp_path / "answers", use_features=False)
    for root in (folder, other):
        canal = root / GRADERS[Condition.SPINAL_CANAL_STENOSIS]
        weights = torch.load(canal / WEIGHT_FILES[0], weights_only=True)
        weights["class_layers.out.bias"] += 1.0
        torch.save(weights, canal / WEIGHT_FILES[0])
        record_weights(canal)
    with pytest.raises(WeightsError, match=r"features of a grader of spinal canal stenosis .* Train the study head again"):
        load_models(folder, device="cpu")
    assert load_models(other, device="cpu").corrector is not None


def test_a_bundle_is_made_of_weights_that_fit_and_of_one_training_s_features_only(plain: Path, tmp_path: Path) -> None:
    folder = with_head(plain, tmp_path / "bundles")
    stated = json.loads((folder / STUDY_HEAD / "configs" / "inference.json").read_text())
    assert list(stated["graders"]) == [condition.slug for condition in Condition]
    with pytest.raises(OutputError, match="is there already"):
        write_bundle(folder / "head.pt", folder / "features", folder)
    features_of(folder, grader=np.array(["", "", ""])).write(tmp_path / "several" / "training.npz")
    with pytest.raises(TableError, match=r"come from several trainings .* --use_features False"):
        write_bundle(folder / "head.pt", tmp_path / "several", tmp_path)
    features_of(folder, widths=np.array([7, 7, 7])).write(tmp_path / "wider" / "training.npz")
    with pytest.raises(WeightsError, match="does not fit a study head of these features"):
        write_bundle(folder / "head.pt", tmp_path / "wider", tmp_path)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        write_bundle(folder / "features" / "training.npz", folder / "features", tmp_path)
    assert not (tmp_path / STUDY_HEAD).exists()


def test_features_are_those_of_the_last_layer_and_of_several_passes_the_mean() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3))
    images = torch.randn(4, 2, 2, 2)
    with watching(network) as features:
        network(images)
        network(-images)
    expected = (network[1](images.flatten(1)) + network[1](-images.flatten(1))) / 2
    torch.testing.assert_close(features.take(4), expected.detach())
    assert features.take(0).shape == (0, 8)
    network(images)
    with pytest.raises(WeightsError, match="features of 0 crops where 4 were graded"):
        features.take(4)
    with pytest.raises(WeightsError, match="ends in no linear layer with 3 outputs"), watching(torch.nn.Linear(2, 2)):
        pass
