"""What the model zoo's verifier asks of each bundle, and what `monai.bundle.load` gives, whatever the bundle is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, load, verify_metadata, verify_net_in_out
from tiny_prepared import canal_points, write_tiny_prepared

from monai_spine.degeneration import DEGENERATION
from monai_spine.levels import LevelPoint, Levels
from monai_spine.models import GRADERS, LOCALIZER, NAMER, REFINER, SLICE_GRADERS
from monai_spine.training.level_files import write_levels

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = [LOCALIZER, NAMER, REFINER, *GRADERS.values(), *SLICE_GRADERS.values()]
NAMES += ["lumbar_condition_classification", DEGENERATION]
FILES = ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf", "models/model.pt", "models/model.ts"]
FILES += [f"configs/{name}.json" for name in ("metadata", "train", "evaluate", "inference", "multi_gpu_train")]
LARGEST_FILE = 25 * 2**20

_TEXTS = ("version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors", "copyright")
_TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"],
    "properties": {
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
SPECIFICATION = {
    "type": "object",
    "required": [*_TEXTS, "changelog", "required_packages_version", "supported_apps", "network_data_format"],
    "properties": {
        **{name: {"type": "string", "minLength": 1} for name in _TEXTS},
        **{name: {"type": "object"} for name in ("changelog", "required_packages_version", "supported_apps", "eval_metrics")},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {"type": "object", "required": ["image"], "additionalProperties": _TENSOR},
                "outputs": {"type": "object", "required": ["pred"], "additionalProperties": _TENSOR},
            },
        },
        "references": {"type": "array", "items": {"type": "string"}},
    },
}
"""What MONAI's bundle specification asks of metadata: its published schema has to be downloaded, which a test must not do."""

_FEW_SAMPLES = {"samples_per_epoch": 2, "val_limit": 1, "val_interval": 1, "num_threads": 1}
SMALL_TRAINING: dict[str, dict[str, Any]] = {
    LOCALIZER: {"window": [4, 32, 64], **_FEW_SAMPLES},
    NAMER: _FEW_SAMPLES,
    REFINER: _FEW_SAMPLES,
}
WRITES = {LOCALIZER: "*_levels.json", NAMER: "names.csv", REFINER: "*_levels.json"}
"""What an inference run of a bundle that knows levels leaves; a grader's leaves `predictions.csv`."""
SAGITTAL_ONLY: dict[str, Any] = {"pattern": "sagittal_t2*.nii"}
FEW: dict[str, Any] = {"limit": 2}
LOCALIZER_INPUT = (8, 64, 96)

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.parametrize("name", NAMES)]


def config(name: str, file: str) -> dict[str, Any]:
    return json.loads((BUNDLES / name / "configs" / f"{file}.json").read_text())


def example(name: str) -> torch.Tensor:
    """One input of the network."""
    shape = LOCALIZER_INPUT if name == LOCALIZER else config(name, "inference")["crop"]["shape"]
    shape = shape[1:] if name == DEGENERATION else shape
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))


def test_every_file_that_the_zoo_asks_for_is_there_and_small(name: str) -> None:
    for file in FILES:
        assert 0 < (BUNDLES / name / file).stat().st_size <= LARGEST_FILE, file


def test_the_metadata_keep_the_specification(name: str, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SPECIFICATION))
    verify_metadata(meta_file=str(BUNDLES / name / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))
    metadata = config(name, "metadata")
    assert metadata["version"] in metadata["changelog"]
    for part in ("inputs", "outputs"):
        for tensor in metadata["network_data_format"][part].values():
            assert list(tensor["channel_def"]) == [str(channel) for channel in range(tensor["num_channels"])]


def test_the_network_takes_and_gives_what_the_metadata_say(name: str) -> None:
    folder = BUNDLES / name / "configs"
    verify_net_in_out("network_def", str(folder / "metadata.json"), str(folder / "inference.json"), device="cpu")


def test_the_shipped_archive_and_a_fresh_export_answer_as_the_weights_do(name: str, tmp_path: Path) -> None:
    root = BUNDLES / name
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(root / "models" / "model.pt"),
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / "inference.json"),
    )
    eager = load(name, bundle_dir=BUNDLES, workflow_type="inference", device="cpu").eval()
    for path in (tmp_path / "model.ts", root / "models" / "model.ts"):
        archive = torch.jit.load(str(path)).eval()
        with torch.inference_mode():
            torch.testing.assert_close(archive(example(name)), eager(example(name)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_load_gives_the_network_with_its_weights(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = load(name, bundle_dir=BUNDLES, workflow_type=kind, device="cpu").eval()
    stored = torch.load(BUNDLES / name / "models" / "model.pt", weights_only=True)
    assert network.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[key]) for key, value in network.state_dict().items())
    with torch.inference_mode():
        answer = network(example(name))
    assert answer.shape[:2] == (1, config(name, "metadata")["network_data_format"]["outputs"]["pred"]["num_channels"])
    assert answer.isfinite().all()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases, and beside their sagittal T2 images the levels that namer and refiner are to look at."""
    folder = write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)
    discs = {level: (r, a + 24.0, s) for level, (r, a, s) in canal_points().items()}
    for image in folder.rglob(SAGITTAL_ONLY["pattern"]):
        write_levels(image, Levels(tuple(LevelPoint(level, point, None, 0.9) for level, point in discs.items()), vertebrae=()))
    return folder


def run_checked(name: str, configs: list[str], kind: str, **changes: object) -> None:
    """As the zoo's tests do: build the workflow, look for each of its properties, run it to its end."""
    folder = BUNDLES / name / "configs"
    flow = ConfigWorkflow(
        workflow_type=kind,
        config_file=[str(folder / f"{file}.json") for file in configs],
        meta_file=str(folder / "metadata.json"),
        logging_file=False,
        bundle_root=str(BUNDLES / name),
        **changes,
    )
    flow.initialize()
    assert flow.check_properties() == []
    for key in flow.properties:
        getattr(flow, key)
    flow.run()
    flow.finalize()


def test_the_training_workflow_has_every_property_and_runs(name: str, prepared: Path, tmp_path: Path) -> None:
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    run_checked(name, ["train"], "train", epochs=1, **places, **SMALL_TRAINING.get(name, FEW))
    shipped = torch.load(BUNDLES / name / "models" / "model.pt", weights_only=True)
    assert torch.load(tmp_path / "model.pt", weights_only=True).keys() == shipped.keys()
    assert torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["epoch"] == 1


def test_the_inference_workflow_has_every_property_and_runs(name: str, prepared: Path, tmp_path: Path) -> None:
    few = SAGITTAL_ONLY if name in WRITES else FEW
    run_checked(name, ["inference"], "infer", dataset_dir=str(prepared), output_dir=str(tmp_path), **few)
    pattern = WRITES.get(name, "predictions.csv")
    assert len(list(tmp_path.rglob(pattern))) == (3 if pattern == "*_levels.json" else 1)


def test_the_evaluation_runs(name: str, prepared: Path, tmp_path: Path) -> None:
    few = {"val_limit": 1} if name in WRITES else FEW
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path)}
    run_checked(name, ["train", "evaluate"], "train", run_id="evaluating", split="test", **places, **few)
    assert (tmp_path / ("metrics.json" if name in WRITES else "metrics.csv")).is_file()
