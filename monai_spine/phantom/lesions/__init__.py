"""Lesions simulated on real or simulated anatomy: tissue is pushed into the canal, and what the sac loses is measured.

    sites = find_sites(image, affine, discs, canals)                     # where the sac is, on sagittal T2
    plan = [LevelLesions(sites[Level.L4_L5], (Protrusion(6.0), FlavumThickening(2.0)))]
    result = simulate_lesions(image, affine, plan)                       # result.losses[Level.L4_L5].share
    axial = apply_lesions(axial_image, axial_affine, plan)               # the same lesions on another series

    profiles.py  intensities on lines across the canal, and where the sac ends
    canals.py    where the canal lies behind marked discs
    sites.py     the column's frame at a level, and the sac's borders
    fields.py    smooth displacements that fold nothing
    kinds.py     bulge, protrusion, extrusion, flavum, facet, fat, slip, loss of height and signal
    plans.py     which lesions at which levels
    bases.py     levels that may bear a lesion
    signal.py    the brightness of new tissue
    losses.py    the share of the sac that is lost, its latent and its grade
    simulate.py  images with lesions          draw.py  random lesions
    study.py     a prepared study of them

These are simulations. No reader has graded them; nothing says that they look, or mean, what a patient's disease does.
"""

from monai_spine.phantom.lesions.bases import base_levels, disc_grades
from monai_spine.phantom.lesions.canals import find_canals
from monai_spine.phantom.lesions.draw import FAMILIES, USUAL_WEIGHTS, draw_lesions
from monai_spine.phantom.lesions.kinds import (
    Bulge,
    DiscHeightLoss,
    DiscSignalLoss,
    EpiduralFat,
    Extrusion,
    FacetOvergrowth,
    FlavumThickening,
    Lesion,
    Listhesis,
    Protrusion,
)
from monai_spine.phantom.lesions.losses import CanalLoss, measure_losses, severity_of_share
from monai_spine.phantom.lesions.plans import LevelLesions
from monai_spine.phantom.lesions.simulate import SimulatedScan, apply_lesions, simulate_lesions
from monai_spine.phantom.lesions.sites import LevelSite, find_sites

__all__ = [
    "FAMILIES",
    "USUAL_WEIGHTS",
    "Bulge",
    "CanalLoss",
    "DiscHeightLoss",
    "DiscSignalLoss",
    "EpiduralFat",
    "Extrusion",
    "FacetOvergrowth",
    "FlavumThickening",
    "Lesion",
    "LevelLesions",
    "LevelSite",
    "Listhesis",
    "Protrusion",
    "SimulatedScan",
    "apply_lesions",
    "base_levels",
    "disc_grades",
    "draw_lesions",
    "find_canals",
    "find_sites",
    "measure_losses",
    "severity_of_share",
    "simulate_lesions",
]
