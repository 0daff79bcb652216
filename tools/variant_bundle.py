"""Make a bundle that analyses can use of weights that were trained with an overlay of another network or other crops.

    python tools/variant_bundle.py two_branch_canal -o work/our_bundles --bundle spinal_canal_stenosis_grading \\
        --weights work/runs/canal.pt --trained-on "RSNA 2024, training split of fold 0"
    monai-spine analyze path/to/study -o results --bundles work/our_bundles

OUT is a folder of bundles; where it is not there yet, those of the repository are copied. In it the bundle is replaced:
`configs/training/NAME.json` is laid over its train.json, `configs/inference/NAME.json` over its inference.json and
`configs/metadata/NAME.json` over its metadata, where there are such files. The weights are tried and exported as TorchScript, and
their SHA-256 is recorded. Nothing is replaced before all of this has worked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ckpt_export

from monai_spine.errors import OutputError, SpineError, WeightsError
from monai_spine.weights import WEIGHT_FILES, bundle_folder, find_bundle, metadata_text, record_weights

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
LAID_OVER = {"train": "training", "inference": "inference", "metadata": "metadata"}
"""Which folder of overlays belongs to which config of a bundle."""


def write_variant(overlay: str, out: Path, *, bundle: str, weights: Path, trained_on: str, folder: Path | None = None) -> Path:
    """Write a bundle with an overlay and the weights that were trained with it.

    Args:
        overlay: Name of files in `configs/training`, `configs/inference` and `configs/metadata`.
        out: Folder of bundles.
        bundle: Name of the bundle.
        weights: State dict, such as `ckpt_path` of a training.
        trained_on: On what, in a few words; every report repeats it.
        folder: Bundles to start from; None: those of the repository.

    Returns:
        Folder of the new bundle.

    Raises:
        OutputError: OUT is the folder to start from.
        WeightsError: There is no such overlay or bundle, or the weights do not fit it.
    """
    if not (CONFIGS / "training" / f"{overlay}.json").is_file():
        there = ", ".join(sorted(path.stem for path in (CONFIGS / "training").glob("*.json")))
        raise WeightsError(f"There is no overlay {overlay!r} in {CONFIGS / 'training'}. Choose from: {there}.")
    source = bundle_folder(folder)
    if out.resolve() == source.resolve():
        raise OutputError(f"{out} holds the bundles to start from, which would be overwritten. Choose another folder with -o.")
    root = find_bundle(bundle, source).root
    if not out.exists():
        shutil.copytree(source, out, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    beside = out / f".{bundle}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shutil.copytree(root, beside, ignore=shutil.ignore_patterns("runs", "__pycache__", "model.*"))
        _lay_over(beside, overlay, trained_on)
        _add_weights(beside, weights)
        shutil.rmtree(out / bundle, ignore_errors=True)
        beside.rename(out / bundle)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out / bundle


def _lay_over(root: Path, overlay: str, trained_on: str) -> None:
    for config, where in LAID_OVER.items():
        path, over = root / "configs" / f"{config}.json", CONFIGS / where / f"{overlay}.json"
        content = ConfigParser.load_config_files([str(path), *([str(over)] if over.is_file() else [])])
        if config == "metadata":
            path.write_text(metadata_text({**content, **_origin(content, trained_on)}), encoding="utf-8")
        else:
            path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    readme = root / "docs" / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    note = f"> Made with the overlay `{overlay}`, trained on {trained_on}. Where this page says otherwise, the configs are right."
    readme.parent.mkdir(exist_ok=True)
    readme.write_text(f"{note}\n\n{text}", encoding="utf-8")


def _origin(metadata: dict[str, Any], trained_on: str) -> dict[str, str]:
    """What the metadata say of where the weights come from."""
    return {
        "data_source": trained_on,
        "intended_use": "Research only, not for diagnosis.",
        "training_data": trained_on,
        "notice": f"{metadata['name']}: trained on {trained_on}.",
    }


def _add_weights(root: Path, weights: Path) -> None:
    """Copy the weights, see that they fit, export them, and record their hashes."""
    if not weights.is_file():
        raise WeightsError(f"There are no weights at {weights}. Give the ckpt_path of a training with --weights.")
    state, script = (root / name for name in WEIGHT_FILES)
    state.parent.mkdir(exist_ok=True)
    shutil.copyfile(weights, state)
    record_weights(root)
    find_bundle(root.name, root.parent).network()
    configs = root / "configs"
    ckpt_export(
        "network_def",
        filepath=str(script),
        ckpt_file=str(state),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
    )
    record_weights(root)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overlay", help="name in configs/training, such as two_branch_canal")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of bundles")
    parser.add_argument("--bundle", required=True, help="name of the bundle")
    parser.add_argument("--weights", type=Path, required=True, help="ckpt_path of the training")
    parser.add_argument("--trained-on", required=True, help="what the weights were trained on, in a few words")
    given = parser.parse_args(arguments)
    try:
        root = write_variant(given.overlay, given.output, bundle=given.bundle, weights=given.weights, trained_on=given.trained_on)
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"Written: {root}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
