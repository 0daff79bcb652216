"""The levels that the localiser's bundle is judged by are those that an analysis finds: one scan, three ways, the same points."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tiny_bundles import LopsidedDiscs, LopsidedLevel
from tiny_prepared import affine_of

from monai_spine.anatomy import DISCS
from monai_spine.geometry import apply_affine
from monai_spine.level_inference import LevelLocalizer
from monai_spine.level_refinement import LevelRefiner
from monai_spine.models import LOCALIZER, REFINER
from monai_spine.studies.prepared import PreparedCase, PreparedVolume, write_datalist
from monai_spine.training import localizer_metrics
from monai_spine.volume import Volume
from monai_spine.weights import find_bundle, record_weights

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
CENTRES = {level: (3.0, 10.0, 70.0 - 35.0 * at) for at, level in enumerate(DISCS[:5])}
IMAGE = Path("volumes/1/sagittal_t2_0.nii")
SINGLE_LOOK = {"_target_": "SimpleInferer"}
Points = dict[str, list[float]]

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scan of bright discs that ends just above L4/L5, stored as scanners do, and weights of the stand-in network."""
    folder = tmp_path_factory.mktemp("prepared")
    affine, shape = affine_of("sagittal_t2"), (110, 180, 14)
    affine[2, 3] = 120.0
    places = apply_affine(affine, np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1))
    spots = sum(np.exp(-((places - point) ** 2).sum(-1) / 50) for point in CENTRES.values())
    image = 1000 * spots + np.random.default_rng(0).uniform(0, 100, shape)
    (folder / IMAGE).parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(image.astype(np.int16), affine), folder / IMAGE)
    case = PreparedCase("1", "1", (PreparedVolume(str(IMAGE), "sagittal_t2"),), discs=CENTRES)
    write_datalist(folder, study="spots", source="simulated", cases=[case], splits={"test": ["1"]})
    torch.save(LopsidedDiscs().state_dict(), folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def refining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the refining bundle as it is shipped, but for a stand-in network."""
    root = tmp_path_factory.mktemp("bundles") / REFINER
    shutil.copytree(BUNDLES / REFINER / "configs", root / "configs")
    config = json.loads((root / "configs" / "inference.json").read_text())
    (root / "configs" / "inference.json").write_text(
        json.dumps({**config, "network_def": {"_target_": "tiny_bundles.LopsidedLevel"}})
    )
    (root / "models").mkdir()
    torch.save(LopsidedLevel().state_dict(), root / "models" / "model.pt")
    record_weights(root)
    return root.parent


def analysed(prepared: Path, refining: Path | None = None) -> Points:
    """As `monai-spine analyze` finds them."""
    stored = nib.load(prepared / IMAGE)
    volume = Volume(array=stored.get_fdata(dtype=np.float32), affine=stored.affine)
    refiner = None if refining is None else LevelRefiner(find_bundle(REFINER, refining))
    levels = LevelLocalizer(find_bundle(LOCALIZER, BUNDLES), network=LopsidedDiscs().eval(), refiner=refiner)(volume)
    return {found.level.label: list(found.disc_ras_mm) for found in levels.levels}


def run(prepared: Path, out: Path, *configs: str, **changes: object) -> Points:
    """As a run of the localiser's bundle writes them."""
    places = {"ckpt_path": str(prepared / "model.pt"), "network_def": {"_target_": "tiny_bundles.LopsidedDiscs"}}
    return run_bundle(BUNDLES / LOCALIZER, prepared, out, *configs, **places, **changes)


def run_bundle(root: Path, prepared: Path, out: Path, *configs: str, **changes: object) -> Points:
    flow = ConfigWorkflow(
        workflow_type="infer",
        config_file=[str(root / "configs" / f"{name}.json") for name in configs],
        meta_file=str(root / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=str(root),
        dataset_dir=str(prepared),
        output_dir=str(out),
        **changes,
    )
    flow.initialize()
    flow.run()
    (path,) = out.rglob("sagittal_t2_0_levels.json")
    return {found["level"]: found["point_ras_mm"] for found in json.loads(path.read_text())["levels"]}


def distance_mm(one: Points, other: Points) -> float:
    """The largest between points of one name; infinite where the names differ."""
    if one.keys() != other.keys():
        return float("inf")
    return max(float(np.linalg.norm(np.subtract(one[name], other[name]))) for name in one)


def test_analysis_evaluation_and_inference_find_the_same_points(prepared: Path, tmp_path: Path) -> None:
    expected = analysed(prepared)
    assert list(expected) == [level.label for level in DISCS[:4]]
    evaluated = run(prepared, tmp_path / "evaluation", "train", "evaluate", split="test", refiner=None)
    inferred = run(prepared, tmp_path / "inference", "inference")
    assert distance_mm(evaluated, expected) < 0.1
    assert distance_mm(inferred, expected) < 0.1
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["spots disc L3/L4 within 5 mm"] == 1
    assert metrics["spots sagittal_t2 disc within 5 mm"] == 1
    assert metrics["spots disc count"] == 4, "the fifth lies outside the scan"
    assert metrics["spots volumes"] == 1


def test_analysis_evaluation_and_inference_look_again_alike(
    prepared: Path, refining: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = analysed(prepared, refining)
    assert distance_mm(analysed(prepared), expected) > 0.3, "the second look makes a difference"
    monkeypatch.setenv("MONAI_SPINE_BUNDLES", str(refining))
    evaluated = run(prepared, tmp_path / "evaluation", "train", "evaluate", split="test")
    assert distance_mm(evaluated, expected) < 0.1
    run(prepared, tmp_path / "levels", "inference")
    root, places = refining / REFINER, {"levels_dir": str(tmp_path / "levels"), "pattern": IMAGE.name}
    assert distance_mm(run_bundle(root, prepared, tmp_path / "refined", "inference", **places), expected) < 0.1
    once = run_bundle(root, prepared, tmp_path / "once", "inference", inferer=SINGLE_LOOK, **places)
    assert distance_mm(once, expected) > 0.1, "a single look would be noticed"


def test_a_single_look_would_be_noticed(prepared: Path, tmp_path: Path) -> None:
    assert distance_mm(run(prepared, tmp_path, "inference", inferer=SINGLE_LOOK), analysed(prepared)) > 0.1


def test_levels_in_the_padding_would_be_noticed(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizer_metrics, "scan_of", lambda _: None)
    assert distance_mm(run(prepared, tmp_path, "inference"), analysed(prepared)) > 0.1
