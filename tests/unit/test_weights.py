"""Bundles are found, verified and loaded, or refused with what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from monai_spine.errors import WeightsError
from monai_spine.grades import load_grader
from monai_spine.weights import Bundle, bundle_folder, bundle_root, find_bundle, find_bundles, record_weights, verify_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "spinal_canal_stenosis_grading"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one bundle whose weights are as they were initialised."""
    root = tmp_path / NAME
    shutil.copytree(REPOSITORY / "bundles" / NAME / "configs", root / "configs")
    (root / "models").mkdir()
    torch.manual_seed(0)
    torch.save(find_bundle(NAME, tmp_path)._built("network_def").state_dict(), root / "models" / "model.pt")
    record_weights(root)
    return tmp_path


def test_recorded_weights_are_verified_and_loaded(folder: Path) -> None:
    bundle = find_bundle(NAME, folder)
    assert list(verify_bundle(bundle)) == ["models/model.pt"]
    network = bundle.network()
    assert not network.training
    assert network(torch.zeros(1, 1, *bundle.config("crop")["shape"])).shape == (1, 3)


def test_preprocessing_and_postprocessing_come_from_the_inference_config(folder: Path) -> None:
    bundle = find_bundle(NAME, folder)
    image = bundle.preprocessing({"image": torch.arange(64.0).reshape(1, 4, 4, 4)})["image"]
    assert float(image.mean()) == pytest.approx(0, abs=1e-5)
    assert float(bundle.postprocessing({"pred": torch.tensor([1.0, 2.0, 3.0])})["pred"].sum()) == pytest.approx(1)


def test_altered_weights_are_refused(folder: Path) -> None:
    with (folder / NAME / "models" / "model.pt").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(WeightsError, match="not the file that the bundle was released with"):
        verify_bundle(find_bundle(NAME, folder))
    with pytest.raises(WeightsError, match="weights record"):
        find_bundle(NAME, folder).network()


def test_weights_that_may_not_be_read_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(WeightsError, match=r"model\.pt cannot be read: Permission denied\. Check its permissions"):
        verify_bundle(find_bundle(NAME, folder))


@pytest.mark.parametrize(("content", "why"), [("{", "cannot be read"), ("[]", "holds no JSON object")])
def test_metadata_that_are_none_are_refused(folder: Path, content: str, why: str) -> None:
    (folder / NAME / "configs" / "metadata.json").write_text(content)
    with pytest.raises(WeightsError, match=rf"metadata\.json {why}.*Restore the bundle"):
        find_bundles(folder)


def test_a_bundle_for_an_unknown_condition_is_no_fault_of_the_study(folder: Path) -> None:
    path = folder / NAME / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "condition": "gout"}))
    with pytest.raises(WeightsError, match="grades what nobody knows: Unknown condition 'gout'"):
        load_grader(find_bundle(NAME, folder))


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / NAME / "models" / "model.pt").unlink()
    with pytest.raises(WeightsError, match=r"has no weights at .*model\.pt"):
        find_bundle(NAME, folder).network()


def test_weights_without_a_hash_are_refused(folder: Path) -> None:
    path = folder / NAME / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_sha256": {}}))
    with pytest.raises(WeightsError, match=r"states no SHA-256 for models/model\.pt"):
        verify_bundle(find_bundle(NAME, folder))


def with_weights(folder: Path, weights: object) -> Bundle:
    """The bundle with other weights."""
    torch.save(weights, folder / NAME / "models" / "model.pt")
    record_weights(folder / NAME)
    return find_bundle(NAME, folder)


def test_weights_that_do_not_fit_are_named_with_both_shapes(folder: Path) -> None:
    fitting = find_bundle(NAME, folder).network_definition().state_dict()
    others = {name: tensor for name, tensor in fitting.items() if name != "class_layers.out.bias"}
    others |= {"class_layers.out.weight": torch.zeros(5, 2), "layer": torch.tensor(3.0)}
    with pytest.raises(WeightsError) as raised:
        with_weights(folder, others).network()
    shape = " × ".join(map(str, fitting["class_layers.out.weight"].shape))
    assert str(raised.value) == (
        f"The weights {folder / NAME / 'models' / 'model.pt'} do not fit the network of configs/inference.json: "
        f"class_layers.out.weight (5 × 2 in the file, {shape} in the network), "
        "class_layers.out.bias (nothing in the file, 3 in the network), layer (one number in the file, nothing in the network). "
        "Train the bundle again or restore its weights."
    )


def test_of_many_weights_that_do_not_fit_the_first_five_are_named(folder: Path) -> None:
    names = list(find_bundle(NAME, folder).network_definition().state_dict())
    with pytest.raises(WeightsError) as raised:
        with_weights(folder, {"layer": torch.zeros(3)}).network()
    assert [name for name in names if f"{name} (nothing in the file" in str(raised.value)] == names[:5]
    assert f" and {len(names) - 4} more. Train the bundle again" in str(raised.value)


@pytest.mark.parametrize("weights", [torch.zeros(3), {"epoch": 3}])
def test_a_file_without_a_state_dict_is_refused(folder: Path, weights: object) -> None:
    with pytest.raises(WeightsError, match=r"do not fit the network of .*: \w+Error: .*Train the bundle again"):
        with_weights(folder, weights).network()


def test_an_unknown_bundle_is_answered_with_those_that_are_there(folder: Path) -> None:
    with pytest.raises(WeightsError, match=rf"no bundle 'knee' in {re.escape(str(folder))}\. There: {NAME}\. Choose"):
        find_bundle("knee", folder)


def test_a_misspelt_bundle_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(WeightsError, match=rf"no bundle 'spinal_canal_stenosis_grader' in .*\. Did you mean '{NAME}'\? There: "):
        find_bundle("spinal_canal_stenosis_grader", folder)


def test_the_folder_of_bundles_can_be_set_in_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_SPINE_BUNDLES", str(folder))
    assert bundle_folder() == folder
    assert [bundle.name for bundle in find_bundles()] == [NAME]
    assert bundle_root(NAME) == str(folder / NAME)


def test_a_config_that_runs_inside_a_bundle_uses_that_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / NAME)
    assert bundle_root(NAME) == str(folder / NAME)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no folder of bundles"):
        bundle_folder(tmp_path / "nowhere")


def test_a_section_that_the_config_lacks_is_named(folder: Path) -> None:
    with pytest.raises(WeightsError, match="has no 'colour'"):
        find_bundle(NAME, folder).config("colour")


def test_broken_metadata_are_refused(folder: Path) -> None:
    (folder / NAME / "configs" / "metadata.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        find_bundle(NAME, folder)


def test_a_bundle_says_what_it_was_trained_on(folder: Path) -> None:
    bundle: Bundle = find_bundle(NAME, folder)
    assert bundle.training_data == "real and simulated"
    assert "not validated against readers" in bundle.notice
