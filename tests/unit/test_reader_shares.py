"""Where it is known what all readers would say, training learns from that, and validation still from the one grade."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from monai_spine.anatomy import TARGETS, Condition, Severity
from monai_spine.errors import TableError
from monai_spine.phantom.readers import reader_posterior, reader_shares
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, PreparedVolume, read_datalist, write_datalist
from monai_spine.training.grading_crops import GradingCrops, items_of
from monai_spine.training.losses import GradeLoss

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import reader_shares as tool

CANAL = [target for target in TARGETS if target.condition is Condition.SPINAL_CANAL_STENOSIS]
CROP = {"role": "sagittal_t2", "size_mm": [8.0, 8.0, 8.0], "shape": [4, 4, 4], "mirror_right": False, "offset_mm": {}}


def prepared(folder: Path, shares: tuple[float, float, float] | None) -> Path:
    """Two studies of a small scan, each with a canal that one reader called moderate."""
    cases = []
    for name in ("1", "2"):
        (folder / "volumes").mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.ones((16, 16, 16), np.float32), np.eye(4)), folder / "volumes" / f"{name}.nii")
        volumes = (PreparedVolume(f"volumes/{name}.nii", "sagittal_t2"),)
        targets = {CANAL[0]: PreparedTarget((8.0, 8.0, 8.0), Severity.MODERATE, shares=shares)}
        cases.append(PreparedCase(name, name, volumes, targets=targets))
    splits = {"training": ["1"], "validation": ["2"]}
    write_datalist(folder, study="replica", source="simulated", cases=cases, splits=splits)
    return folder


def items(*folders: Path, split: str = "training") -> list[dict[str, object]]:
    return items_of(list(folders), split, condition="spinal_canal_stenosis", role="sagittal_t2")


def test_training_learns_from_shares_and_validation_from_the_grade(tmp_path: Path) -> None:
    folder = prepared(tmp_path, (0.25, 0.5, 0.25))
    assert [item["shares"] for item in items(folder)] == [[0.25, 0.5, 0.25]]
    assert ["shares" in item for item in items(folder, split="validation")] == [False]
    assert GradingCrops(items(folder), CROP).facts(0)["label"].tolist() == [0.25, 0.5, 0.25]


def test_studies_with_and_without_shares_go_into_one_batch(tmp_path: Path) -> None:
    crops = GradingCrops(items(prepared(tmp_path / "a", (0.25, 0.5, 0.25)), prepared(tmp_path / "b", None)), CROP)
    labels = torch.utils.data.default_collate([crops.facts(at)["label"] for at in range(len(crops))])
    assert labels.tolist() == [[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]]
    assert float(GradeLoss()(torch.tensor([[0.25, 0.5, 0.25]] * 2).log(), labels)) == pytest.approx(
        (1.0397 + 0.6931) / 2, abs=1e-3
    )


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.5, 0.6, 0.2], [1.5, -0.5, 0.0], "moderate"])
def test_shares_that_are_none_are_refused(tmp_path: Path, shares: object) -> None:
    path = prepared(tmp_path, (0.25, 0.5, 0.25)) / "datalist.json"
    document = json.loads(path.read_text())
    document["cases"][0]["targets"][CANAL[0].slug]["shares"] = shares
    path.write_text(json.dumps(document))
    with pytest.raises(TableError, match="schema"):
        read_datalist(path)


def test_the_shares_of_one_finding_are_those_of_the_best_possible_score() -> None:
    latents = np.linspace(-3, 3, len(TARGETS))
    one_by_one = [reader_shares(target, latent) for target, latent in zip(TARGETS, latents, strict=True)]
    np.testing.assert_allclose(one_by_one, reader_posterior(latents[None])[0], atol=1e-12)
    assert reader_shares(TARGETS[0], -np.inf) == (1.0, 0.0, 0.0)


def test_a_replica_is_graded_by_all_readers(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "prepared", None)
    latents = pd.DataFrame([[1, *[0.0] * 25], [2, *[5.0] * 25]], columns=["study_id", *(target.slug for target in TARGETS)])
    latents.to_csv(tmp_path / "latents.csv", index=False)
    assert tool.main([str(folder), "--latents", str(tmp_path / "latents.csv"), "-o", str(tmp_path / "out")]) == 0
    first, second = (case.targets[CANAL[0]] for case in read_datalist(tmp_path / "out").cases)
    assert first.severity is second.severity is Severity.MODERATE
    assert first.shares == pytest.approx((0.5, 0.4655, 0.0345), abs=1e-3)
    assert second.shares == pytest.approx((0.0, 0.0, 1.0), abs=1e-3)
    assert len(items(tmp_path / "out")) == 1


def test_latents_of_another_replica_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = prepared(tmp_path / "prepared", None)
    pd.DataFrame([[9, *[0.0] * 25]], columns=["study_id", *(target.slug for target in TARGETS)]).to_csv(
        tmp_path / "l.csv", index=False
    )
    assert tool.main([str(folder), "--latents", str(tmp_path / "l.csv"), "-o", str(tmp_path / "out")]) == 2
    assert "2 of 2 cases have no latents, such as 1" in capsys.readouterr().err
