"""A study head for graders that are trained: what they see of whole studies, and a bundle of the head that learnt from it.

    python tools/study_head.py features work/others -o work/features
    python -m monai.bundle run training --config_file configs/study_head/train.json \\
        --dataset_dir work/features --output_dir work/runs/study_head
    python tools/study_head.py bundle work/runs/study_head/model.pt --features work/features -o work/our_bundles

The studies of `features` must be ones that the graders were not trained on: of these, their answers are too good to learn from.
Where the graders come from a cross-validation, `tools/cross_validate.py --head` takes from each what it held out.

`bundle` writes `lumbar_study_head` into a folder of bundles; `monai-spine analyze --bundles` applies it to the graders beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from cross_validation.head import CONFIGS, Look, look

from monai_spine.anatomy import Condition
from monai_spine.console import progress_reporter
from monai_spine.errors import OutputError, SpineError, TableError, WeightsError
from monai_spine.models import GRADERS
from monai_spine.networks.study_head import StudyHead
from monai_spine.study_grades import STUDY_HEAD
from monai_spine.training.study_features import StudyFeatures, read_features, widths_of
from monai_spine.weights import WEIGHT_FILES, find_bundle, metadata_text, record_weights, verify_bundle


def write_features(prepared: Path, out: Path, *, training: str, validation: str, folder: Path | None = None) -> None:
    """Let the graders of a folder look at two splits of a prepared study; write `training.npz` and `validation.npz`.

    Raises:
        WeightsError: A grader is missing, altered, or cannot be run.
        TableError: The data list cannot be read, or has no such split.
    """
    bundles = [find_bundle(name, folder) for name in GRADERS.values()]
    for bundle in bundles:
        verify_bundle(bundle)
    weights = {bundle.root: bundle.root / WEIGHT_FILES[0] for bundle in bundles}
    with progress_reporter() as reporter:
        for number, (name, split) in enumerate({"training": training, "validation": validation}.items()):
            reporter.step(number / 2, f"features of {split}")
            look(Look(weights, prepared, split, out / f"{name}.npz"))


def write_bundle(weights: Path, features: Path, out: Path) -> Path:
    """Make a bundle of a trained study head.

    Args:
        weights: Its state dict.
        features: Folder of what it was trained on.
        out: Folder of bundles.

    Returns:
        The bundle's folder.

    Raises:
        OutputError: It is there already.
        TableError: The features cannot be read, or come from several trainings of a grader.
        WeightsError: The weights cannot be read or belong to another network.
    """
    studies, root = read_features(features / "training.npz"), out / STUDY_HEAD
    if root.exists():
        raise OutputError(f"{root} is there already. Remove it, or choose another folder.")
    state = _state(weights)
    widths = widths_of(features / "training.npz") if any(name.startswith("from_features.") for name in state) else {}
    try:
        StudyHead(widths).load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{weights} does not fit a study head of these features: {error}") from error
    inference = json.loads((CONFIGS / "inference.json").read_text(encoding="utf-8"))
    metadata = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))
    inference |= {"widths": widths, "graders": _graders(studies) if widths else {}}
    source = str(studies.source)
    metadata |= {"training_data": source, "notice": f"Study head: trained on the graders' answers on {source} images."}
    beside = root.with_name(f".{STUDY_HEAD}.part")
    shutil.rmtree(beside, ignore_errors=True)
    for part in ("configs", "models"):
        (beside / part).mkdir(parents=True)
    shutil.copyfile(weights, beside / WEIGHT_FILES[0])
    (beside / "configs" / "inference.json").write_text(json.dumps(inference, indent=4) + "\n", encoding="utf-8")
    (beside / "configs" / "metadata.json").write_text(metadata_text(metadata), encoding="utf-8")
    record_weights(beside)
    return beside.rename(root)


def _state(path: Path) -> dict[str, torch.Tensor]:
    try:
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and key errors of many kinds for one cause
        raise WeightsError(
            f"{path} cannot be read as weights ({error}). Give the model.pt of a study head's training."
        ) from error
    return state


def _graders(studies: StudyFeatures) -> dict[str, str]:
    """The weights whose features the head knows, by condition."""
    named = zip(Condition, studies.widths.tolist(), studies.grader.tolist(), strict=True)
    known = {condition.slug: sha256 for condition, width, sha256 in named if width}
    if "" in known.values():
        raise TableError(
            "These features come from several trainings of a grader, so that a head that knows them belongs to none. "
            "Train it with --use_features False, or on the features of one."
        )
    return known


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        if given.what == "features":
            splits = {"training": given.training, "validation": given.validation}
            write_features(given.prepared, given.output, folder=given.bundle_folder, **splits)
            print(f"Features are in {given.output}")
        else:
            print(f"Study head: {write_bundle(given.weights, given.features, given.output)}")
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    features = commands.add_parser("features", help="let the graders look at whole studies")
    features.add_argument("prepared", type=Path, help="folder of a prepared study, none of which the graders were trained on")
    features.add_argument("-o", "--output", type=Path, required=True, help="folder of training.npz and validation.npz")
    features.add_argument("--training", default="training", metavar="SPLIT", help="the split that a head is trained on")
    features.add_argument("--validation", default="validation", metavar="SPLIT", help="the split that chooses the epoch")
    features.add_argument("--bundle-folder", type=Path, help="where the graders lie; default: those of the repository")
    bundle = commands.add_parser("bundle", help="make a bundle of a trained study head")
    bundle.add_argument("weights", type=Path, help="model.pt of the training")
    bundle.add_argument("--features", type=Path, required=True, help="folder of what it was trained on")
    bundle.add_argument("-o", "--output", type=Path, required=True, help="folder of bundles")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
