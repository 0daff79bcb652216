"""The levels that the localiser's bundle is judged by are those that an analysis finds: one scan, three ways, the same points."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.networks.nets import Classifier
from tiny_bundles import AnyName, LopsidedDiscs, LopsidedLevel
from tiny_prepared import affine_of

from monai_spine.anatomy import DISCS
from monai_spine.geometry import apply_affine
from monai_spine.level_inference import LevelLocalizer
from monai_spine.level_names import CLASSES, LevelNamer
from monai_spine.level_refinement import LevelRefiner
from monai_spine.models import LOCALIZER, NAMER, REFINER
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


def stand_in(folder: Path, name: str, network: torch.nn.Module, definition: dict[str, Any]) -> None:
    """Write a bundle as it is shipped, but for its network."""
    shutil.copytree(BUNDLES / name / "configs", folder / name / "configs")
    path = folder / name / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "network_def": definition}))
    (folder / name / "models").mkdir()
    torch.save(network.state_dict(), folder / name / "models" / "model.pt")
    record_weights(folder / name)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for the refining bundle and for the naming one, which gives any name but T12/L1."""
    folder = tmp_path_factory.mktemp("bundles")
    stand_in(folder, REFINER, LopsidedLevel(), {"_target_": "tiny_bundles.LopsidedLevel"})
    stand_in(folder, NAMER, AnyName(first=1), {"_target_": "tiny_bundles.AnyName"})
    return folder


def scan(prepared: Path) -> Volume:
    stored = nib.load(prepared / IMAGE)
    return Volume(array=stored.get_fdata(dtype=np.float32), affine=stored.affine)


def analysed(prepared: Path, *, naming: Path | None = None, refining: Path | None = None) -> Points:
    """As `monai-spine analyze` finds them; with the bundles of the folders that are given."""
    namer = None if naming is None else LevelNamer(find_bundle(NAMER, naming))
    refiner = None if refining is None else LevelRefiner(find_bundle(REFINER, refining))
    bundle = find_bundle(LOCALIZER, BUNDLES)
    levels = LevelLocalizer(bundle, network=LopsidedDiscs().eval(), namer=namer, refiner=refiner)(scan(prepared))
    return {found.level.label: list(found.disc_ras_mm) for found in levels.levels}


def run(prepared: Path, out: Path, *configs: str, **changes: object) -> Points:
    """As a run of the localiser's bundle writes them."""
    places = {"ckpt_path": str(prepared / "model.pt"), "network_def": {"_target_": "tiny_bundles.LopsidedDiscs"}}
    return run_bundle(BUNDLES / LOCALIZER, prepared, out, *configs, **places, **changes)


def run_bundle(root: Path, prepared: Path, out: Path, *configs: str, **changes: object) -> Points:
    start_bundle(root, prepared, out, *configs, **changes)
    (path,) = out.rglob("sagittal_t2_0_levels.json")
    return {found["level"]: found["point_ras_mm"] for found in json.loads(path.read_text())["levels"]}


def start_bundle(root: Path, prepared: Path, out: Path, *configs: str, **changes: object) -> None:
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


def distance_mm(one: Points, other: Points) -> float:
    """The largest between points of one name; infinite where the names differ."""
    if one.keys() != other.keys():
        return float("inf")
    return max(float(np.linalg.norm(np.subtract(one[name], other[name]))) for name in one)


def test_analysis_evaluation_and_inference_find_the_same_points(prepared: Path, tmp_path: Path) -> None:
    expected = analysed(prepared)
    assert list(expected) == [level.label for level in DISCS[:4]]
    evaluated = run(prepared, tmp_path / "evaluation", "train", "evaluate", split="test", namer=None, refiner=None)
    inferred = run(prepared, tmp_path / "inference", "inference")
    assert distance_mm(evaluated, expected) < 0.1
    assert distance_mm(inferred, expected) < 0.1
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["spots disc L3/L4 within 5 mm"] == 1
    assert metrics["spots sagittal_t2 disc within 5 mm"] == 1
    assert metrics["spots disc count"] == 4, "the fifth lies outside the scan"
    assert metrics["spots volumes"] == 1


def test_analysis_evaluation_and_inference_look_again_alike(
    prepared: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = analysed(prepared, refining=others)
    assert distance_mm(analysed(prepared), expected) > 0.3, "the second look makes a difference"
    monkeypatch.setenv("MONAI_SPINE_BUNDLES", str(others))
    evaluated = run(prepared, tmp_path / "evaluation", "train", "evaluate", split="test", namer=None)
    assert distance_mm(evaluated, expected) < 0.1
    run(prepared, tmp_path / "levels", "inference")
    root, places = others / REFINER, {"levels_dir": str(tmp_path / "levels"), "pattern": IMAGE.name}
    assert distance_mm(run_bundle(root, prepared, tmp_path / "refined", "inference", **places), expected) < 0.1
    once = run_bundle(root, prepared, tmp_path / "once", "inference", inferer=SINGLE_LOOK, **places)
    assert distance_mm(once, expected) > 0.1, "a single look would be noticed"


def test_analysis_and_evaluation_take_the_namers_names_alike(
    prepared: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = analysed(prepared, naming=others, refining=others)
    assert list(expected) == [level.label for level in DISCS[1:5]], "the namer's names, not the localiser's own"
    monkeypatch.setenv("MONAI_SPINE_BUNDLES", str(others))
    assert distance_mm(run(prepared, tmp_path, "train", "evaluate", split="test"), expected) < 0.1
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["spots disc within 10 mm"] == 0, "every disc bears its neighbour's name"


def test_the_naming_bundles_own_run_says_what_an_analysis_hears(prepared: Path, tmp_path: Path) -> None:
    definition = json.loads((BUNDLES / NAMER / "configs" / "inference.json").read_text())["network_def"]
    torch.manual_seed(0)
    network = Classifier(**{key: value for key, value in definition.items() if key != "_target_"})
    stand_in(tmp_path, NAMER, network, definition)
    levels = run(prepared, tmp_path / "levels", "inference")
    expected = LevelNamer(find_bundle(NAMER, tmp_path)).probabilities(scan(prepared), list(levels.values()))
    places = {"levels_dir": str(tmp_path / "levels"), "pattern": IMAGE.name}
    start_bundle(tmp_path / NAMER, prepared, tmp_path / "names", "inference", **places)
    with (tmp_path / "names" / "names.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["level"]) for row in rows] == [(IMAGE.as_posix(), level) for level in levels]
    found = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.abs(expected[0] - expected[-1]).max() > 2e-3, "it says something else of each disc"


def test_a_single_look_would_be_noticed(prepared: Path, tmp_path: Path) -> None:
    assert distance_mm(run(prepared, tmp_path, "inference", inferer=SINGLE_LOOK), analysed(prepared)) > 0.1


def test_levels_in_the_padding_would_be_noticed(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizer_metrics, "scan_of", lambda _: None)
    assert distance_mm(run(prepared, tmp_path, "inference"), analysed(prepared)) > 0.1
