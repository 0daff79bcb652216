"""Hold simulated sagittal slices against real ones: intensities, sharpness and noise; and draw the phantom's half of the montage.

    python tools/compare_phantom.py PREPARED_PHANTOM LUMBAR_VOLUMES --montage docs/phantom.png

Slices through the middle of the column are taken at 1 mm, cut to the column's surroundings (±60 mm of the discs' centres), and
divided by their 99th percentile. Prints, per kind of series, the range over real slices and the median over simulated ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve, zoom

from monai_spine.geometry import apply_affine, invert_affine, spacing_of, to_ras_axes
from monai_spine.studies.prepared import Datalist, PreparedCase, read_datalist

Picture = npt.NDArray[np.float64]
MEASURES = ("10th percentile", "median", "90th percentile", "sharpness", "noise")


def column_slice(path: Path, points_ras_mm: npt.ArrayLike) -> Picture:
    """The sagittal slice through points, (A, S) at 1 mm around them, divided by its 99th percentile."""
    image = nib.load(path)
    array, affine = to_ras_axes(np.asanyarray(image.dataobj), np.asarray(image.affine))
    places = apply_affine(invert_affine(affine), points_ras_mm)
    index = int(np.clip(np.round(np.median(places[:, 0])), 0, array.shape[0] - 1))
    _, front, up = spacing_of(affine)
    low = places[:, 1:].min(0) - np.array([60 / front, 25 / up])
    high = places[:, 1:].max(0) + np.array([45 / front, 25 / up])
    (a0, s0), (a1, s1) = np.clip(low, 0, None).astype(int), np.minimum(high, array.shape[1:]).astype(int)
    picture = zoom(np.asarray(array[index, a0:a1, s0:s1], dtype=float), (front, up), order=1)
    return np.asarray(picture / max(np.percentile(picture, 99), 1e-6))


def measure(picture: Picture) -> tuple[float, ...]:
    """The five `MEASURES` of a slice: three percentiles, mean gradient per mm, and noise by Immerkær's estimate."""
    gradient = np.hypot(*np.gradient(picture))
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=float)
    noise = np.sqrt(np.pi / 2) / 6 * np.abs(convolve(picture, kernel)).mean()
    return (*(float(value) for value in np.percentile(picture, [10, 50, 90])), float(gradient.mean()), float(noise))


def real_slices(folder: Path) -> dict[str, list[Picture]]:
    """Real slices by kind: T2 of VB2, IVD and VB1, T1 of VB1."""
    import pandas as pd

    points = pd.read_csv(folder / "points.csv")
    kinds: dict[str, list[Picture]] = {"sagittal_t2": [], "sagittal_t1": []}
    for name, rows in points.groupby("volume"):
        kind = "sagittal_t1" if str(name) in ("VB1_02", "VB1_06") else "sagittal_t2"
        if str(name).startswith(("VB3", "VB1_08")):
            continue
        kinds[kind].append(column_slice(folder / f"{name}.nii.gz", rows[["r_mm", "a_mm", "s_mm"]].to_numpy()))
    return kinds


def phantom_slices(datalist: Datalist, role: str, count: int) -> list[Picture]:
    """Simulated slices of one kind, cut as the real ones are."""
    return [_phantom_slice(datalist, case, role) for case in datalist.cases[:count]]


def _phantom_slice(datalist: Datalist, case: PreparedCase, role: str) -> Picture:
    volume = next(volume for volume in case.volumes if volume.role == role)
    return column_slice(datalist.root / volume.image, np.array(list(case.vertebrae.values())))


def draw_montage(slices: dict[str, list[Picture]], path: Path) -> None:
    """Simulated slices side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.4), layout="constrained")
    axes = figure.subplots(2, 6)
    for row, (role, pictures) in zip(axes, slices.items(), strict=True):
        for axis, picture in zip(row, pictures, strict=False):
            axis.imshow(picture.T, origin="lower", cmap="gray", vmin=0, vmax=1.05)
            axis.axis("off")
        row[0].set_title(f"simulated, {role.replace('_', ' ')}", loc="left", fontsize=10)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantom", type=Path, help="prepared phantom")
    parser.add_argument("lumbar_volumes", type=Path, help="folder of the real volumes")
    parser.add_argument("--montage", type=Path, help="picture to write")
    parser.add_argument("--count", type=int, default=40)
    arguments = parser.parse_args()
    datalist, real = read_datalist(arguments.phantom), real_slices(arguments.lumbar_volumes)
    simulated = {role: phantom_slices(datalist, role, arguments.count) for role in ("sagittal_t2", "sagittal_t1")}
    for role, pictures in simulated.items():
        ours, theirs = (np.array([measure(picture) for picture in some]) for some in (pictures, real[role]))
        print(f"{role}: {len(theirs)} real slices, {len(ours)} simulated")
        for name, mine, other in zip(MEASURES, ours.T, theirs.T, strict=True):
            inside = np.mean((mine >= other.min()) & (mine <= other.max()))
            print(f"  {name:16} real {other.min():.3f}–{other.max():.3f}  simulated {np.median(mine):.3f}  inside {inside:.0%}")
    if arguments.montage:
        draw_montage(simulated, arguments.montage)


if __name__ == "__main__":
    main()
