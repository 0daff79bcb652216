"""Pictures: what lies where, which letters stand at which edge, how long the scale bar is."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor
from report_cases import canal_point, case, case_levels, drawn_crop, drawn_volume

from monai_spine.anatomy import Condition, Level, Severity, Side, Target
from monai_spine.geometry import PlaneOrientation, Point, apply_affine, flip_axis
from monai_spine.level_doubts import Doubt
from monai_spine.levels import Levels
from monai_spine.report.figures import crop_figure, draw_figures, sagittal_figure
from monai_spine.report.labels import spread
from monai_spine.report.palette import BORDERS, DOUBTFUL, SURE
from monai_spine.report.sheet import Box, Sheet, sheet_of
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


def amber_in(picture: np.ndarray) -> np.ndarray:
    """Where something amber is drawn: neither grey nor the blue of the outlines."""
    return np.asarray((picture[..., 0] > 180) & (picture[..., 0] - picture[..., 2] > 120))


def test_the_sagittal_picture_marks_what_is_doubtful_in_amber_at_its_height_and_nothing_else() -> None:
    volume, levels = drawn_volume(), replace(case_levels(), column_doubts=())
    sure = replace(levels, levels=tuple(replace(level, doubts=()) for level in levels.levels))
    assert not amber_in(pixels_of(sagittal_figure(volume, sure))).any()
    for at, doubtful in enumerate(sure.levels):
        doubt = Doubt("low_confidence", "0.41", doubtful.level)
        others = (*sure.levels[:at], replace(doubtful, doubts=(doubt,)), *sure.levels[at + 1 :])
        picture = pixels_of(sagittal_figure(volume, replace(sure, levels=others)))
        rows = amber_in(picture).nonzero()[0]
        row = (1 - (doubtful.disc_ras_mm[2] + 120) / 240) * 860
        assert len(rows) > 300
        assert np.abs(rows - row).max() < 60, doubtful.level.label


def test_the_picture_is_no_wider_than_the_spine_and_the_names_need() -> None:
    picture = pixels_of(sagittal_figure(drawn_volume(), replace(case_levels(), column_doubts=())))
    assert picture.shape[0] == 860
    assert picture.shape[1] < 860 * 200 / 240


def test_the_columns_doubts_stand_in_words_below_the_slice() -> None:
    volume, levels = drawn_volume(), case_levels()
    plain, said = (pixels_of(sagittal_figure(volume, one)) for one in (replace(levels, column_doubts=()), levels))
    assert len(said) > len(plain)
    np.testing.assert_array_equal(said.shape[1], plain.shape[1])
    strip = said[len(plain) :]
    assert amber_in(strip).sum() > 500
    assert (strip.max(axis=-1) <= strip[..., 0]).all(), "amber upon black"


FLAGS = ("low_confidence", "numbering_ambiguous", "canal_not_seen")
COLUMN_DOUBTS = (
    Doubt("sacrum_not_seen", "the lowest disc that was named is L4/L5, 14 mm above the scan's lower end"),
    Doubt("possible_transitional_anatomy", "the discs above L4/L5 look one name lower than five lumbar bodies allow (20 times as "
          "likely): a sixth lumbar body or a lumbarised S1"),
    Doubt("out_of_order", "the disc named L2/L3 looks like L3/L4 (0.90), one below it, named L3/L4, like L2/L3 (0.90)"),
)  # fmt: skip


def doubtful_levels(*, flags: int, closer: float = 1.0, further_back_mm: float = 0.0) -> Levels:
    """Every level with so many flags, the column with three; levels nearer to each other, or further back in the scan."""

    def moved(point: Point | None) -> Point | None:
        return None if point is None else (point[0], point[1] - further_back_mm, point[2] * closer)

    levels = case_levels()
    points = tuple(
        replace(
            level,
            disc_ras_mm=moved(level.disc_ras_mm),
            canal_ras_mm=moved(level.canal_ras_mm),
            doubts=tuple(Doubt(flag, "", level.level) for flag in FLAGS[:flags]),
        )
        for level in levels.levels
    )
    bodies = tuple(replace(body, point_ras_mm=moved(body.point_ras_mm)) for body in levels.vertebrae)
    return replace(levels, levels=points, vertebrae=bodies, column_doubts=COLUMN_DOUBTS, bodies=None)


def texts_of(monkeypatch: pytest.MonkeyPatch, volume: Volume, levels: Levels) -> tuple[Sheet, dict[str, Box]]:
    """The sheet of a sagittal picture, and where each text on it stands; equal texts are counted through."""
    sheets: list[Sheet] = []
    monkeypatch.setattr(Sheet, "png", lambda self, **_: sheets.append(self) or b"")
    sagittal_figure(volume, levels)
    (sheet,) = sheets
    return sheet, {f"{at} {text.get_text()}": sheet.box_of([text]) for at, text in enumerate(sheet.figure.texts)}


@pytest.mark.parametrize("flags", [0, 1, 3])
@pytest.mark.parametrize(("closer", "further_back_mm"), [(1.0, 0.0), (0.5, 0.0), (1.0, 60.0), (1.2, -40.0)])
def test_no_text_stands_upon_another_or_beyond_the_picture(monkeypatch, flags, closer, further_back_mm) -> None:
    levels = doubtful_levels(flags=flags, closer=closer, further_back_mm=further_back_mm)
    sheet, boxes = texts_of(monkeypatch, drawn_volume(), levels)
    words = [text.get_text() for text in sheet.figure.texts]
    assert sum("%" in word for word in words) == 6
    assert sum(word in {flag.replace("_", " ") for flag in FLAGS} for word in words) == 6 * flags
    assert {"A", "P", "H", "F", "T12", "L5"} <= set(words)
    width, height = sheet.figure.bbox.width, sheet.figure.bbox.height
    for text, (left, lower, right, upper) in boxes.items():
        assert left >= 0, text
        assert lower >= 0, text
        assert right <= width, text
        assert upper <= height, text
    for (one, mine), (other, theirs) in itertools.combinations(boxes.items(), 2):
        apart = mine[2] <= theirs[0] or theirs[2] <= mine[0] or mine[3] <= theirs[1] or theirs[3] <= mine[1]
        assert apart, (one, other)


def test_each_name_stands_at_the_height_of_its_level_behind_its_canal_with_its_flags_below(monkeypatch) -> None:
    levels = doubtful_levels(flags=2)
    sheet, boxes = texts_of(monkeypatch, drawn_volume(), levels)
    for level in levels.levels:
        (name,) = (box for text, box in boxes.items() if level.level.label in text and "%" in text)
        across, up, _ = sheet.view.locate(level.canal_ras_mm)
        x, y = sheet.in_pixels(sheet.place(across, up))
        assert x < name[0] < x + 60
        assert name[1] - 60 < y < name[3] + 10
    written = [text.get_text() for text in sheet.figure.texts]
    at = written.index("L3/L4  71 %")
    assert written[at + 1 : at + 3] == ["low confidence", "numbering ambiguous"]
    first, second, third = (sheet.box_of([text]) for text in sheet.figure.texts[at : at + 3])
    assert first[3] > second[3] > third[3]


def test_the_columns_doubts_are_told_whole(monkeypatch) -> None:
    sheet, _ = texts_of(monkeypatch, drawn_volume(), doubtful_levels(flags=0))
    below = [text.get_text() for text in sheet.figure.texts if sheet.box_of([text])[3] < sheet.area[1]]
    said = " ".join(" ".join(below).split())
    assert said == " ".join(f"{doubt.flag.replace('_', ' ')}: {doubt.seen}" for doubt in COLUMN_DOUBTS)


@pytest.mark.parametrize("brightness", [0.0, 1000.0])
def test_names_can_be_read_on_bright_fat(monkeypatch, brightness: float) -> None:
    """Around each letter of a label the picture is dark, whatever the scan shows there."""
    volume = replace(drawn_volume(), array=np.full_like(drawn_volume().array, brightness))
    volume.array[0, 0, :2] = (0.0, 1001.0)
    levels = doubtful_levels(flags=1)
    picture = pixels_of(sagittal_figure(volume, levels))
    _, boxes = texts_of(monkeypatch, volume, levels)
    for text, (left, lower, right, upper) in boxes.items():
        if "%" in text:
            height = len(picture)
            box = picture[round(height - upper) : round(height - lower), round(left) : round(right)]
            assert np.median(box.max(axis=-1)) < 110, text


@pytest.mark.parametrize(
    ("middles", "heights", "expected"),
    [
        ([90.0, 50.0, 10.0], [10.0, 10.0, 10.0], [90.0, 50.0, 10.0]),
        ([52.0, 50.0, 10.0], [11.0, 11.0, 11.0], [61.0, 41.0, 10.0]),
        ([99.0, 50.0, 1.0], [20.0, 20.0, 20.0], [90.0, 50.0, 10.0]),
        ([50.0], [30.0], [50.0]),
    ],
)
def test_labels_move_no_further_than_it_takes(middles, heights, expected) -> None:
    np.testing.assert_allclose(spread(middles, heights, low=0.0, high=100.0), expected)


def test_labels_for_which_there_is_no_room_are_packed_from_the_top() -> None:
    found = spread([50.0, 50.0, 50.0], [40.0, 40.0, 40.0], low=0.0, high=100.0)
    assert found[0] == 80.0
    assert (np.diff(found) == -49.0).all()


def test_amber_and_white_differ_in_lightness_and_amber_is_no_colour_of_a_severity() -> None:
    sure, doubtful = (np.dot(ImageColor.getrgb(color), (0.299, 0.587, 0.114)) for color in (SURE, DOUBTFUL))
    assert sure - doubtful > 60
    assert DOUBTFUL not in BORDERS.values()


def test_a_picture_without_geometry_claims_no_direction_and_no_scale() -> None:
    volume = replace(drawn_volume(), array=np.zeros_like(drawn_volume().array))
    levels = replace(case_levels(), levels=(), vertebrae=(), column_doubts=(), bodies=None)
    assert (
        pixels_of(sagittal_figure(volume, levels, has_mm=False)).max()
        == pixels_of(sagittal_figure(volume, levels, has_mm=False)).min()
    )
    assert pixels_of(sagittal_figure(volume, levels)).max() > 200


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_scan_of_one_value_or_none_can_be_drawn(value: float) -> None:
    volume = replace(drawn_volume(), array=np.full_like(drawn_volume().array, value))
    assert pixels_of(sagittal_figure(volume, replace(case_levels(), column_doubts=()))).shape[0] == 860


def test_levels_without_a_canal_point_are_drawn_at_their_disc() -> None:
    """The names stand where they would if the canal were there, 25 mm behind the disc: not upon the bodies."""
    seen = replace(case_levels(), bodies=None)
    unseen = replace(seen, levels=tuple(replace(level, canal_ras_mm=None) for level in seen.levels))
    pictures = [pixels_of(sagittal_figure(drawn_volume(), levels)) for levels in (seen, unseen)]
    differing = np.argwhere((pictures[0] != pictures[1]).any(axis=-1)) if pictures[0].shape == pictures[1].shape else []
    assert len(differing) < 6 * 400, "no more than the crosses differ"
