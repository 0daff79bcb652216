"""`lumbar_disc_degeneration_grading`: one crop for training and work, and a picture that is analysed from end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image
from tiny_prepared import write_tiny_prepared
from typer.testing import CliRunner

import monai_spine.report
from monai_spine.anatomy import DISC_GRADES, DISCS, VERTEBRA_GRADES
from monai_spine.cli import app
from monai_spine.degeneration import DEGENERATION, HEADS, probabilities_of
from monai_spine.geometry import apply_affine, invert_affine
from monai_spine.listings import verified_lines
from monai_spine.phantom.prepared import prepare_phantom
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.degeneration import degeneration_items
from monai_spine.training.grading_crops import GradingCrops
from monai_spine.training.losses import MISSING

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SCHEMA = Path(monai_spine.report.__file__).with_name("result.schema.json")

pytestmark = pytest.mark.filterwarnings("default")


def config(file: str) -> dict[str, Any]:
    return json.loads((BUNDLES / DEGENERATION / "configs" / f"{file}.json").read_text())


def test_training_and_work_see_the_same_crops_by_the_same_network() -> None:
    train, inference = config("train"), config("inference")
    for key in ("crop", "network_def", "classes", "dropout"):
        assert train[key] == inference[key], key
    seen = inference["preprocessing"]["transforms"]
    assert train["validate"]["preprocessing"]["transforms"] == [seen[0], "@normalize", seen[2]]
    assert train["normalize"] == seen[1]


def test_heads_are_those_of_the_vocabulary() -> None:
    assert config("train")["classes"] == [len(names) for names in HEADS.values()]
    channels = config("metadata")["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(channels.values())[:4] == [f"disc {grade}" for grade in DISC_GRADES]
    assert list(channels.values())[6:] == [f"vertebra {grade}" for grade in VERTEBRA_GRADES]
    inference = config("inference")
    for numbers in (inference["decision"], inference["offsets"], config("train")["class_weights"]):
        assert {head: len(values) for head, values in numbers.items()} == {head: len(HEADS[head]) for head in numbers}


def test_probabilities_are_a_softmax_of_each_head_at_its_temperature_and_offsets() -> None:
    logits = torch.linspace(-1, 2, 16).reshape(2, 8)
    said = probabilities_of(logits, {"grade": 2.0}, {"vertebra": [0.5, -0.5]})
    torch.testing.assert_close(said[:, :4], (logits[:, :4] / 2).softmax(dim=1))
    torch.testing.assert_close(said[:, 4:6], logits[:, 4:6].softmax(dim=1))
    torch.testing.assert_close(said[:, 6:], (logits[:, 6:] + torch.tensor([0.5, -0.5])).softmax(dim=1))


def test_it_says_what_it_was_trained_on_and_its_weights_are_verified() -> None:
    metadata = config("metadata")
    assert metadata["training_data"] == "real and simulated"
    assert "147 real mid-sagittal pictures" in metadata["notice"]
    assert "not validated for clinical use" in metadata["notice"]
    names = [line.split(": ok")[0] for line in verified_lines(BUNDLES, [DEGENERATION])]
    assert names == [f"{DEGENERATION}/models/model.pt", f"{DEGENERATION}/models/model.ts"]


def test_discs_and_vertebrae_are_items_with_a_label_for_their_own_heads(tmp_path: Path) -> None:
    folder = write_tiny_prepared(tmp_path, cases=1)
    (case,) = read_datalist(folder).cases_of("training")
    items = degeneration_items(folder, "training", role="sagittal_t2")
    assert [item["target"] for item in items] == ["l1_l2", "l2", "l2_l3", "l3", "l3_l4", "l4", "l4_l5", "l5", "l5_s1"]
    crops = GradingCrops(items, config("train")["crop"])
    for at, item in enumerate(items):
        grade, node, vertebra = crops[at]["label"].tolist()
        name = item["target"].replace("_", "/").upper()
        if "/" in name:
            assert (DISC_GRADES[grade], bool(node), vertebra) == (case.degeneration[name], name == "L2/L3", MISSING)
        else:
            assert (grade, node, VERTEBRA_GRADES[vertebra]) == (MISSING, MISSING, case.degeneration[name])


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """The middle sagittal T2 slice of a simulated patient as PNG, and the true places of its discs in pixels."""
    folder = tmp_path_factory.mktemp("phantom")
    prepare_phantom(folder, splits={"training": 1}, seed=7)
    (case,) = read_datalist(folder).cases
    image = nib.load(folder / next(volume.image for volume in case.volumes if volume.role == "sagittal_t2"))
    places = {level.label: apply_affine(invert_affine(image.affine), point) for level, point in case.discs.items()}
    across = int(np.argmin(image.shape))
    middle = int(np.round(np.median([place[across] for place in places.values()])))
    columns, rows = (axis for axis in range(3) if axis != across)
    grey = np.asarray(image.dataobj).take(middle, axis=across)
    assert nib.aff2axcodes(image.affine)[columns] == "P"
    assert nib.aff2axcodes(image.affine)[rows] == "I"
    path = folder / "slice.png"
    Image.fromarray(np.clip(grey.T * 255.0 / np.percentile(grey, 99.8), 0, 255).astype(np.uint8)).save(path)
    return path, {name: place[[columns, rows]] for name, place in places.items()}


def analysed(path: Path, output: Path) -> tuple[dict[str, Any], Path]:
    result = CliRunner().invoke(app, ["analyze", str(path), "-o", str(output), "--bundles", str(BUNDLES)])
    assert result.exit_code == 0, result.output
    (found,) = output.glob("*/result.json")
    return json.loads(found.read_text()), found.parent


@pytest.mark.slow
def test_a_picture_is_analysed_from_end_to_end(picture: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    path, places = picture
    content, folder = analysed(path, tmp_path / "upright")
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(content)
    found = {entry["disc"]: entry for entry in content["disc_grades"]}
    assert list(found) == [level.label for level in DISCS]
    spacing = np.linalg.norm(places["L1/L2"] - places["L2/L3"])
    for name, entry in found.items():
        assert np.linalg.norm(np.array(entry["point_px"]) - places[name]) < spacing / 4, name
        assert sum(entry["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert entry["grade"] in DISC_GRADES
    assert [entry["vertebra"] for entry in content["vertebra_grades"]] == ["L1", "L2", "L3", "L4", "L5"]
    canals = [grade for grade in content["grades"] if grade["status"] == "graded"]
    assert [(grade["condition"], grade["level"]) for grade in canals] == [("spinal_canal_stenosis", level) for level in found][1:]
    assert all("single_slice" in grade["flags"] and "point_px" in grade for grade in canals)
    used = {bundle["name"] for bundle in content["provenance"]["bundles"]}
    assert used & {"spinal_canal_slice_grading", "spinal_canal_stenosis_grading"} == {"spinal_canal_slice_grading"}
    assert "_ras_mm" not in json.dumps(content["levels"])
    assert DEGENERATION in used
    page = (folder / "report.html").read_text()
    assert "not validated for clinical use" in page
    assert page.count("Canal at") == 1
    assert set(re.findall(r'href="#(\w+)"', page)) <= set(re.findall(r'id="(\w+)"', page))
    assert "graded on one slice" in "; ".join(content["flags"])
    graded = [*content["disc_grades"], *content["vertebra_grades"]]
    worn = any(entry["grade"] != "normal" or entry.get("schmorl_node", 0.0) > 0.5 for entry in graded)
    assert ("<b>Degeneration:</b>" in page, "<b>No degeneration</b>" in page) == (worn, not worn)


@pytest.mark.slow
def test_a_picture_that_lies_on_its_side_is_turned_as_its_exif_says(picture: tuple[Path, Any], tmp_path: Path) -> None:
    upright = Image.open(picture[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter clockwise to look at it
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    found = [analysed(path, tmp_path / path.stem)[0] for path in (picture[0], tmp_path / "turned.png")]
    assert found[0]["disc_grades"] == found[1]["disc_grades"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("note.png", b"no picture at all", r"Wrong format: .*note\.png is no DICOM, zip, NIfTI .* PNG or JPEG file\. Convert it"),
        ("scan.bmp", b"BM" + bytes(60), r"Wrong format: .*scan\.bmp is no DICOM.*Convert it"),
        ("cut.png", b"\x89PNG\r\n\x1a\n" + bytes(20), r"cut\.png .*(no PNG or JPEG picture|cut off or broken)"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    result = CliRunner().invoke(app, ["analyze", str(tmp_path / name), "-o", str(tmp_path / "out"), "--bundles", str(BUNDLES)])
    assert result.exit_code == 3
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert re.search(said, line), line
