"""Pairs of views of unlabelled places."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import list_data_collate
from tiny_prepared import write_tiny_prepared

from monai_spine.errors import TableError
from monai_spine.geometry import apply_affine, invert_affine
from monai_spine.training.views import PairedViews, PairLoss, partners_found, places_of

CROP = {"role": "sagittal_t2", "size_mm": [28, 40, 40], "shape": [4, 10, 10], "mirror_right": False, "offset_mm": {}}
JITTER = {"shift_mm": (2.0, 3.0, 3.0), "rotation_deg": 10.0, "scale": 0.1, "flip": True}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=2)


def test_places_lie_in_the_middle_of_every_scan_of_the_plane(prepared: Path) -> None:
    places = places_of([prepared, prepared], "training", role="sagittal_t2", per_scan=3)
    assert len(places) == 2 * 2 * 2 * 3
    assert {Path(place["image"]).stem for place in places} == {"sagittal_t1_0", "sagittal_t2_0"}
    for place in places:
        stored = nib.load(place["image"])
        where = apply_affine(invert_affine(stored.affine), place["point_ras_mm"]) / np.asarray(stored.shape)
        assert (where >= 0.1).all()
        assert (where <= 0.8).all()


def test_places_are_drawn_where_there_is_tissue(tmp_path: Path, prepared: Path) -> None:
    """Half of each scan is made air."""
    folder = write_tiny_prepared(tmp_path, cases=1)
    for path in folder.rglob("*.nii"):
        stored = nib.load(path)
        voxels = np.asanyarray(stored.dataobj).copy()
        voxels[voxels.shape[0] // 2 :] = 0
        nib.save(nib.Nifti1Image(voxels, stored.affine), path)
    for place in places_of(folder, "training", role="axial_t2", per_scan=20):
        stored = nib.load(place["image"])
        index = np.round(apply_affine(invert_affine(stored.affine), place["point_ras_mm"])).astype(int)
        assert stored.dataobj[tuple(index)] > 0


def test_the_same_seed_draws_the_same_places(prepared: Path) -> None:
    one, same, other = (places_of(prepared, "training", role="axial_t2", per_scan=2, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_a_folder_without_scans_of_the_plane_is_refused(prepared: Path) -> None:
    with pytest.raises(TableError, match=r"no coronal scan in split 'training' of .*Prepare data that has this split"):
        places_of(prepared, "training", role="coronal_t2", per_scan=2)


def test_partners_follow_one_another_in_a_batch_and_differ(prepared: Path) -> None:
    places = places_of(prepared, "training", role="sagittal_t2", per_scan=2)
    views = PairedViews(places, crop=CROP, jitter=JITTER, seed=3)
    batch = list_data_collate([views[0], views[1]])
    assert batch["image"].shape == (4, 1, 4, 10, 10)
    assert batch["label"].tolist() == [0, 0, 1, 1]
    assert not torch.equal(batch["image"][0], batch["image"][1])
    views.set_random_state(3)
    assert torch.equal(list_data_collate([views[0], views[1]])["image"], batch["image"])


def test_the_loss_is_small_where_partners_are_alike_and_strangers_are_not() -> None:
    alike = torch.eye(4).repeat_interleave(2, dim=0)
    labels = torch.arange(4).repeat_interleave(2)
    apart = alike[torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])]
    loss = PairLoss(temperature=0.1)
    assert loss(alike, labels) < 0.01 < 5 < loss(apart, labels)
    assert partners_found(alike, labels) == 1
    assert partners_found(torch.eye(4).repeat(2, 1), labels) == 0


def test_the_loss_is_that_of_simclr() -> None:
    """Each view's cross-entropy over all others, at a temperature."""
    views = torch.nn.functional.normalize(torch.randn(6, 5), dim=1)
    logits = (views @ views.T / 0.2).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 0, 3, 2, 5, 4]))
    torch.testing.assert_close(PairLoss(0.2)(views), expected)
