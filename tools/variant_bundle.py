"""Make a bundle that analyses can use of weights that you have trained.

    python tools/variant_bundle.py -o work/our_bundles --bundle spinal_canal_stenosis_grading \\
        --weights work/runs/canal.pt --trained-on "RSNA 2024, training split of fold 0"
    monai-spine analyze path/to/study -o results --bundles work/our_bundles

OUT is a folder of bundles; where it is not there yet, those of the repository are copied. In it the bundle is replaced. Where the
training had an overlay of another network or other crops, such as `two_branch_canal` or `slices_2d`, name it first: what there is
of that name in `configs/architectures`, `training`, `inference` and `metadata` is laid over the bundle's own configs. The weights
are tried and exported as TorchScript, and their SHA-256 is recorded. Nothing is replaced before all of this has worked.
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
LAID_OVER = {
    "train": ("architectures", "training"),
    "inference": ("architectures", "inference"),
    "metadata": ("metadata",),
}
"""Which folders of overlays belong to which config of a bundle."""


_UNFITTED = {"temperature": 1.0, "referral": None}
"""What was fitted to the weights that were there, as it is before it is fitted to others."""


def overlay_names() -> list[str]:
    """The overlays that change what an analysis has to do."""
    return sorted(path.stem for kind in ("architectures", "inference") for path in (CONFIGS / kind).glob("*.json"))


def write_variant(
    overlay: str | None, out: Path, *, bundle: str, weights: Path, trained_on: str, folder: Path | None = None
) -> Path:
    """Write a bundle with your weights, and with the overlay that they were trained with.

    Args:
        overlay: Of `overlay_names`; None where the network and its crops are the bundle's own.
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
    if overlay is not None and overlay not in overlay_names():
        raise WeightsError(
            f"There is no overlay {overlay!r} that changes a network or its crops. Choose from: {', '.join(overlay_names())}; "
            "after a training with other overlays (losses, mixing) name none."
        )
    if not weights.is_file():
        raise WeightsError(f"There are no weights at {weights}. Give the ckpt_path of a training with --weights.")
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


def _lay_over(root: Path, overlay: str | None, trained_on: str) -> None:
    for config, folders in LAID_OVER.items():
        path = root / "configs" / f"{config}.json"
        over = [CONFIGS / folder / f"{overlay}.json" for folder in folders]
        content = ConfigParser.load_config_files([str(path), *(str(file) for file in over if overlay and file.is_file())])
        if config == "metadata":
            path.write_text(metadata_text({**content, **_origin(content, trained_on)}), encoding="utf-8")
        else:
            content |= {name: value for name, value in _UNFITTED.items() if name in content}
            path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    readme = root / "docs" / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    made = f"Made with the overlay `{overlay}`, trained" if overlay else "Trained"
    note = f"> {made} on {trained_on}. Where this page says otherwise, the configs are right."
    readme.parent.mkdir(exist_ok=True)
    readme.write_text(f"{note}\n\n{text}", encoding="utf-8")


def _origin(metadata: dict[str, Any], trained_on: str) -> dict[str, str]:
    """What the metadata say of where the weights come from."""
    return {
        "data_source": trained_on,
        "intended_use": "Research only, not for diagnosis.",
        "training_data": trained_on,
        "notice": f"{metadata['name']}: trained on {trained_on}; not validated against readers.",
    }


def _add_weights(root: Path, weights: Path) -> None:
    """Copy the weights, see that they fit, export them, and record their hashes."""
    state, script = (root / name for name in WEIGHT_FILES)
    state.parent.mkdir(exist_ok=True)
    shutil.copyfile(weights, state)
    record_weights(root)
    try:
        find_bundle(root.name, root.parent).network()
    except WeightsError as error:
        raise WeightsError(f"{weights} cannot be used: {error}") from error
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
    parser.add_argument("overlay", nargs="?", help="of another network or other crops, such as two_branch_canal; default: none")
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
