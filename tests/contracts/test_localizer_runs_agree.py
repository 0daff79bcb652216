"""The levels that the localiser's bundle is judged by are those that an analysis finds: one scan, three ways, the same points."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tiny_bundles import LopsidedDiscs
from tiny_prepared import affine_of

from monai_spine.anatomy import LEVELS
from monai_spine.geometry import apply_affine
from monai_spine.level_inference import LevelLocalizer
from monai_spine.models import LOCALIZER
from monai_spine.studies.prepared import PreparedCase, PreparedVolume, write_datalist
from monai_spine.training import localizer_metrics
from monai_spine.volume import Volume
from monai_spine.weights import find_bundle

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
DISCS = {level: (3.0, 10.0, 70.0 - 35.0 * at) for at, level in enumerate(LEVELS)}
IMAGE = Path("volumes/1/sagittal_t2_0.nii")
SINGLE_LOOK = {"_target_": "SimpleInferer"}

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scan of bright discs that ends just above L5/S1, stored as scanners do, and weights of the stand-in network."""
    folder = tmp_path_factory.mktemp("prepared")
    affine, shape = affine_of("sagittal_t2"), (110, 180, 14)
    affine[2, 3] = 120.0
    places = apply_affine(affine, np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1))
    spots = sum(np.exp(-((places - point) ** 2).sum(-1) / 50) for point in DISCS.values())
    image = 1000 * spots + np.random.default_rng(0).uniform(0, 100, shape)
    (folder / IMAGE).parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(image.astype(np.int16), affine), folder / IMAGE)
    case = PreparedCase("1", "1", (PreparedVolume(str(IMAGE), "sagittal_t2"),), discs=DISCS)
    write_datalist(folder, study="spots", source="simulated", cases=[case], splits={"test": ["1"]})
    torch.save(LopsidedDiscs().state_dict(), folder / "model.pt")
    return folder


def analysed(prepared: Path) -> dict[str, list[float]]:
    """As `monai-spine analyze` finds them."""
    stored = nib.load(prepared / IMAGE)
    volume = Volume(array=stored.get_fdata(dtype=np.float32), affine=stored.affine)
    levels = LevelLocalizer(find_bundle(LOCALIZER, BUNDLES), network=LopsidedDiscs().eval())(volume)
    return {found.level.label: list(found.disc_ras_mm) for found in levels.levels}


def run(prepared: Path, out: Path, *configs: str, **changes: object) -> dict[str, list[float]]:
    """As a run of the bundle writes them."""
    folder = BUNDLES / LOCALIZER / "configs"
    flow = ConfigWorkflow(
        workflow_type="infer",
        config_file=[str(folder / f"{name}.json") for name in configs],
        meta_file=str(folder / "metadata.json"),
        logging_file=False,
        dataset_dir=str(prepared),
        output_dir=str(out),
        ckpt_path=str(prepared / "model.pt"),
        network_def={"_target_": "tiny_bundles.LopsidedDiscs"},
        **changes,
    )
    flow.initialize()
    flow.run()
    (path,) = out.rglob("sagittal_t2_0_levels.json")
    return {found["level"]: found["point_ras_mm"] for found in json.loads(path.read_text())["levels"]}


def distance_mm(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """The largest between points of one name; infinite where the names differ."""
    if one.keys() != other.keys():
        return float("inf")
    return max(float(np.linalg.norm(np.subtract(one[name], other[name]))) for name in one)


def test_analysis_evaluation_and_inference_find_the_same_points(prepared: Path, tmp_path: Path) -> None:
    expected = analysed(prepared)
    assert list(expected) == [level.label for level in LEVELS[:4]]
    evaluated = run(prepared, tmp_path / "evaluation", "train", "evaluate", split="test")
    inferred = run(prepared, tmp_path / "inference", "inference")
    assert distance_mm(evaluated, expected) < 0.1
    assert distance_mm(inferred, expected) < 0.1
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["spots disc L4/L5 within 5 mm"] == 1
    assert metrics["spots sagittal_t2 disc within 5 mm"] == 0.8
    assert metrics["spots volumes"] == 1


def test_a_single_look_would_be_noticed(prepared: Path, tmp_path: Path) -> None:
    assert distance_mm(run(prepared, tmp_path, "inference", inferer=SINGLE_LOOK), analysed(prepared)) > 0.1


def test_levels_in_the_padding_would_be_noticed(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizer_metrics, "scan_of", lambda _: None)
    assert distance_mm(run(prepared, tmp_path, "inference"), analysed(prepared)) > 0.1
