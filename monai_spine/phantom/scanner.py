"""A simulated scanner: where slices lie, how thick they are, and what the coil, the noise and the reconstruction do to them.

Pictures are drawn at the acquired resolution, averaged over the slice's thickness, shaded by the coil, given complex noise, and
zero-filled in k-space to the stored matrix, as scanners do.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.geometry import Affine, Point, Triple
from monai_spine.phantom.render import Patient, Points, marrow_texture, paint_background, paint_column
from monai_spine.phantom.tissues import Sequence

__all__ = ["Exposure", "SliceStack", "acquire", "body_labels"]

Floats = npt.NDArray[np.floating[Any]]

_COARSE = 6
_COLUMN_HALF_WIDTH_MM, _COLUMN_BACK_MM, _COLUMN_FRONT_MM = 46.0, -54.0, 44.0
_LAYERS = 3


@dataclass(frozen=True)
class SliceStack:
    """Parallel slices of one orientation.

    Attributes:
        centers_ras_mm: Middle of each slice in storage order, RAS+ mm, shape (n, 3).
        row_ras: Unit direction along a row (columns ascending).
        column_ras: Unit direction down a column (rows ascending).
        field_of_view_mm: Height and width of a slice.
        acquired: Rows and columns that are measured.
        stored: Rows and columns that are stored.
        thickness_mm: Of a slice.
    """

    centers_ras_mm: npt.NDArray[np.float64]
    row_ras: Triple
    column_ras: Triple
    field_of_view_mm: tuple[float, float]
    acquired: tuple[int, int]
    stored: tuple[int, int]
    thickness_mm: float

    @property
    def normal_ras(self) -> npt.NDArray[np.float64]:
        """Row direction × column direction."""
        return np.cross(self.row_ras, self.column_ras)

    def pixel_mm(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Distance of rows and of columns for a matrix of this shape."""
        return self.field_of_view_mm[0] / shape[0], self.field_of_view_mm[1] / shape[1]

    def first_voxel_ras_mm(self, index: int) -> Point:
        """Centre of the stored pixel (0, 0) of one slice."""
        (down, across), (rows, columns) = self.pixel_mm(self.stored), self.stored
        corner = self.centers_ras_mm[index] - np.asarray(self.row_ras) * across * (columns - 1) / 2
        r, a, s = corner - np.asarray(self.column_ras) * down * (rows - 1) / 2
        return float(r), float(a), float(s)

    def affine(self) -> Affine:
        """Voxel (column, row, slice) to RAS+ mm; slices in storage order."""
        down, across = self.pixel_mm(self.stored)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = np.asarray(self.row_ras) * across, np.asarray(self.column_ras) * down
        steps = len(self.centers_ras_mm) - 1
        length = self.centers_ras_mm[-1] - self.centers_ras_mm[0]
        affine[:3, 2] = length / steps if steps else self.normal_ras * self.thickness_mm
        affine[:3, 3] = self.first_voxel_ras_mm(0)
        return affine


@dataclass(frozen=True)
class Exposure:
    """What differs from series to series.

    Attributes:
        noise: Standard deviation relative to the brightest tissue of the picture.
        coil_depth_mm: Distance over which the signal falls to 1/e, from the back.
        shading: Strength of the slow shading, 0 to 1.
        blur_px: Point spread, standard deviation in acquired pixels.
        peak: Stored value of the brightest tissue.
    """

    noise: float
    coil_depth_mm: float
    shading: float
    blur_px: float
    peak: float


def acquire(
    patient: Patient, stack: SliceStack, exposures: Listed[tuple[Sequence, Exposure]], rng: np.random.Generator
) -> list[npt.NDArray[np.uint16]]:
    """Scan one stack with one or more sequences.

    Returns:
        For each sequence the stored pixels, uint16, shape (slices, rows, columns).
    """
    sequences = [sequence for sequence, _ in exposures]
    signal = _draw(patient, stack, sequences)
    shape = (stack.centers_ras_mm.shape[0], *stack.acquired)
    drawn = zip(signal.reshape(-1, *shape), exposures, strict=True)
    return [_reconstruct(picture, stack, patient, exposure, rng) for picture, (_, exposure) in drawn]


def body_labels(patient: Patient, stack: SliceStack) -> npt.NDArray[np.uint8]:
    """True vertebral bodies on the stored grid, shape (slices, rows, columns): 1–7 for L1–L5, S1 and T12."""
    coarse = replace(stack, acquired=stack.stored)
    points = _grid(patient, coarse, 0.0)
    rows = patient.profiles.index_of(points.s)
    depth, width, waist, into = (patient.profiles.at(name, rows) for name in ("depth", "width", "waist", "into_body"))
    inside = (points.u / (width / 2 * waist)) ** 2 + ((points.v - depth / 2) / (depth / 2 * waist * 1.12)) ** 2 < 1
    inside &= (into > 0.5) & (points.v > 0)
    labels = np.zeros(points.s.shape, dtype=np.uint8)
    for value, name in enumerate(("L1", "L2", "L3", "L4", "L5", "S1", "T12"), start=1):
        low, high = patient.spine.body_s_mm[name]
        labels[inside & (points.s > low) & (points.s < high)] = value
    return labels.reshape(len(stack.centers_ras_mm), *stack.stored)


def _draw(patient: Patient, stack: SliceStack, sequences: Listed[Sequence]) -> Floats:
    """Signals (sequences, n) at the acquired resolution; the surroundings of the column as the mean of layers of the slice."""
    middle = _grid(patient, stack, 0.0)
    signal = _draw_background(patient, stack, sequences)
    column = (np.abs(middle.u) < _COLUMN_HALF_WIDTH_MM) & (middle.v > _COLUMN_BACK_MM) & (middle.v < _COLUMN_FRONT_MM)
    background, bone = signal[:, column], marrow_texture(patient, middle.where(column))
    mean = np.zeros_like(background)
    for layer in range(_LAYERS):
        offset = ((layer + 0.5) / _LAYERS - 0.5) * stack.thickness_mm
        points = _grid(patient, stack, offset).where(column)
        mean += paint_column(patient, sequences, points, background=background, bone=bone) / _LAYERS
    signal[:, column] = mean
    return signal


def _draw_background(patient: Patient, stack: SliceStack, sequences: Listed[Sequence]) -> Floats:
    """The surroundings at half the resolution, refined: nothing in them is graded."""
    half = replace(stack, acquired=(stack.acquired[0] // 2, stack.acquired[1] // 2))
    signal = paint_background(patient, sequences, _grid(patient, half, 0.0))
    rows, columns = (_refinement(small, size) for small, size in zip(half.acquired, stack.acquired, strict=True))
    pictures = signal.reshape(-1, *half.acquired)
    return np.asarray((rows @ pictures @ columns.T).reshape(len(sequences), -1))


def _grid(patient: Patient, stack: SliceStack, offset_mm: float) -> Points:
    """Column coordinates of every acquired pixel, all slices in a row; the map is smooth, so it is drawn coarsely and refined."""
    down, across = stack.pixel_mm(stack.acquired)
    rows, columns = (np.linspace(-0.5, 0.5, size // _COARSE + 1) * (size - 1) for size in stack.acquired)
    middle = stack.centers_ras_mm[:, None, None] + stack.normal_ras * offset_mm
    places = middle + (rows * down)[:, None, None] * stack.column_ras + (columns * across)[:, None] * np.asarray(stack.row_ras)
    fields = patient.unevenness.displace(*patient.spine.curve.from_ras(places))
    refine_rows, refine_columns = (_refinement(size // _COARSE + 1, size) for size in stack.acquired)
    u, v, s = ((refine_rows @ field @ refine_columns.T).ravel() for field in fields)
    return Points(u, v, s)


def _refinement(coarse: int, fine: int) -> Floats:
    """Matrix (fine, coarse) that interpolates linearly between evenly spaced samples."""
    position = np.linspace(0, coarse - 1, fine)
    low = np.minimum(position.astype(int), coarse - 2)
    matrix = np.zeros((fine, coarse), dtype=np.float32)
    matrix[np.arange(fine), low] = 1 - (position - low)
    matrix[np.arange(fine), low + 1] = position - low
    return matrix


def _reconstruct(
    signal: Floats, stack: SliceStack, patient: Patient, exposure: Exposure, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """Shade, blur, add noise to the complex picture, and zero-fill to the stored matrix; magnitude as uint16."""
    from scipy import fft

    reference = float(np.percentile(signal[::3], 99.5))
    shaded = signal / reference * _coil(stack, patient, exposure, rng)
    rows, columns = stack.stored
    out = np.empty((len(shaded), rows, columns), dtype=np.uint16)
    window = _window(stack.acquired, exposure.blur_px)
    for index, picture in enumerate(shaded):
        noise = rng.standard_normal((*picture.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        noise *= exposure.noise * np.float32(picture.size**0.5)
        spectrum = fft.fftshift(fft.fft2(picture)) * window + noise
        magnitude = np.abs(fft.ifft2(fft.ifftshift(_fit(spectrum, (rows, columns)))))
        magnitude *= rows * columns / (stack.acquired[0] * stack.acquired[1])
        out[index] = np.clip(magnitude * exposure.peak, 0, 65535)
    return out


def _coil(stack: SliceStack, patient: Patient, exposure: Exposure, rng: np.random.Generator) -> Floats:
    """Signal falls from the coil in the table towards the belly; a slow shading lies over it."""
    coarse = replace(stack, acquired=tuple(max(8, size // 8) for size in stack.acquired))  # type: ignore[arg-type]
    down, across = coarse.pixel_mm(coarse.acquired)
    rows, columns = (np.arange(size) - (size - 1) / 2 for size in coarse.acquired)
    places = (
        stack.centers_ras_mm[:, None, None]
        + (rows * down)[:, None, None] * np.asarray(stack.column_ras)
        + (columns * across)[:, None] * np.asarray(stack.row_ras)
    )
    back = patient.spine.curve.points_ras_mm[:, 1].mean() - patient.spine.canal_depth_mm - patient.spine.muscle_mm
    falloff = np.exp(-np.clip(places[..., 1] - back, -20, None) / exposure.coil_depth_mm)
    phase = rng.uniform(0, 2 * np.pi, 3)
    waves = np.sin(places / rng.uniform(90, 180, 3) * 2 * np.pi + phase).mean(-1)
    field = (falloff / np.median(falloff)) ** 0.8 * (1 + exposure.shading * waves)
    refine_rows, refine_columns = (_refinement(small, size) for small, size in zip(coarse.acquired, stack.acquired, strict=True))
    return np.asarray(refine_rows @ field.astype(np.float32) @ refine_columns.T)


def _window(shape: tuple[int, int], blur_px: float) -> Floats:
    """Point spread in k-space, centred."""
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(size)) for size in shape)
    return np.asarray(np.exp(-2 * (np.pi * blur_px) ** 2 * (rows[:, None] ** 2 + columns**2)), dtype=np.float32)


def _fit(spectrum: npt.NDArray[np.complex128], shape: tuple[int, int]) -> npt.NDArray[np.complex128]:
    """Cut or zero-fill a centred spectrum to another matrix."""
    out = np.zeros(shape, dtype=spectrum.dtype)
    source, target = [], []
    for have, want in zip(spectrum.shape, shape, strict=True):
        size = min(have, want)
        source.append(slice(have // 2 - size // 2, have // 2 - size // 2 + size))
        target.append(slice(want // 2 - size // 2, want // 2 - size // 2 + size))
    out[tuple(target)] = spectrum[tuple(source)]
    return out
