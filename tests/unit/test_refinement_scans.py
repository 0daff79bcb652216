"""Files of levels, and the refining bundle's own run over them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_spine.anatomy import DISCS, Side, Vertebra
from monai_spine.errors import TableError
from monai_spine.level_doubts import Doubt
from monai_spine.levels import LevelPoint, Levels, SagittalSlice, VertebraPoint
from monai_spine.training.level_files import levels_path, read_levels, write_levels
from monai_spine.training.refinement_scans import located_scans

LEVELS_FOUND = Levels(
    (LevelPoint(DISCS[0], (1.25, -2.5, 80.1), None, 0.4, None,
                (Doubt("low_confidence", "0.40", DISCS[0]), Doubt("canal_not_seen", "0.08 only", DISCS[0]))),
     LevelPoint(DISCS[5], (1.0, 2.0, -90.0), (1.0, -22.0, -91.0), 0.9, foramina_ras_mm={Side.RIGHT: (18.5, -17.0, -83.0)},
                slices={"canal": SagittalSlice(7), "right_foramen": SagittalSlice(3, "1.2.3")})),
    (VertebraPoint(Vertebra.T12, (1.0, 2.0, 95.0), 0.5),),
    (Doubt("out_of_order", "what lies where"),),
)  # fmt: skip


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), folder / name)
    return folder


def test_levels_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = write_levels(tmp_path / "a" / "scan.nii.gz", LEVELS_FOUND)
    assert path == tmp_path / "a" / "scan_levels.json" == levels_path(tmp_path / "a" / "scan.nii")
    assert read_levels(path) == LEVELS_FOUND
    document = json.loads(path.read_text())
    assert document["flags"] == ["out_of_order"]
    assert [level["flags"] for level in document["levels"]] == [["low_confidence", "canal_not_seen"], []]
    assert document["doubts"][1] == {"flag": "low_confidence", "level": "T12/L1", "seen": "0.40"}
    assert document["levels"][1]["sagittal_slices"] == {"canal": 7, "right_foramen": 3}
    assert document["levels"][1]["foramina_ras_mm"] == {"right": [18.5, -17.0, -83.0]}
    assert read_levels(write_levels(tmp_path / "none.nii", None)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"levels": []}',
        '{"levels": [{"level": "L4/L6"}], "vertebrae": [], "flags": [], "doubts": []}',
        '{"levels": [3], "vertebrae": [], "flags": [], "doubts": []}',
        '{"levels": [], "vertebrae": [], "flags": ["low_confidence"]}',
    ],
)
def test_what_is_no_file_of_levels_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x_levels.json").write_text(text)
    with pytest.raises(TableError, match=r"x_levels\.json cannot be read as levels .*Write it again"):
        read_levels(tmp_path / "x_levels.json")


def test_images_are_found_with_their_levels_in_the_same_subfolders(tmp_path: Path) -> None:
    data = images(tmp_path / "data", "one/a.nii", "two/a.nii.gz", "b.nii")
    for place, levels in (("one/a.nii", LEVELS_FOUND), ("two/a.nii.gz", LEVELS_FOUND), ("b.nii", None)):
        write_levels(tmp_path / "levels" / place, levels)
    scans = located_scans(str(data), str(tmp_path / "levels"))
    assert [scan.place.as_posix() for scan in scans] == ["one/a.nii", "two/a.nii.gz"]
    assert scans[0].path == data / "one/a.nii"
    assert scans[0].levels == LEVELS_FOUND


def test_an_image_without_its_file_is_named_and_the_run_refused(tmp_path: Path) -> None:
    data = images(tmp_path, "a.nii", "b.nii")
    write_levels(data / "a.nii", LEVELS_FOUND)
    with pytest.raises(TableError, match=r"1 of 2 images have none, such as b\.nii\. Run the localiser's bundle"):
        located_scans(data, data)
    assert len(located_scans(data, data, "a*.nii")) == 1
    with pytest.raises(TableError, match="there is no image"):
        located_scans(data, data, "c*.nii")


def test_files_that_name_no_level_leave_nothing_to_refine(tmp_path: Path) -> None:
    data = images(tmp_path, "a.nii")
    write_levels(data / "a.nii", None)
    with pytest.raises(TableError, match="name no level"):
        located_scans(data, data)
    document = json.loads((data / "a_levels.json").read_text())
    assert document == {"levels": [], "vertebrae": [], "flags": ["no_lumbar_spine_found"], "doubts": []}
