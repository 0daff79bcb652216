"""A prepared folder of tiny made-up cases: a bright cylinder as the canal, a spot at each target, the darker the severer."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from monai_spine.anatomy import DISC_GRADES, LEVELS, TARGETS, VERTEBRA_GRADES, Condition, Severity, Side, Vertebra
from monai_spine.geometry import Affine, apply_affine, invert_affine
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, PreparedVolume, write_datalist

ROLE_OF = {
    Condition.SPINAL_CANAL_STENOSIS: "sagittal_t2",
    Condition.NEURAL_FORAMINAL_NARROWING: "sagittal_t1",
    Condition.SUBARTICULAR_STENOSIS: "axial_t2",
}
SHAPES = {"sagittal_t2": (110, 180, 14), "sagittal_t1": (110, 180, 14), "axial_t2": (90, 90, 44)}


def affine_of(role: str) -> Affine:
    """As scanners store them: sagittal slices count to the left, axial ones to the head; columns to the back or the left."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    if role == "axial_t2":
        affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = (-1, 0, 0), (0, -1, 0), (0, 0, 4), (44, 44, -86)
    else:
        affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = (0, -1, 0), (0, 0, -1), (-4, 0, 0), (26, 60, 92)
    return affine


def canal_points() -> dict:
    return {level: (0.0, 0.0, 70.0 - 35.0 * at) for at, level in enumerate(LEVELS)}


def write_tiny_prepared(folder: Path, *, cases: int = 3, seed: int = 0) -> Path:
    """Write `cases` cases to each of training, validation and test, and return the folder."""
    rng = np.random.default_rng(seed)
    splits = enumerate(("training", "validation", "test"), start=1)
    names = {split: [f"{at}{number:02d}" for number in range(cases)] for at, split in splits}
    made = [_case(folder, name, rng) for split in names.values() for name in split]
    write_datalist(folder, study="tiny", source="simulated", cases=made, splits=names)
    return folder


def _case(folder: Path, name: str, rng: np.random.Generator) -> PreparedCase:
    canals = canal_points()
    targets = {}
    for target in TARGETS:
        outwards = {None: 0.0, Side.LEFT: -1.0, Side.RIGHT: 1.0}[target.side]
        offset = 16.0 if target.condition is Condition.NEURAL_FORAMINAL_NARROWING else 9.0
        r, a, s = canals[target.level]
        targets[target] = PreparedTarget((r + outwards * offset, a, s), list(Severity)[int(rng.integers(3))])
    volumes = [_volume(folder, name, role, targets, rng) for role in SHAPES]
    discs = {level: (r, a + 24.0, s) for level, (r, a, s) in canals.items()}
    bodies = {Vertebra(f"L{at + 2}"): (r, a + 24.0, s - 17.5) for at, (r, a, s) in enumerate(list(canals.values())[:4])}
    return PreparedCase(
        case=name,
        patient=name,
        volumes=tuple(volumes),
        discs=discs,
        canals=canals,
        vertebrae=bodies,
        targets=targets,
        degeneration={one.label: str(rng.choice(VERTEBRA_GRADES if one in bodies else DISC_GRADES)) for one in (*discs, *bodies)},
        schmorl_nodes={level.label: level is LEVELS[1] for level in discs},
    )


def _volume(folder: Path, name: str, role: str, targets: dict, rng: np.random.Generator) -> PreparedVolume:
    affine, shape = affine_of(role), SHAPES[role]
    index = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1)
    place = apply_affine(affine, index)
    image = 300.0 + 400.0 * (np.linalg.norm(place[..., :2], axis=-1) < 8) + rng.normal(0, 15, shape)
    for target, found in targets.items():
        if ROLE_OF[target.condition] == role and found.severity is not None:
            image[_near(affine, found.point_ras_mm, shape)] -= 120.0 * found.severity.index
    path = folder / "volumes" / name / f"{role}_0.nii"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.clip(image, 0, None).astype(np.int16), affine), path)
    return PreparedVolume(image=str(path.relative_to(folder)), role=role)


def _near(affine: Affine, point: tuple[float, float, float], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Voxels within 4 mm (6 mm across thick slices) of a point."""
    middle = apply_affine(invert_affine(affine), point)
    reach = np.maximum(1, 4 / np.linalg.norm(affine[:3, :3], axis=0))
    low = np.clip(np.round(middle - reach), 0, np.asarray(shape) - 1).astype(int)
    high = np.clip(np.round(middle + reach), 0, np.asarray(shape) - 1).astype(int)
    return tuple(slice(start, stop + 1) for start, stop in zip(low, high, strict=True))
