"""Roles of series, and the reasons that are given."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_cases import AXIAL, CORONAL, SAGITTAL, STIR, T1, T2, tilted_axial, write_slice, write_stack
from PIL import Image

from monai_spine.errors import SeriesSelectionError, TableError
from monai_spine.series import Role, SeriesRole, assign_roles, role_from_table, used_series
from monai_spine.study import Study, open_study

SIX = [0, 4, 8, 12, 16, 20]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "study"


def _add(
    folder: Path, number: int, orientation: tuple[float, ...] = SAGITTAL, places: list[int] | None = None, **tags: Any
) -> str:
    uid = f"1.9.{number}"
    write_stack(folder / str(number), places or SIX, orientation=orientation, uid=uid, SeriesNumber=number, **tags)
    return uid


def _roles(folder: Path, **options: Any) -> dict[str, SeriesRole]:
    with open_study(folder) as study:
        return {one.series_instance_uid: one for one in assign_roles(study, **options)}


def _only(folder: Path, **options: Any) -> SeriesRole:
    (role,) = _roles(folder, **options).values()
    return role


@pytest.mark.parametrize(
    ("plane", "tags", "role"),
    [
        (SAGITTAL, T1, Role.SAGITTAL_T1),
        (SAGITTAL, T2, Role.SAGITTAL_T2),
        (SAGITTAL, STIR, Role.SAGITTAL_T2),
        (
            SAGITTAL,
            {"EchoTime": 20, "RepetitionTime": 2000, "InversionTime": 860, "ScanningSequence": ["SE", "IR"]},
            Role.SAGITTAL_T1,
        ),
        (AXIAL, T2, Role.AXIAL_T2),
        (tilted_axial(30), T2, Role.AXIAL_T2),
        (AXIAL, T1, None),
        (CORONAL, T2, None),
        (SAGITTAL, {"EchoTime": 15, "RepetitionTime": 3000}, None),
    ],
)
def test_plane_and_timing_decide(folder: Path, plane: tuple[float, ...], tags: dict[str, Any], role: Role | None) -> None:
    _add(folder, 1, plane, **tags)
    verdict = _only(folder)
    assert (verdict.role, verdict.used) == (role, role is not None)
    assert verdict.reason


def test_the_reason_names_plane_and_timing(folder: Path) -> None:
    _add(folder, 1, **T1)
    assert _only(folder).reason == "sagittal slices, TE 12 ms, TR 600 ms: T1-weighted"


def test_timing_overrules_the_description_and_says_so(folder: Path) -> None:
    _add(folder, 1, **T1, SeriesDescription="SAG T2")
    assert _only(folder).role is Role.SAGITTAL_T1
    assert "check: the description says T2" in _only(folder).reason


def test_the_description_speaks_where_timing_is_silent(folder: Path) -> None:
    _add(folder, 1, SeriesDescription="Sag_STIR")
    assert _only(folder).role is Role.SAGITTAL_T2
    assert "by its description (no timing in the header)" in _only(folder).reason


def test_a_sagittal_series_of_unknown_weighting_serves_for_levels_only_where_nothing_else_does(folder: Path) -> None:
    unknown = _add(folder, 1)
    assert (_only(folder).role, _only(folder).used) == (Role.SAGITTAL, True)
    _add(folder, 2, **T2)
    assert not _roles(folder)[unknown].used


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"SeriesDescription": "3-plane LOC"}, "a localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived from other images"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "ADC"]}, "derived from other images"),
        ({"ScanningSequence": "EP"}, "echo planar"),
        ({"ImagePositionPatient": None}, "no place in space, as its headers lack a usable ImagePositionPatient"),
        ({"PixelSpacing": None}, "no place in space, as its headers lack a usable PixelSpacing"),
        ({"PixelSpacing": [-0.5, 0.5]}, "no place in space, as its headers lack a usable PixelSpacing"),
        ({"ImageOrientationPatient": [0] * 6}, "no place in space, as its headers lack a usable ImageOrientationPatient"),
    ],
)
def test_what_is_no_anatomy_is_set_aside_with_its_reason(folder: Path, tags: dict[str, Any], reason: str) -> None:
    for k, place in enumerate(SIX):
        write_slice(folder / f"{k}.dcm", **{**T2, "ImagePositionPatient": [place, 0, 0], "SOPInstanceUID": f"1.{k}", **tags})
    verdict = _only(folder)
    assert (verdict.role, verdict.used) == (None, False)
    assert verdict.reason.startswith(reason)


def test_a_localizer_in_three_planes_is_recognised_by_its_planes(folder: Path) -> None:
    for k, plane in enumerate((SAGITTAL, CORONAL, AXIAL)):
        write_stack(folder, SIX[:3], orientation=plane, uid="1.5", seed=k, **T2)
    assert _only(folder).reason == "a localizer: its 9 slices lie in 3 planes"


def test_too_few_sagittal_slices_are_set_aside(folder: Path) -> None:
    _add(folder, 1, places=[0, 4], **T2)
    assert _only(folder).reason.startswith("only 2 sagittal slices")


def test_of_several_candidates_one_is_used_and_both_say_why(folder: Path) -> None:
    short, long = _add(folder, 1, places=SIX[:4], **T2), _add(folder, 2, **T2)
    roles = _roles(folder)
    assert (roles[short].used, roles[long].used) == (False, True)
    assert "chosen of 2: it covers more (20 against 12 mm)" in roles[long].reason
    assert "series 2 without description is used: it covers more" in roles[short].reason


def test_t2_is_preferred_to_stir_and_plain_t1_to_t1_after_contrast(folder: Path) -> None:
    stir, t2 = _add(folder, 1, **STIR), _add(folder, 2, **T2)
    after, before = _add(folder, 3, **T1, ContrastBolusAgent="Gadolinium"), _add(folder, 4, **T1)
    roles = _roles(folder)
    assert [uid for uid in (stir, t2, after, before) if roles[uid].used] == [t2, before]


def test_another_region_gives_way_to_the_lumbar_spine(folder: Path) -> None:
    thoracic, lumbar = (
        _add(folder, 1, **T2, SeriesDescription="SAG T2 T-SPINE"),
        _add(folder, 2, **T2, SeriesDescription="SAG T2 L-SPINE"),
    )
    roles = _roles(folder)
    assert (roles[thoracic].used, roles[lumbar].used) == (False, True)


def test_a_derived_series_is_used_only_where_there_is_no_original(folder: Path) -> None:
    derived = _add(folder, 1, **T2, ImageType=["DERIVED", "PRIMARY"])
    assert _roles(folder)[derived].used
    _add(folder, 2, places=SIX[:5], **T2)
    assert not _roles(folder)[derived].used


def test_a_duplicate_is_set_aside(folder: Path) -> None:
    first, second = _add(folder, 1, AXIAL, **T2), _add(folder, 2, AXIAL, **T2)
    roles = _roles(folder)
    assert (roles[first].used, roles[second].used) == (True, False)
    assert "a duplicate of series 1 without description: same positions, TE, TR and TI" in roles[second].reason


def test_axial_blocks_that_are_split_over_series_are_used_together(folder: Path) -> None:
    uids = [
        _add(folder, number, tilted_axial(10 * number), [40 * number + place for place in SIX[:3]], **T2) for number in (1, 2, 3)
    ]
    roles = _roles(folder)
    assert all(roles[uid].used and "used with 2 other series" in roles[uid].reason for uid in uids)
    with open_study(folder) as study:
        assert len(used_series(study, assign_roles(study), Role.AXIAL_T2)) == 3


def test_steep_axial_slices_that_count_as_coronal_are_taken_by_description_and_flagged(folder: Path) -> None:
    _add(folder, 1, tilted_axial(55), **T2, SeriesDescription="AX T2 L5/S1")
    verdict = _only(folder)
    assert verdict.role is Role.AXIAL_T2
    assert "check: its slices lie coronal (35 degrees oblique)" in verdict.reason


def test_the_table_comes_before_tags_and_conflicts_are_named(folder: Path) -> None:
    uid = _add(folder, 1, CORONAL, **T1)
    other = _add(folder, 2, **T2)
    roles = _roles(folder, table={("1.2.3", uid): "Axial T2"})
    assert roles[uid].role is Role.AXIAL_T2
    assert roles[uid].reason == "Axial T2 by the table; but its slices lie coronal"
    assert roles[other].reason == "not listed in the table of series"


def test_the_table_may_name_folders(folder: Path) -> None:
    uid = _add(folder, 7)
    assert _roles(folder, table={("study", "7"): "Sagittal T1"})[uid].role is Role.SAGITTAL_T1


@pytest.mark.parametrize("table", [{("other", "1"): "Sagittal T1"}, {("study", "2"): "Sagittal T1"}])
def test_a_table_of_other_studies_or_series_changes_nothing_and_is_mentioned(folder: Path, table: dict[Any, str]) -> None:
    _add(folder, 1, **T2)
    verdict = _only(folder, table=table)
    assert verdict.role is Role.SAGITTAL_T2
    assert verdict.reason.endswith("by its headers, as the table of series does not list this study")


def test_a_study_in_a_zip_is_listed_by_the_name_of_the_zip(folder: Path) -> None:
    uid = _add(folder, 7)
    archive = Path(shutil.make_archive(str(folder.parent / "4096820034"), "zip", folder))
    assert _roles(archive, table={("4096820034", "7"): "Sagittal T1"})[uid].role is Role.SAGITTAL_T1


def test_an_unknown_label_is_refused() -> None:
    assert role_from_table(" sagittal t2/stir ") is Role.SAGITTAL_T2
    with pytest.raises(TableError, match=r"Unknown series description 'Coronal T2'. Choose from: Sagittal T1"):
        role_from_table("Coronal T2")


def test_the_users_choice_overrides_and_the_other_steps_back(folder: Path) -> None:
    short, long = _add(folder, 1, places=SIX[:4], **T2), _add(folder, 2, **T2)
    roles = _roles(folder, chosen={Role.SAGITTAL_T2: short})
    assert (roles[short].used, roles[long].used) == (True, False)
    assert roles[short].reason.startswith("chosen as sagittal_t2 by the user")
    assert "series 1 without description was chosen by the user" in roles[long].reason


def test_the_user_may_give_a_role_that_the_tags_deny(folder: Path) -> None:
    uid = _add(folder, 1, CORONAL, **T1)
    verdict = _roles(folder, chosen={Role.AXIAL_T2: uid})[uid]
    assert (verdict.role, verdict.used) == (Role.AXIAL_T2, True)
    assert "by itself: coronal" in verdict.reason


def test_an_unknown_series_is_refused_with_those_that_are_there(folder: Path) -> None:
    _add(folder, 3, **T2, SeriesDescription="SAG T2")
    with pytest.raises(SeriesSelectionError, match=r"Series '1.2', chosen as axial_t2, is not in .* 1.9.3 \(series 3 'SAG T2'\)"):
        _roles(folder, chosen={Role.AXIAL_T2: "1.2"})


def _other(path: Path) -> Study:
    with open_study(path) as study:
        return study


def test_a_nifti_is_sagittal_unless_its_role_is_given(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"x")
    study = _other(tmp_path / "a.nii")
    assert assign_roles(study)[0].role is Role.SAGITTAL
    assert assign_roles(study, nifti_role=Role.AXIAL_T2)[0].reason == "Axial T2 as given by --role"


def test_a_picture_is_a_picture(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    (verdict,) = assign_roles(_other(tmp_path / "a.png"))
    assert (verdict.role, verdict.used) == (Role.PICTURE, True)


def test_series_are_judged_without_torch() -> None:
    code = "import sys, monai_spine.series; print('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
