"""Training names the volume that it cannot use, and the targets that it leaves out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged
from monai.utils.enums import MetaKeys

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Severity
from monai_spine.errors import TableError, UnreadableInputError
from monai_spine.studies.folds import write_split
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, PreparedVolume, read_datalist, write_datalist
from monai_spine.training.branch_crops import BranchCrops
from monai_spine.training.branch_items import branch_items
from monai_spine.training.datalists import grading_items
from monai_spine.training.grading_crops import GradingCrops, items_of
from monai_spine.training.stored_volumes import LoadScand, stored_grid, stored_volume

CANAL = Condition.SPINAL_CANAL_STENOSIS
TARGET = next(target for target in TARGETS if target.condition is CANAL)
CROP = {"role": "sagittal_t2", "size_mm": [8.0, 8.0, 8.0], "shape": [8, 8, 8], "mirror_right": False, "offset_mm": {}}
NAME = "volumes/a/sagittal_t2_0.nii.gz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A case with two scans of one kind, whose canal is marked on the second of them."""
    volumes = tuple(PreparedVolume(f"volumes/a/sagittal_t2_{k}.nii.gz", "sagittal_t2") for k in range(2))
    for volume in volumes:
        save(tmp_path / volume.image, np.arange(16**3, dtype=np.int16).reshape(16, 16, 16))
    targets = {TARGET: PreparedTarget((8.0, 8.0, 8.0), Severity.SEVERE, volumes[1].image)}
    case = PreparedCase("a", "a", volumes, discs={LEVELS[0]: (8.0, 12.0, 8.0)}, targets=targets)
    write_datalist(tmp_path, study="made up", source="simulated", cases=[case], splits={"training": ["a"]})
    return tmp_path


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def edit(folder: Path, change: Callable[[dict], object]) -> Path:
    path = folder / "datalist.json"
    document = json.loads(path.read_text())
    change(document["cases"][0])
    path.write_text(json.dumps(document))
    return path


def one_voxel(value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        array = np.zeros((16, 16, 16), np.float32)
        array[3, 4, 5] = value
        save(path, array)

    return spoil


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "does not exist"),
    "empty": (lambda path: path.write_bytes(b""), r"cannot be read \(ImageFileError: "),
    "text": (lambda path: path.write_text("To whom it may concern " * 99), r"cannot be read \("),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-500]), r"cannot be read \("),
    "4D": (lambda path: save(path, np.zeros((8, 8, 8, 2), np.int16)), r"has the shape \(8, 8, 8, 2\), where one 3D volume"),
    "NaN": (one_voxel(np.nan), r"holds 1 of 4096 voxels that are NaN or infinite"),
    "infinite": (one_voxel(np.inf), r"holds 1 of 4096 voxels that are NaN or infinite"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_volume_that_cannot_be_used_is_named_with_its_remedy(folder: Path, name: str) -> None:
    spoil, complaint = SPOILED[name]
    spoil(folder / "volumes/a/sagittal_t2_1.nii.gz")
    wanted = rf"sagittal_t2_1\.nii\.gz {complaint}.* Write it again with `monai-spine prepare … --resume`"
    with pytest.raises(UnreadableInputError, match=wanted):
        GradingCrops(items_of(folder, "training", condition=CANAL.slug, role="sagittal_t2"), CROP)
    twice = {key: [CROP[key]] * 2 for key in ("size_mm", "shape")}
    roles = ["sagittal_t2", "axial_t2"]
    with pytest.raises(UnreadableInputError, match=wanted):
        BranchCrops(branch_items(read_datalist(folder), "training", CANAL, roles), {**CROP, **twice, "role": roles})
    with pytest.raises(UnreadableInputError, match=wanted):
        LoadScand("image")({"image": folder / "volumes/a/sagittal_t2_1.nii.gz"})


@pytest.mark.filterwarnings("ignore:NvImgCodec:UserWarning")
def test_a_scan_is_loaded_as_monai_loads_it(folder: Path) -> None:
    mine = LoadScand("image")({"image": folder / NAME})["image"]
    load = LoadImaged("image", reader="NibabelReader", image_only=True, ensure_channel_first=True)
    theirs = load({"image": folder / NAME})["image"]
    assert np.array_equal(mine, theirs)
    assert mine.dtype == torch.float32
    for key in (MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE, MetaKeys.SPATIAL_SHAPE):
        assert np.array_equal(mine.meta[key], theirs.meta[key]), key
    assert mine.meta["filename_or_obj"] == theirs.meta["filename_or_obj"]


def test_a_volume_is_read_as_it_is_stored(folder: Path) -> None:
    volume = stored_volume(folder / NAME)
    assert volume.array.dtype == np.int16
    assert volume.array[1, 2, 3] == 16**2 + 2 * 16 + 3
    affine, shape = stored_grid(folder / NAME)
    assert shape == volume.array.shape
    assert np.array_equal(affine, volume.affine)


def test_targets_that_lie_outside_their_scan_are_counted_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside = grading_items(read_datalist(folder), "training", CANAL, "sagittal_t2")
    with caplog.at_level(logging.WARNING):
        GradingCrops(inside, CROP)
        assert not caplog.records
        far = [{**inside[0], "point_ras_mm": [900.0, 8.0, 8.0], "case": f"b{k}"} for k in range(7)]
        GradingCrops([*inside, *far], CROP)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"7 of 8 graded targets are left out: {TARGET.slug} of case b0, {TARGET.slug} of case b1")
    assert "b5" not in said


@pytest.mark.parametrize("image", ["volumes/a/axial_t2_0.nii.gz", "../../etc/passwd"])
def test_a_data_list_whose_target_names_a_volume_that_its_case_lacks_is_refused(folder: Path, image: str) -> None:
    path = edit(folder, lambda case: case["targets"][TARGET.slug].update(image=image))
    with pytest.raises(TableError, match=rf"case 'a': .* is said to be marked on '{image}', which is no volume of the case"):
        read_datalist(path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_data_list_with_a_point_that_is_not_finite_is_refused(folder: Path, value: float) -> None:
    path = edit(folder, lambda case: case["discs"].update({"L4/L5": [1.0, value, 2.0]}))
    with pytest.raises(TableError, match=r"case 'a': the point of L4/L5 is \(1\.0, (nan|-inf), 2\.0\), which is no place"):
        read_datalist(path)


@pytest.mark.parametrize(
    ("structure", "choices"), [("L4/L5", "normal, bulge, protrusion, extrusion"), ("L4", "normal, degenerative")]
)
def test_a_data_list_with_an_unknown_grade_is_refused_with_the_known_ones(folder: Path, structure: str, choices: str) -> None:
    path = edit(folder, lambda case: case.update(degeneration={"L3/L4": "bulge", structure: "terrible"}))
    with pytest.raises(TableError, match=rf"case 'a': the grade of {structure} is 'terrible', which is none of {choices}\. Prep"):
        read_datalist(path)


def test_a_fold_knows_on_which_volume_a_target_was_marked(folder: Path) -> None:
    fold = read_datalist(write_split(read_datalist(folder), folder / "folds" / "fold_0", held_out=()))
    (item,) = grading_items(fold, "training", CANAL, "sagittal_t2")
    assert Path(item["image"]) == (folder / "volumes/a/sagittal_t2_1.nii.gz").resolve()


def test_a_fold_of_an_earlier_version_knows_it_too(folder: Path) -> None:
    path = write_split(read_datalist(folder), folder / "folds" / "fold_0", held_out=())
    edit(path.parent, lambda case: case["targets"][TARGET.slug].update(image="volumes/a/sagittal_t2_1.nii.gz"))
    assert read_datalist(path).cases[0].targets[TARGET].image == "../../volumes/a/sagittal_t2_1.nii.gz"
