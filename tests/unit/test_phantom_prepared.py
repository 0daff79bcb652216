"""Simulated studies in the prepared layout."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_spine.anatomy import Level
from monai_spine.errors import OutputError, TableError
from monai_spine.geometry import Point, apply_affine, invert_affine
from monai_spine.phantom import prepare_phantom
from monai_spine.phantom.tissues import TISSUES, Sequence
from monai_spine.studies.prepared import read_datalist


def test_an_empty_set_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="above 0"):
        prepare_phantom(tmp_path / "out", splits={"training": 0, "validation": 0}, seed=0)
    assert not (tmp_path / "out").exists()


def test_on_a_water_image_fluid_is_bright_and_marrow_dark(tmp_path: Path) -> None:
    path = prepare_phantom(tmp_path, splits={"training": 2}, seed=5, max_matrix=192, water_images=True)
    datalist = read_datalist(path)
    assert datalist.study == "phantom_water"
    for case in datalist.cases:
        (volume,) = case.volumes
        image = nib.load(tmp_path / volume.image)
        labels = np.asarray(nib.load(tmp_path / str(volume.bodies)).dataobj)
        pixels = np.asarray(image.dataobj, dtype=float)
        sac = [pixels[_voxel(image.affine, case.canals[level])] for level in (Level.L1_L2, Level.L2_L3)]
        assert max(sac) > 1.5 * np.median(pixels[(labels > 0) & (labels < 6)])


def test_fat_that_is_suppressed_gives_its_share_of_the_signal_less() -> None:
    full, water = (Sequence("T2", 3000, 40, fat_kept=kept) for kept in (1.0, 0.0))
    shares = {name: water.signal(TISSUES[name]) / full.signal(TISSUES[name]) for name in ("csf", "marrow", "fat")}
    assert shares == pytest.approx({"csf": 1.0, "marrow": 0.5, "fat": 0.05})


def _voxel(affine: np.ndarray, point_ras_mm: Point) -> tuple[int, ...]:
    return tuple(np.rint(apply_affine(invert_affine(affine), point_ras_mm)).astype(int))


def test_a_folder_of_other_studies_is_not_written_over(tmp_path: Path) -> None:
    path = prepare_phantom(tmp_path, splits={"training": 2}, seed=5, max_matrix=192, water_images=True)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="1 of its studies, such as 900005002, is not"):
        prepare_phantom(tmp_path, splits={"training": 1}, seed=5, max_matrix=192, water_images=True)
    with pytest.raises(OutputError, match="its set 'phantom_water' is not"):
        prepare_phantom(tmp_path, splits={"training": 2}, seed=5, max_matrix=192)
    assert path.read_bytes() == before
