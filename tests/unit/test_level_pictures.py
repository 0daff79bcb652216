"""Levels on a picture that states no millimetres: any scale is found, and points are pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import BrightDiscs, write_bundles

from monai_spine.anatomy import DISCS, Vertebra
from monai_spine.errors import LevelsNotFoundError
from monai_spine.level_inference import LevelLocalizer
from monai_spine.level_pictures import localize_picture
from monai_spine.level_refinement import LevelRefiner
from monai_spine.level_sequence import DISC_SPACING_MM
from monai_spine.levels import LevelPoint, Levels
from monai_spine.models import LOCALIZER, REFINER
from monai_spine.volume import Volume
from monai_spine.weights import find_bundle

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
CENTRES = np.array([[110.0 + 4 * (at - 2.5) ** 2, 90.0 + 50.0 * at] for at in range(len(DISCS))])
"""Where the discs of a picture of 240 × 420 pixels lie, (x, y)."""


def picture(zoom: float = 1.0, *, width: int = 240, height: int = 420) -> np.ndarray:
    """Discs as bright spots on a dark ground, (rows, columns)."""
    rows, columns = np.indices((round(height * zoom), round(width * zoom)))
    spots = [np.exp(-((columns - x * zoom) ** 2 + (rows - y * zoom) ** 2) / (2 * (8 * zoom) ** 2)) for x, y in CENTRES]
    return np.asarray(200 * sum(spots), np.float32)


@pytest.fixture(scope="module")
def localizer() -> LevelLocalizer:
    return LevelLocalizer(find_bundle(LOCALIZER, BUNDLES), network=BrightDiscs())


@pytest.mark.parametrize("zoom", [0.6, 1.0, 2.5])
def test_discs_are_found_where_they_are_whatever_the_pixels_measure(localizer, zoom: float) -> None:
    found = localize_picture(picture(zoom), localizer)
    assert list(found.discs_px) == list(DISCS)
    np.testing.assert_allclose(np.array(list(found.discs_px.values())) / zoom, CENTRES, atol=3.0)
    gap = float(np.linalg.norm(np.diff(CENTRES, axis=0), axis=1).mean()) * zoom
    assert found.mm_per_px * gap == pytest.approx(DISC_SPACING_MM, rel=0.1)


def test_each_disc_has_its_confidence(localizer) -> None:
    found = localize_picture(picture(), localizer)
    assert found.confidence.keys() == found.discs_px.keys()
    assert all(0.5 < value <= 1.0 for value in found.confidence.values())


def test_bodies_lie_between_their_discs_where_a_refiner_sees_them(tmp_path: Path) -> None:
    refiner = LevelRefiner(find_bundle(REFINER, write_bundles(tmp_path)))
    found = localize_picture(picture(), LevelLocalizer(find_bundle(LOCALIZER, BUNDLES), network=BrightDiscs(), refiner=refiner))
    assert Vertebra.T12 in found.vertebrae_px
    for at, body in enumerate((Vertebra.L1, Vertebra.L2, Vertebra.L3, Vertebra.L4, Vertebra.L5)):
        np.testing.assert_allclose(found.vertebrae_px[body], (CENTRES[at] + CENTRES[at + 1]) / 2, atol=8.0)


def test_a_picture_that_shows_no_column_is_refused_with_its_size(localizer) -> None:
    with pytest.raises(LevelsNotFoundError, match=r"picture of 240 × 420 pixels at any scale from 220 to 455 mm"):
        localize_picture(np.zeros((420, 240), np.float32), localizer)
    single = picture()
    single[115:] = 0
    with pytest.raises(LevelsNotFoundError, match="No lumbar spine was found on the picture"):
        localize_picture(single, localizer)


class SureOfUpright:
    """Finds the same column on any picture, surest where brightness falls from head to foot, and less so from front to back.

    Args:
        otherwise: How sure it is of any other picture; None: it finds no column there.
    """

    def __init__(self, otherwise: float | None = 0.7) -> None:
        self.otherwise = otherwise

    def find(self, volume: Volume) -> Levels:
        columns, rows = (_fall(volume.array[0].mean(axis=axis)) for axis in (1, 0))
        confidence = 0.95 if rows > columns > 0 else self.otherwise
        if confidence is None:
            raise LevelsNotFoundError("nothing")
        points = [(0.0, 0.0, 90.0 - DISC_SPACING_MM * at) for at in range(len(DISCS))]
        return Levels(tuple(LevelPoint(disc, point, None, confidence) for disc, point in zip(DISCS, points, strict=True)), ())

    def refine(self, volume: Volume, levels: Levels) -> Levels:
        return levels


def _fall(line: np.ndarray) -> float:
    return float(line[: len(line) // 2].mean() - line[len(line) // 2 :].mean())


UPRIGHT = np.linspace(2, 0, 420, dtype=np.float32)[:, None] + np.linspace(1, 0, 240, dtype=np.float32)
TURNED = {
    "mirrored top to bottom": UPRIGHT[::-1],
    "mirrored left to right": UPRIGHT[:, ::-1],
    "turned by 180°": UPRIGHT[::-1, ::-1],
    "turned by 90° clockwise": UPRIGHT[::-1].T,
    "turned by 90° anticlockwise": UPRIGHT[:, ::-1].T,
}


@pytest.mark.parametrize("how", TURNED)
def test_a_picture_that_is_surer_in_another_orientation_is_refused_with_its_name(how: str) -> None:
    with pytest.raises(LevelsNotFoundError, match=rf"seems to be {how}: .*\(confidences of 5\.7 together, not 4\.2\)\. Turn"):
        localize_picture(TURNED[how], SureOfUpright())
    with pytest.raises(LevelsNotFoundError, match=rf"seems to be {how}: .*not 0\.0"):
        localize_picture(TURNED[how], SureOfUpright(otherwise=None))


def test_a_picture_that_is_sure_as_it_is_or_in_no_orientation_is_taken() -> None:
    assert list(localize_picture(UPRIGHT, SureOfUpright()).discs_px) == list(DISCS)
    alike = np.ones((420, 240), np.float32)
    assert set(localize_picture(alike, SureOfUpright()).confidence.values()) == {0.7}, "unsure, but no surer when turned"
    assert set(localize_picture(UPRIGHT[::-1], SureOfUpright(otherwise=0.92)).confidence.values()) == {0.92}, "sure enough"
