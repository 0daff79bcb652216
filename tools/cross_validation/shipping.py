"""Bundles that grade with the networks of all folds at once: `monai-spine analyze --bundles FOLDER` needs nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from cross_validation.runs import AUGMENT, Plan
from monai_spine.ensemble import joined_state
from monai_spine.errors import OutputError
from monai_spine.referral import Referral
from monai_spine.studies.prepared import read_datalist
from monai_spine.weights import WEIGHT_FILES, find_bundle, metadata_text, record_weights

__all__ = ["ship"]

README = """# {name}: an ensemble

{description}

**For research use, not for diagnosis.** {notice}

Version {version}. `tools/cross_validate.py --ship` wrote this bundle in the place of the single network of version {single},
whose weights and figures are not in it. What the ensemble reaches stands in the `report.md` of that cross-validation.

| | |
|---|---|
| networks | those of {members}; the mean of their probabilities is the answer |
| weights | all in `models/model.pt`; SHA-256 of each under `members` of `configs/metadata.json` |
| trained on | {data_source} |
| looks | {looks} |
| temperature | {temperature}, fitted on all folds |
| refers | {referred} |

`configs/inference.json` says all of this. `configs/train.json` and `configs/evaluate.json` are those of the single network: they
train and evaluate one member, without the overlays of the cross-validation.
"""
_LEFT_OUT = shutil.ignore_patterns("runs", "*.ts", "__pycache__")


def ship(plan: Plan, folder: Path, temperatures: Mapping[str, float], referrals: Mapping[str, Referral]) -> None:
    """Write a folder of bundles: those of the repository, and in place of each grader of the plan the ensemble of its folds.

    Each holds the members' weights in one file, whose SHA-256 stands in its metadata beside those of the members. Its
    `inference.json` says the rest: the looks of test-time augmentation where the plan has it, the temperature, the referral.

    Args:
        plan: What was run.
        folder: New folder.
        temperatures: Of each condition (slug).
        referrals: Of each condition (slug); a condition without one refers nothing.

    Raises:
        OutputError: The folder is there already.
        WeightsError: The weights do not fit the network, as where an overlay takes it from names that `inference.json` lacks.
    """
    if folder.exists():
        raise OutputError(f"{folder} is there already. Choose another folder for the bundles, or remove it.")
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    for root in sorted({path.parents[1] for bundle in plan.bundles for path in bundle.parent.glob("*/configs/metadata.json")}):
        shutil.copytree(root, beside / root.name, ignore=_LEFT_OUT if root in plan.bundles else shutil.ignore_patterns("runs"))
    for bundle in plan.bundles:
        _write_ensemble(plan, bundle, beside / bundle.name, temperatures, referrals)
        find_bundle(bundle.name, beside).network()
    beside.rename(folder)


def _write_ensemble(
    plan: Plan, bundle: Path, root: Path, temperatures: Mapping[str, float], referrals: Mapping[str, Referral]
) -> None:
    contents = {fold: plan.weights_of(bundle, fold).read_bytes() for fold in plan.folds}
    states = [torch.load(io.BytesIO(found), map_location="cpu", weights_only=True) for found in contents.values()]
    torch.save(joined_state(states), root / WEIGHT_FILES[0])
    path = root / "configs" / "inference.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    condition = str(document["condition"])
    config = _inference(document, _training(plan, bundle), members=len(states), augment=plan.augment)
    config["temperature"] = round(temperatures.get(condition, 1.0), 4)
    config["referral"] = _section(referrals.get(condition))
    path.write_text(json.dumps(config, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    hashes = {fold: hashlib.sha256(found).hexdigest() for fold, found in contents.items()}
    metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    described = {
        **metadata,
        **_version(metadata, len(states)),
        **_origin(plan, str(metadata.get("name", bundle.name)), len(states)),
    }
    (root / "configs" / "metadata.json").write_text(metadata_text({**described, "members": hashes}), encoding="utf-8")
    record_weights(root)
    (root / "docs").mkdir(exist_ok=True)
    readme = _readme(plan, described, metadata.get("version"), config)
    (root / "docs" / "README.md").write_text(readme, encoding="utf-8")


def _training(plan: Plan, bundle: Path) -> ConfigParser:
    """The bundle's `train.json` with the overlays that its networks were trained with, and the looks of `AUGMENT`."""
    parser = ConfigParser()
    parser.read_config([str(path) for path in (bundle / "configs" / "train.json", *plan.overlays, *plan.second, AUGMENT)])
    return parser


def _inference(document: dict[str, Any], training: ConfigParser, *, members: int, augment: bool) -> dict[str, Any]:
    """`inference.json` with so many networks, each as it was trained."""
    config = {**document, "crop": training["crop"], "member": training["network_def"]}
    config["network_def"] = {"_target_": "monai_spine.ensemble.Ensemble", "members": ["%member"] * members}
    if augment:
        looks = training.get_parsed_content("looks")
        config["inferer"] = {"_target_": training["validate"]["inferer"]["_target_"], "crop": "@crop", **looks}
    return config


def _section(referral: Referral | None) -> dict[str, Any] | None:
    return None if referral is None else {"expected_risk": referral.expected_risk, "meaning": referral.meaning}


def _version(metadata: Mapping[str, Any], members: int) -> dict[str, Any]:
    """A version that no single network has: 0.4.0 becomes 0.4.0+ensemble5."""
    version = f"{metadata.get('version', '0')}+ensemble{members}"
    news = f"{members} networks of a cross-validation in the place of one"
    return {"version": version, "changelog": {version: news, **metadata.get("changelog", {})}}


def _readme(plan: Plan, metadata: Mapping[str, Any], single: str | None, config: Mapping[str, Any]) -> str:
    """What this ensemble is.

    Args:
        plan: What was run.
        metadata: The ensemble's own.
        single: Version of the bundle that it was made from.
        config: Its `inference.json`.
    """
    referral = config["referral"]
    said = {
        "single": single,
        "members": ", ".join(plan.folds),
        "looks": "several at each crop: moved, turned and, where it has no side, mirrored"
        if plan.augment
        else "one at each crop",
        "temperature": config["temperature"],
        "referred": f"above an expected risk of {referral['expected_risk']}. {referral['meaning']}" if referral else "nothing",
    }
    return README.format_map({"name": "Grading", "description": "", **metadata, **said})


def _origin(plan: Plan, name: str, members: int) -> dict[str, Any]:
    """What the weights were trained on, for metadata and reports."""
    datalists = [read_datalist(plan.datalist_of(fold)) for fold in plan.folds]
    studies = {case for one in datalists for split in ("training", "validation") for case in one.splits.get(split, ())}
    source, study = datalists[0].source, datalists[0].study
    what = f"{name}: {members} networks of a cross-validation, trained on {len(studies)} {source} studies of {study}"
    return {
        "training_data": source,
        "data_source": f"{source} studies of {study}",
        "notice": f"{what}: shows the path, grades no patient." if source == "simulated" else f"{what}.",
    }
