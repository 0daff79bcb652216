"""The prepared layout and the items that training makes of it."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from monai_spine.anatomy import DISCS, Condition, Level, Severity, Side, Target, Vertebra
from monai_spine.errors import TableError
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, PreparedVolume, write_datalist
from monai_spine.training.datalists import (
    POINT_NAMES,
    grading_items,
    localizer_items,
    mixed_items,
    read_datalist,
    sampling_weights,
)
from monai_spine.training.grading_crops import items_of
from monai_spine.training.samplers import SharedSampler

FORAMEN = Target(Condition.NEURAL_FORAMINAL_NARROWING, Side.RIGHT, Level.L4_L5)
LEFT = Target(Condition.SUBARTICULAR_STENOSIS, Side.LEFT, Level.L4_L5)
SPLITS = {"training": ["1"], "validation": ["2"]}


def case(name: str = "1", patient: str | None = None) -> PreparedCase:
    return PreparedCase(
        case=name,
        patient=patient or name,
        volumes=(
            PreparedVolume("a/t2.nii", "sagittal_t2", "1.2", "a/bodies.nii.gz", (Vertebra.L1, Vertebra.S1)),
            PreparedVolume("a/high.nii", "axial_t2"),
            PreparedVolume("a/low.nii", "axial_t2"),
        ),
        discs={Level.L4_L5: (1.0, 2.0, 3.0)},
        canals={Level.L4_L5: (1.0, -22.0, 3.0)},
        vertebrae={Vertebra.L4: (1.0, 2.0, 20.0)},
        targets={
            LEFT: PreparedTarget((-9.0, -20.0, 2.0), Severity.MODERATE),
            LEFT.mirrored: PreparedTarget((9.0, -20.0, 2.0), Severity.SEVERE),
            replace(LEFT, level=Level.L5_S1): PreparedTarget((-9.0, -20.0, -30.0), None),
            FORAMEN: PreparedTarget((19.0, -17.0, 11.0), None),
        },
        estimated=("canal L4/L5",),
    )


def write(folder, cases=None, splits=None):
    return write_datalist(
        folder, study="made up", source="simulated", cases=cases or [case(), case("2")], splits=splits or SPLITS
    )


def test_a_data_list_reads_back_as_it_was_written(tmp_path):
    read = read_datalist(write(tmp_path))
    assert read.cases == (case(), case("2"))
    assert read.splits == {"training": ("1",), "validation": ("2",), "test": ()}
    assert (read.study, read.source, read.root) == ("made up", "simulated", tmp_path)
    assert read_datalist(tmp_path).cases == read.cases


def test_the_file_follows_the_published_layout(tmp_path):
    document = json.loads(write(tmp_path).read_text())
    assert document["schema_version"] == 1
    first = document["cases"][0]
    assert first["discs"] == {"L4/L5": [1.0, 2.0, 3.0]}
    assert first["volumes"][0]["bodies_labelled"] == ["L1", "S1"]
    assert first["targets"]["left_subarticular_stenosis_l4_l5"] == {"point_ras_mm": [-9.0, -20.0, 2.0], "severity": "moderate"}


def test_a_patient_in_two_splits_is_refused(tmp_path):
    with pytest.raises(TableError, match="Split by patient"):
        write(tmp_path, [case("1", "same"), case("2", "same")])


def test_a_case_that_appears_twice_is_refused(tmp_path):
    with pytest.raises(TableError, match="appear twice"):
        write(tmp_path, [case(), case()])


def test_a_split_with_an_unknown_case_is_refused(tmp_path):
    with pytest.raises(TableError, match="unknown cases"):
        write(tmp_path, splits={"training": ["7"]})


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(TableError, match="'real' or 'simulated'"):
        write_datalist(tmp_path, study="made up", source="dreamt", cases=[case()], splits={})


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 2}', '{"schema_version": 1}'])
def test_what_is_no_data_list_is_refused(tmp_path, text):
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(TableError, match=r"Prepare the data again|cannot be read"):
        read_datalist(tmp_path)


def test_a_missing_data_list_is_refused(tmp_path):
    with pytest.raises(TableError, match="monai-spine prepare"):
        read_datalist(tmp_path)


def test_localizer_items_say_what_is_labelled(tmp_path):
    (item,) = localizer_items(read_datalist(write(tmp_path)), "training")
    assert item["image"] == str(tmp_path / "a/t2.nii")
    known = [name for name, point in zip(POINT_NAMES, item["points"], strict=True) if np.isfinite(point).all()]
    assert known == ["disc L4/L5", "canal L4/L5"]
    assert [name for name, flag in zip(POINT_NAMES, item["estimated"], strict=True) if flag] == ["canal L4/L5"]
    assert item["marked"].tolist() == [1, 0, 0, 0, 0, 1, 0]
    assert item["foramina"].shape == (len(DISCS), 2, 3)
    assert np.argwhere(np.isfinite(item["foramina"]).all(-1)).tolist() == [[DISCS.index(Level.L4_L5), 1]], "right comes second"
    assert item["foramina"][DISCS.index(Level.L4_L5), 1].tolist() == [19.0, -17.0, 11.0]


def test_no_key_begins_with_another_and_an_underscore(tmp_path):
    datalist = read_datalist(write(tmp_path))
    for block, height in (("high", 10.0), ("low", -60.0)):
        save_block(tmp_path / f"a/{block}.nii", height)
    items = localizer_items(datalist, "training") + grading_items(datalist, "training", LEFT.condition, "axial_t2")
    for item in items:
        assert not [(one, other) for one in item for other in item if other.startswith(f"{one}_")]


def save_block(path, height_mm: float) -> None:
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[:3, 3] = (-40, -60, height_mm - 20)
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((80, 80, 10), np.uint8), affine), path)


def test_a_graded_target_goes_with_the_block_that_it_lies_in(tmp_path):
    datalist = read_datalist(write(tmp_path))
    save_block(tmp_path / "a/high.nii", 40.0)
    save_block(tmp_path / "a/low.nii", 0.0)
    items = grading_items(datalist, "training", "subarticular_stenosis", "axial_t2")
    assert [item["image"] for item in items] == [str(tmp_path / "a/low.nii")] * 2
    assert [(item["mirror"], item["label"]) for item in items] == [(False, 1), (True, 2)]


def test_a_graded_target_goes_with_the_volume_that_it_was_marked_on(tmp_path):
    marked = replace(case().targets[LEFT], image="a/high.nii")
    elsewhere = replace(case().targets[LEFT.mirrored], image="a/t2.nii")
    datalist = read_datalist(write(tmp_path, [replace(case(), targets={LEFT: marked, LEFT.mirrored: elsewhere}), case("2")]))
    save_block(tmp_path / "a/high.nii", 40.0)
    save_block(tmp_path / "a/low.nii", 0.0)
    items = grading_items(datalist, "training", "subarticular_stenosis", "axial_t2")
    assert [item["image"] for item in items] == [str(tmp_path / "a/high.nii"), str(tmp_path / "a/low.nii")], (
        "deepest, if elsewhere"
    )


def test_a_case_without_the_role_gives_no_items(tmp_path):
    assert grading_items(read_datalist(write(tmp_path)), "training", LEFT.condition, "sagittal_t1") == []


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(TableError, match="has no split 'holdout'"):
        localizer_items(read_datalist(write(tmp_path)), "holdout")


def test_several_folders_are_mixed_in_the_stated_ratio(tmp_path):
    for name in ("one", "two"):
        cases = [case(str(number)) for number in range(4 if name == "one" else 1)]
        write_datalist(
            tmp_path / name, study=name, source="simulated", cases=cases, splits={"training": [found.case for found in cases]}
        )
    items = mixed_items([tmp_path / "one", tmp_path / "two"], "training")
    assert sampling_weights(items) == pytest.approx([0.125] * 4 + [0.5])
    assert sampling_weights(items, {"one": 3, "two": 1}) == pytest.approx([0.1875] * 4 + [0.25])
    assert len(mixed_items([tmp_path / "one"], "training", limit=2)) == 2
    with pytest.raises(TableError, match="No sampling share is given for two"):
        sampling_weights(items, {"one": 1})
    with pytest.raises(TableError, match="nothing in split 'test'"):
        mixed_items(str(tmp_path / "one"), "test")


def test_processes_share_what_one_would_draw():
    drawn = [5, 3, 8, 1, 9, 2, 7]
    shares = [list(SharedSampler(drawn, rank, 2)) for rank in range(2)]
    assert shares == [[5, 8, 9], [3, 1, 2]]
    assert len(SharedSampler(drawn, 0, 2)) == 3
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\)"):
        SharedSampler(drawn, 2, 2)


def test_a_split_without_a_graded_target_says_which_splits_have_some(tmp_path) -> None:
    point = (0.0, 0.0, 0.0)
    severe = replace(case(), targets={FORAMEN: PreparedTarget(point, Severity.SEVERE), LEFT: PreparedTarget(point, None)})
    write_datalist(tmp_path, study="few", source="real", cases=[severe], splits={"training": ["1"], "test": []})
    wanted = {"condition": "neural_foraminal_narrowing", "role": "sagittal_t1"}
    with pytest.raises(
        TableError, match=r"split 'test' of .* has no graded target of neural .*are in: training \(1\)\. Choose one"
    ):
        items_of(tmp_path, "test", **wanted)
    with pytest.raises(
        TableError, match=r"subarticular stenosis in a study with a series axial_t2\. No other split has one either"
    ):
        items_of(tmp_path, "test", condition="subarticular_stenosis", role="axial_t2")
