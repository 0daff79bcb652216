"""Write the grading bundles from the one template in `tools/grading_bundle`; those of discs and of single slices with what
differs laid over it.

    python tools/build_bundles.py [--check]

With `--check` nothing is written; files that differ from the template are listed, and the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monai_spine.anatomy import Condition, Level
from monai_spine.degeneration import DEGENERATION
from monai_spine.geometry import Triple
from monai_spine.models import SLICE_GRADERS
from monai_spine.placement import CANAL_OFFSET_MM
from monai_spine.referral import Referral
from monai_spine.weights import WEIGHT_FILES, metadata_text

REPOSITORY = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).resolve().parent / "grading_bundle"
LAID_OVER: Mapping[str, Path] = {
    DEGENERATION: TEMPLATE.parent / "disc_bundle",
    SLICE_GRADERS[Condition.SPINAL_CANAL_STENOSIS]: TEMPLATE.parent / "slice_bundle",
}
"""What bundles that are made of the canal's have of their own: sections of configs by their ids (`train#data`; null takes one
away), and whole documents."""
TEMPLATE_FILES = (
    "configs/metadata.json",
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/multi_gpu_train.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
)


SUBARTICULAR_OFFSET_MM: Mapping[Level, Triple] = {
    Level.L1_L2: (9.1, 5.4, 0.0),
    Level.L2_L3: (8.6, 4.6, 0.0),
    Level.L3_L4: (8.1, 4.0, 0.0),
    Level.L4_L5: (7.7, 4.8, 0.0),
    Level.L5_S1: (8.5, 4.7, 0.0),
}
FORAMINAL_OFFSET_MM: Mapping[Level, Triple] = {
    Level.L1_L2: (15.4, 2.6, 7.3),
    Level.L2_L3: (16.1, 3.6, 8.1),
    Level.L3_L4: (17.0, 5.1, 8.1),
    Level.L4_L5: (17.9, 8.0, 9.0),
    Level.L5_S1: (18.9, 11.9, 6.9),
}
"""Medians of the real points of 479 RSNA 2024 studies in their replicas (`tools/measure_offsets.py`), on which the weights were
trained: a network is shown at work what it was shown in training. `placement.FORAMINAL_OFFSET_MM` comes to the same from the
tables alone."""


_REFERS = (
    "On {findings} findings of 100 simulated studies that it has never seen: {referred} % are referred to a reader; "
    "{rest} % of the rest are graded wrong, {gone} % of those referred, {all} % of all."
)
"""As `tools/choose_referral.py` prints it: `--coverage 0.9` on 71 replicas, `--check` on 100 phantom studies."""


_FROM_SIMULATED = "simulated images: shows the path, grades no patient"
_FROM_REAL_BASES = "simulated stenosis, partly on real anatomy: not validated against readers"


@dataclass(frozen=True)
class GradingBundle:
    """What one grading bundle differs in from the others.

    Attributes:
        condition: What it grades.
        role: Kind of series, as in `series.Role`.
        size_mm: Edges of the crop along R, A, S.
        shape: Voxels of the crop along R, A, S.
        offset_mm: Per level: outwards, to the front, to the head of the canal's centre.
        shift_mm: Largest random shift in training along R, A, S.
        thin_axis: The axis across the slices.
        where: Where the crop is centred, in words.
        referral: Above which expected risk findings are referred, and what that comes to.
        temperature: What logits are divided by, fitted on 100 simulated studies that it never saw.
        last_epochs: How its weights were trained in the end, in words.
        real_bases: It has also learnt from lesions simulated on real pictures.
    """

    condition: Condition
    role: str
    size_mm: Triple
    shape: tuple[int, int, int]
    offset_mm: Mapping[Level, Triple]
    shift_mm: Triple
    thin_axis: int
    where: str
    referral: Referral
    epochs: int = 14
    temperature: float = 1.0
    real_bases: bool = False
    last_epochs: str = ""

    @property
    def name(self) -> str:
        return f"{self.condition.slug}_grading"

    @property
    def has_side(self) -> bool:
        return len(self.condition.sides) > 1

    def crop(self) -> dict[str, Any]:
        """The crop section of `train.json` and `inference.json`."""
        return {
            "role": self.role,
            "size_mm": self.size_mm,
            "shape": self.shape,
            "mirror_right": self.has_side,
            "on_slice": self.role == "axial_t2",
            "at_foramen": self.condition is Condition.NEURAL_FORAMINAL_NARROWING,
            "min_coverage": 0.5,
            "offset_mm": {level.label: offset for level, offset in self.offset_mm.items()},
        }

    def jitter(self) -> dict[str, Any]:
        return {"shift_mm": self.shift_mm, "rotation_deg": 10.0, "scale": 0.1, "flip": not self.has_side}

    def network(self) -> dict[str, Any]:
        """Group normalisation does not depend on the batch: training with several processes gives what one process gives."""
        return {
            "_target_": "DenseNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": "@classes",
            "init_features": 16,
            "growth_rate": 16,
            "block_config": [4, 4, 4],
            "norm": ["group", {"num_groups": 4}],
            "dropout_prob": "@dropout",
        }

    def variables(self, root: Path) -> dict[str, Any]:
        """Everything that the template names."""
        title = f"{self.condition.label.capitalize()} grading"
        series = self.role.replace("_t", " T")
        sides = "the right is mirrored onto the left; one network sees both" if self.has_side else "none"
        return {
            "name": self.name,
            "title": title,
            "task": f"Grade {self.condition.label} on lumbar MRI",
            "description": f"Grades {self.condition.label} as Normal/Mild, Moderate or Severe, on one crop of a {series} series "
            f"per {'side and level' if self.has_side else 'level'}.",
            "image_classes": f"one channel: a crop of a {series} series, normalised to mean 0 and deviation 1",
            "condition": self.condition.slug,
            "part": self.condition.score_group,
            "series": series,
            "where": self.where,
            "sides": sides,
            "size_text": " × ".join(f"{edge:g}" for edge in self.size_mm),
            "shape_text": " × ".join(str(size) for size in self.shape),
            "epochs": self.epochs,
            "thin_axis": self.thin_axis,
            "crop": _block(self.crop()),
            "jitter": _block(self.jitter()),
            "network": _block(self.network()),
            "referral": _block({"expected_risk": self.referral.expected_risk, "meaning": self.referral.meaning}),
            "referred": self.referral,
            "temperature": self.temperature,
            "real_bases": self.real_bases,
            "last_epochs": self.last_epochs,
            "learnt_from": _FROM_REAL_BASES if self.real_bases else _FROM_SIMULATED,
            "shape": json.dumps(self.shape),
            "weights_sha256": _block(_hashes(root)),
        }


BUNDLES: tuple[GradingBundle, ...] = (
    GradingBundle(
        condition=Condition.SPINAL_CANAL_STENOSIS,
        role="sagittal_t2",
        size_mm=(28.0, 64.0, 44.0),
        shape=(16, 88, 60),
        offset_mm=CANAL_OFFSET_MM,
        shift_mm=(2.0, 3.0, 3.0),
        thin_axis=0,
        epochs=10,
        real_bases=True,
        where="the centre of the canal at the height of the disc",
        temperature=0.849,
        last_epochs="seven epochs at a learning rate of 0.0016 and six at 0.0012\n"
        "on crops of 40 mm, then six at 0.0015 on those that show the disc too, on 657 replicas and 70 phantom studies,\n"
        "on copies of 329 of the replicas and three of each phantom study with simulated lesions, and on 1,140 copies of\n"
        "real pictures with lesions",
        referral=Referral(0.3216, _REFERS.format(findings="500", referred=6.6, rest=3.4, gone=64, all=7.4)),
    ),
    GradingBundle(
        condition=Condition.NEURAL_FORAMINAL_NARROWING,
        role="sagittal_t1",
        size_mm=(24.0, 44.0, 44.0),
        shape=(16, 56, 56),
        offset_mm=FORAMINAL_OFFSET_MM,
        shift_mm=(4.0, 4.5, 4.5),
        thin_axis=0,
        epochs=7,
        where="the foramen: 16 mm (L1/L2) to 19 mm (L5/S1) to the side of the canal's centre (found by its fat)",
        temperature=1.137,
        last_epochs="eight epochs at a learning rate of 0.0016,\n"
        "then five at 0.0012 on 329 replicas and 70 phantom studies, with copies of each (of the latter three) with\n"
        "simulated lesions",
        referral=Referral(0.4286, _REFERS.format(findings="996", referred="8.0", rest=10.7, gone=51, all="14.0")),
    ),
    GradingBundle(
        condition=Condition.SUBARTICULAR_STENOSIS,
        role="axial_t2",
        size_mm=(44.0, 44.0, 20.0),
        shape=(56, 56, 16),
        offset_mm=SUBARTICULAR_OFFSET_MM,
        shift_mm=(3.0, 3.0, 5.0),
        thin_axis=2,
        where="8 to 9 mm to the side of the canal's centre, 5 mm in front, on the nearest slice of the block that covers it best",
        temperature=1.128,
        last_epochs="six epochs at a learning rate of 0.0014,\n"
        "then five at 0.0012 on 657 replicas and 70 phantom studies, with copies of 329 and three of each with simulated lesions",
        referral=Referral(0.4340, _REFERS.format(findings="993", referred=9.7, rest=12.8, gone=44, all=15.8)),
    ),
)
"""The grading bundles of this repository."""


def rendered(bundle: GradingBundle, root: Path) -> dict[str, str]:
    """Every templated file of a bundle, by its path in the bundle.

    Args:
        bundle: What to write.
        root: Folder of the bundle, whose weight files are hashed.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    variables = bundle.variables(root)
    texts = {name: environment.get_template(name).render(variables) for name in TEMPLATE_FILES}
    texts["configs/metadata.json"] = metadata_text(json.loads(texts["configs/metadata.json"]))
    return {**texts, "LICENSE": (REPOSITORY / "LICENSE").read_text(encoding="utf-8"), "models/.gitkeep": ""}


def rendered_over(name: str, root: Path) -> dict[str, str]:
    """Every file of a bundle that is the canal's with something laid over it, by its path in the bundle.

    Args:
        name: Of `LAID_OVER`.
        root: Folder of the bundle, whose weight files are hashed.
    """
    canal = BUNDLES[0]
    texts = {file: text.replace(canal.name, name) for file, text in rendered(canal, root).items()}
    for path in sorted(LAID_OVER[name].glob("*/*")):
        file, text = path.relative_to(LAID_OVER[name]).as_posix(), path.read_text(encoding="utf-8")
        texts[file] = metadata_text(_laid_over(json.loads(texts[file]), json.loads(text))) if path.suffix == ".json" else text
    return texts


def _laid_over(config: dict[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in sections.items():
        *outer, last = [key] if key in config else key.split("#")
        place = reduce(dict.__getitem__, outer, config)
        place.pop(last, None) if value is None else place.update({last: value})
    return config


def _files(folder: Path) -> dict[str, str]:
    """Every file of all bundles, by its path in the folder of bundles."""
    texts = {bundle.name: rendered(bundle, folder / bundle.name) for bundle in BUNDLES}
    texts |= {name: rendered_over(name, folder / name) for name in LAID_OVER}
    return {f"{bundle}/{name}": text for bundle, files in texts.items() for name, text in files.items()}


def drifted(folder: Path) -> list[str]:
    """Paths in a folder of bundles whose files are not what the template gives."""
    return [
        name
        for name, text in _files(folder).items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def write_bundles(folder: Path) -> None:
    """Write all grading bundles into a folder; their weights are left as they are."""
    for name, text in _files(folder).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _block(value: Any) -> str:
    """JSON that is indented to stand as a value one level deep; short lists stay on one line."""
    entries = [f"        {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items()]
    return "{\n" + ",\n".join(entries) + "\n    }" if entries else "{}"


def _hashes(root: Path) -> dict[str, str]:
    present = [name for name in WEIGHT_FILES if (root / name).is_file()]
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in present}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, list what differs")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "bundles", help="folder of bundles")
    arguments = parser.parse_args()
    if not arguments.check:
        write_bundles(arguments.folder)
        return 0
    differing = drifted(arguments.folder)
    print("\n".join(differing))
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
