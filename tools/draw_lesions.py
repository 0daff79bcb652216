"""Draw lesions simulated on a phantom study: each on sagittal T2, sagittal T1 and axial T2.

    python tools/draw_lesions.py PREPARED_PHANTOM docs/lesions.png --case 900001004 --level L4/L5

The loss of the sac's section is measured on the sagittal T2.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_spine.anatomy import Level, Side
from monai_spine.crops import best_block
from monai_spine.errors import SpineError
from monai_spine.geometry import Affine
from monai_spine.phantom.lesions import (
    Bulge,
    DiscHeightLoss,
    DiscSignalLoss,
    EpiduralFat,
    Extrusion,
    FacetOvergrowth,
    FlavumThickening,
    Lesion,
    LevelLesions,
    LevelSite,
    Listhesis,
    Protrusion,
    apply_lesions,
    find_sites,
    simulate_lesions,
)
from monai_spine.phantom.lesions.profiles import sample_points
from monai_spine.studies.prepared import Datalist, PreparedCase, read_datalist
from monai_spine.volume import Volume

SHOWN: Mapping[str, tuple[Lesion, ...]] = {
    "before": (),
    "bulge": (Bulge(4.0), DiscSignalLoss(0.6), DiscHeightLoss(0.2)),
    "protrusion,\nleft": (Protrusion(6.5, aside_mm=-4.0), DiscSignalLoss(0.5)),
    "extrusion,\nmigrated down": (Extrusion(8.5, migration_mm=-5.0, half_width_mm=8.0),),
    "flavum and\nfacets": (FlavumThickening(4.5), FacetOvergrowth(4.0, side=Side.LEFT), FacetOvergrowth(4.0, side=Side.RIGHT)),
    "bulge, flavum,\nfacets": (
        Bulge(6.0), FlavumThickening(5.5), FacetOvergrowth(4.0, side=Side.LEFT), FacetOvergrowth(4.0, side=Side.RIGHT),
        DiscSignalLoss(0.7), DiscHeightLoss(0.35),
    ),
    "beside the sac,\nleft": (
        Extrusion(6.0, aside_mm=-15.0, half_height_mm=7.0, migration_mm=6.0),
        FacetOvergrowth(5.0, side=Side.LEFT, half_height_mm=11.0),
    ),
    "epidural fat": (EpiduralFat(6.0),),
    "slip of 7 mm": (Listhesis(7.0), DiscHeightLoss(0.3)),
}  # fmt: skip
"""What is drawn, by its title."""

_STEP_MM = 0.4
_FORAMEN_ASIDE_MM = -17.0
_BAR_MM = 20.0


def load_series(datalist: Datalist, case: PreparedCase, role: str, site: LevelSite) -> tuple[torch.Tensor, Affine]:
    """The block of one kind of series that covers a level best."""
    blocks = []
    for volume in case.volumes:
        if volume.role == role:
            stored = nib.load(datalist.root / volume.image)
            blocks.append(Volume(np.asarray(stored.dataobj, np.float32), np.asarray(stored.affine, float)))
    block = best_block(blocks, site.frame.origin_ras_mm, size_mm=(30.0, 30.0, 4.0))
    return torch.from_numpy(block.array), block.affine


def sagittal(image: torch.Tensor, affine: Affine, site: LevelSite, *, aside_mm: float = 0.0) -> np.ndarray:
    """A sagittal picture (up, behind) around a level, through the column's own plane."""
    frame = site.frame
    behind, up = np.arange(-45.0, 35.0, _STEP_MM), np.arange(-40.0, 40.0, _STEP_MM)
    origin = np.asarray(frame.origin_ras_mm) + aside_mm * frame.right
    points = origin - behind[None, :, None] * frame.front + up[:, None, None] * frame.up
    return np.asarray(sample_points(image, affine, torch.from_numpy(points)))


def axial(image: torch.Tensor, affine: Affine, site: LevelSite) -> np.ndarray:
    """An axial picture (front, aside) at the height of the disc, in the disc's plane."""
    frame = site.frame
    aside, front = np.arange(40.0, -40.0, -_STEP_MM), np.arange(-32.0, 48.0, _STEP_MM)
    origin = np.asarray(frame.origin_ras_mm) + site.margin_up_mm * frame.up
    points = origin + aside[None, :, None] * frame.right + front[:, None, None] * frame.front
    return np.asarray(sample_points(image, affine, torch.from_numpy(points)))


def draw(axes: Axes, picture: np.ndarray, brightest: float, letters: str) -> None:
    """One picture with the letters of its left and right edge and a bar."""
    height, width = (size * _STEP_MM for size in picture.shape)
    axes.imshow(picture, cmap="gray", origin="lower", vmin=0, vmax=brightest, extent=(0, width, 0, height))
    axes.plot([4, 4 + _BAR_MM], [4, 4], color="gold", linewidth=2)
    axes.text(4 + _BAR_MM / 2, 6, f"{_BAR_MM:.0f} mm", color="gold", fontsize=6, ha="center")
    for x, letter in zip((0.05, 0.95), letters, strict=True):
        axes.text(x, 0.93, letter, transform=axes.transAxes, color="gold", fontsize=8, ha="center", va="center")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_sheet(datalist: Datalist, case: PreparedCase, level: Level) -> Figure:
    """All of `SHOWN` on one level: sagittal T2, axial T2 through the disc, sagittal T1 through the left foramen."""
    t2 = next(volume for volume in case.volumes if volume.role == "sagittal_t2")
    stored = nib.load(datalist.root / t2.image)
    image, affine = torch.from_numpy(np.asarray(stored.dataobj, np.float32)), np.asarray(stored.affine, float)
    site = find_sites(image, affine, case.discs, case.canals)[level]
    axial_t2, sagittal_t1 = (load_series(datalist, case, role, site) for role in ("axial_t2", "sagittal_t1"))
    figure = Figure(figsize=(1.75 * len(SHOWN), 5.9), layout="constrained")
    axes = figure.subplots(3, len(SHOWN))
    limits: list[float] = []
    for column, (title, lesions) in zip(axes.T, SHOWN.items(), strict=True):
        plan = [LevelLesions(site, lesions)]
        simulated = simulate_lesions(image, affine, plan)
        pictures = (
            sagittal(simulated.image, affine, site),
            axial(apply_lesions(*axial_t2, plan), axial_t2[1], site),
            sagittal(apply_lesions(*sagittal_t1, plan), sagittal_t1[1], site, aside_mm=_FORAMEN_ASIDE_MM),
        )
        limits = limits or [float(np.percentile(picture, 99.5)) for picture in pictures]
        for place, picture, brightest, letters in zip(column, pictures, limits, ("AP", "RL", "AP"), strict=True):
            draw(place, picture, brightest, letters)
        loss = simulated.losses[level]
        column[0].set_title(f"{title}\n{100 * loss.share:.0f} % lost" if lesions else f"\n{title}", fontsize=9)
    for place, name in zip(axes[:, 0], ("sagittal T2", "axial T2", "sagittal T1, left"), strict=True):
        place.set_ylabel(name, fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantom", type=Path, help="prepared folder of a phantom")
    parser.add_argument("output", type=Path, help="picture to write")
    parser.add_argument("--case", required=True, help="a study of it, normal at the level")
    parser.add_argument("--level", default="L4/L5")
    arguments = parser.parse_args()
    try:
        datalist = read_datalist(arguments.phantom)
        case = next((case for case in datalist.cases if case.case == arguments.case), None)
        if case is None:
            parser.error(f"{arguments.phantom} has no case {arguments.case!r}")
        draw_sheet(datalist, case, Level.parse(arguments.level)).savefig(arguments.output, dpi=110)
    except (SpineError, OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
