"""Pictures: what lies where, which letters stand at which edge, how long the scale bar is."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor
from report_cases import canal_point, case, case_levels, drawn_crop, drawn_volume

from monai_spine.anatomy import Condition, Level, Severity, Side, Target
from monai_spine.geometry import PlaneOrientation, apply_affine, flip_axis
from monai_spine.report.figures import crop_figure, draw_figures, sagittal_figure
from monai_spine.report.palette import BORDERS
from monai_spine.report.sheet import sheet_of
from monai_spine.report.views import scale_bar_mm, slice_view
from monai_spine.series import Role
from monai_spine.volume import Volume


def pixels_of(png: bytes) -> np.ndarray:
    """Rows from the top, columns from the viewer's left, RGB."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def bare_picture(volume: Volume, plane: PlaneOrientation, **where: object) -> np.ndarray:
    sheet = sheet_of(slice_view(volume.array, volume.affine, plane, **where), long_side=300)  # type: ignore[arg-type]
    return pixels_of(sheet.png(grey=True))[..., 0]


def stored_otherwise(volume: Volume, *axes: int) -> Volume:
    array, affine = volume.array, volume.affine
    for axis in axes:
        array, affine = flip_axis(array, affine, axis)  # type: ignore[assignment]
    return replace(volume, array=array, affine=affine)


@pytest.mark.parametrize("flipped", [(), (0,), (1,), (0, 1, 2)])
def test_the_patients_left_lies_at_the_viewers_right_in_axial_pictures_whatever_the_storage_order(
    flipped: tuple[int, ...],
) -> None:
    drawn = drawn_volume(Role.AXIAL_T2)
    volume = stored_otherwise(replace(drawn, array=(drawn.array > 300).astype(np.float32)), *flipped)
    picture = bare_picture(volume, PlaneOrientation.AXIAL, at_ras_mm=canal_point(2))
    assert (picture > 128).nonzero()[1].mean() > 0.6 * picture.shape[1], "the bright mark lies in the patient's left half"
    view = slice_view(volume.array, volume.affine, PlaneOrientation.AXIAL)
    assert view.letters == ("R", "L", "A", "P")


@pytest.mark.parametrize("flipped", [(), (1,), (2,), (0, 1, 2)])
def test_front_lies_at_the_viewers_left_and_the_head_at_the_top_of_sagittal_pictures(flipped: tuple[int, ...]) -> None:
    volume = drawn_volume()
    front_and_head = apply_affine(volume.affine, np.stack(np.indices(volume.array.shape), axis=-1))
    array = ((front_and_head[..., 1] > 40) & (front_and_head[..., 2] > 60)).astype(np.float32)
    picture = bare_picture(stored_otherwise(replace(volume, array=array), *flipped), PlaneOrientation.SAGITTAL)
    rows, columns = (picture > 128).nonzero()
    assert rows.max() < picture.shape[0] / 2
    assert columns.max() < picture.shape[1] / 2
    assert slice_view(array, volume.affine, PlaneOrientation.SAGITTAL).letters == ("A", "P", "H", "F")


def test_a_mirrored_crop_is_still_drawn_where_it_lies() -> None:
    crop = drawn_crop(drawn_volume(Role.AXIAL_T2), canal_point(2), axial=True)
    pictures = [
        pixels_of(sheet_of(slice_view(one.array, one.affine, PlaneOrientation.AXIAL), long_side=200).png(grey=True))
        for one in (crop, crop.mirrored())
    ]
    np.testing.assert_array_equal(*pictures)


def test_a_point_is_found_at_the_voxel_that_it_lies_in() -> None:
    volume = drawn_volume()
    view = slice_view(volume.array, volume.affine, PlaneOrientation.SAGITTAL, at_ras_mm=canal_point(1))
    across, up, away = view.locate(canal_point(1))
    i, j = int(across / view.spacing_mm[0]), int(up / view.spacing_mm[1])
    assert view.pixels[i, j] == pytest.approx(255)
    assert away < 0.5


def test_a_narrowed_view_keeps_every_pixel_in_its_place() -> None:
    volume = drawn_volume()
    view = slice_view(volume.array, volume.affine, PlaneOrientation.SAGITTAL)
    narrow = view.narrowed(40.2, 120.0)
    assert narrow.pixels.shape == (80, 240)
    assert narrow.locate(canal_point(1))[0] == pytest.approx(view.locate(canal_point(1))[0] - 40)
    np.testing.assert_array_equal(narrow.pixels, view.pixels[40:120])
    assert view.narrowed(-500, 900).pixels.shape == view.pixels.shape
    assert view.narrowed(900, 950).pixels.shape == (1, 240)


@pytest.mark.parametrize(("width_mm", "length_mm"), [(48, 10), (60, 20), (200, 50), (300, 100), (31, 10), (5.9, 1)])
def test_a_scale_bar_has_a_round_length_of_at_most_a_third_of_the_picture(width_mm: float, length_mm: float) -> None:
    assert scale_bar_mm(width_mm) == length_mm


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    crop = drawn_crop(replace(drawn_volume(), array=np.zeros_like(drawn_volume().array)), canal_point(2))
    result, _ = case()
    grade = result.grade_of(Target(Condition.SPINAL_CANAL_STENOSIS, None, Level.L3_L4))
    assert grade is not None
    picture = pixels_of(crop_figure(grade, crop))
    inner = picture.shape[1] - 2 * 7
    row = int(7 + inner * (1 - 0.03))
    white = (picture[row] > 200).all(axis=-1)[7 : picture.shape[1] // 2]
    assert white.sum() == pytest.approx(inner * 10 / 48, abs=3)


@pytest.mark.parametrize(
    ("level", "severity"), [(Level.L2_L3, Severity.NORMAL_MILD), (Level.L3_L4, Severity.MODERATE), (Level.L4_L5, Severity.SEVERE)]
)
def test_a_crop_is_framed_in_the_colour_of_its_severity(level: Level, severity: Severity) -> None:
    result, images = case()
    target = Target(Condition.NEURAL_FORAMINAL_NARROWING, Side.RIGHT, level)
    grade = result.grade_of(target)
    assert grade is not None
    picture = pixels_of(crop_figure(grade, images.crops[target.slug]))
    frame = ImageColor.getrgb(BORDERS[severity])
    for edge in (picture[2], picture[-3], picture[:, 2], picture[:, -3]):
        assert (edge == frame).all()


def test_colours_of_severities_differ_in_lightness_alone() -> None:
    lightness = [
        np.dot(ImageColor.getrgb(BORDERS[severity]), (0.299, 0.587, 0.114))
        for severity in (Severity.NORMAL_MILD, Severity.SEVERE)
    ]
    assert lightness[0] - lightness[1] > 60


def test_there_is_a_picture_per_sagittal_scan_and_per_graded_target() -> None:
    result, images = case()
    names = set(draw_figures(result, images))
    graded = {f"crop_{grade.target.slug}.png" for grade in result.grades if grade.severity is not None}
    assert names == graded | {"sagittal_sagittal_t1.png", "sagittal_sagittal_t2.png"}


def test_the_sagittal_picture_marks_the_levels() -> None:
    volume, levels = drawn_volume(), replace(case_levels(), bodies=None)
    marked = pixels_of(sagittal_figure(volume, levels))
    yellow = (marked[..., 0] > 200) & (marked[..., 1] > 170) & (marked[..., 2] < 130)
    assert yellow.sum() > 10 * 20
    assert marked.shape[1] < marked.shape[0] * 200 / 240, "the picture is no wider than the spine and the names need"
    height = np.array([1 - (level.disc_ras_mm[2] + 120) / 240 for level in levels.levels]) * marked.shape[0]
    rows = yellow.nonzero()[0]
    assert all(np.abs(rows - row).min() < 12 for row in height)


def test_a_picture_without_geometry_claims_no_direction_and_no_scale() -> None:
    volume = replace(drawn_volume(), array=np.zeros_like(drawn_volume().array))
    levels = replace(case_levels(), levels=(), vertebrae=(), bodies=None)
    assert (
        pixels_of(sagittal_figure(volume, levels, has_mm=False)).max()
        == pixels_of(sagittal_figure(volume, levels, has_mm=False)).min()
    )
    assert pixels_of(sagittal_figure(volume, levels)).max() > 200


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_scan_of_one_value_or_none_can_be_drawn(value: float) -> None:
    volume = replace(drawn_volume(), array=np.full_like(drawn_volume().array, value))
    assert pixels_of(sagittal_figure(volume, case_levels())).shape[0] == 860


def test_levels_without_a_canal_point_are_drawn_at_their_disc() -> None:
    levels = replace(case_levels(), levels=tuple(replace(level, canal_ras_mm=None) for level in case_levels().levels))
    assert pixels_of(sagittal_figure(drawn_volume(), levels)).shape[2] == 3
