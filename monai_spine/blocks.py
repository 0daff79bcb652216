"""Sort the slices of a series into blocks: runs of parallel slices at even distances, each with one affine.

Only positions and orientations decide (PS3.3 C.7.6.2.1.1): never InstanceNumber, SliceLocation or SpacingBetweenSlices. Slices
are compared by their centres, so that images of another matrix size over the same field of view stay together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from monai_spine.errors import VolumeGeometryError
from monai_spine.geometry import Triple, normal_of
from monai_spine.instances import Frame

__all__ = ["Block", "plan_blocks"]

ANGLE_TOLERANCE_DEG = 0.5
"""Slices whose rows and columns differ by less are parallel."""
SAME_PLACE_MM = 0.02
"""Slices nearer than this along the normal lie at one position."""
EVEN_SHARE = 0.02
"""Distances that differ by less than this share of one are even (at least 0.02 mm)."""
SHIFT_TOLERANCE_MM = 0.5
"""Slices of one block lie over each other within this distance."""
MIN_SLICES = 3
"""Blocks with fewer slices are flagged: their spacing rests on one distance or none."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """Slices that form one grid.

    Attributes:
        frames: In order of position along the slice normal (row × column direction).
        step_lps_mm: From one slice to the next, LPS mm.
        flags: What was noticed, in words.
    """

    frames: tuple[Frame, ...]
    step_lps_mm: Triple
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Stack:
    """Parallel slices over each other, one per position, sorted; `positions_mm` along the normal."""

    frames: tuple[Frame, ...]
    positions_mm: Floats
    flags: tuple[str, ...]


def plan_blocks(frames: Sequence[Frame]) -> tuple[Block, ...]:
    """Sort slices into blocks.

    Slices are parted by orientation, by where they lie over each other, by repeats of all positions (echoes, time points), and
    where their distance changes. What was parted or left out is flagged.

    Args:
        frames: The slices of one series, in any order.

    Returns:
        Blocks by orientation as first met, then by position.

    Raises:
        VolumeGeometryError: Nothing says where the slices lie, all lie at one position, the stack is sheared (as by a tilted
            gantry), or their distances are uneven. The message names the gap or the shift.
    """
    placed = [frame for frame in frames if frame.is_placed]
    if not placed:
        raise VolumeGeometryError(
            f"None of {len(frames)} slices says where it lies (ImagePositionPatient, ImageOrientationPatient, PixelSpacing): "
            "they form no volume. Export the original series; screen captures and reformatted pictures lack these."
        )
    unplaced = len(frames) - len(placed)
    flags = [f"{unplaced} of {len(frames)} slices left out: they have no position"] if unplaced else []
    groups = _by_orientation(placed)
    if len(groups) > 1:
        flags.append(f"slices of {len(groups)} orientations: split into one block or more for each")
    blocks = [block for group in groups for block in _blocks_of_parallel(group)]
    return tuple(replace(block, flags=(*flags, *block.flags)) for block in blocks)


def _by_orientation(frames: Iterable[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    smallest = np.cos(np.deg2rad(ANGLE_TOLERANCE_DEG))
    for frame in frames:
        for group in groups:
            if (np.sum(frame.directions * group[0].directions, axis=1) > smallest).all():
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _blocks_of_parallel(frames: list[Frame]) -> list[Block]:
    normal = normal_of(frames[0].directions)
    centers = np.array([frame.center_lps_mm for frame in frames])
    positions = centers @ normal
    _refuse_one_place(frames, positions)
    lateral = centers - positions[:, None] * normal
    _refuse_shear(positions, lateral)
    blocks = []
    for members in _clusters(lateral):
        chosen = [frames[k] for k in members]
        for stack in _repeats(chosen, positions[members]):
            blocks += _even_blocks(stack, normal)
    return sorted(blocks, key=lambda block: float(block.frames[0].center_lps_mm @ normal))


def _refuse_one_place(frames: Sequence[Frame], positions: Floats) -> None:
    if len(frames) > 1 and np.ptp(positions) < SAME_PLACE_MM:
        raise VolumeGeometryError(
            f"All {len(frames)} slices of one orientation lie at one position ({positions[0]:.2f} mm along their normal): "
            "a series over time or a monitoring scan, no volume. Choose another series."
        )


def _refuse_shear(positions: Floats, lateral: Floats) -> None:
    """Refuse slices that move sideways in proportion to their position: no stack of MR slices does."""
    if len(positions) < 2 or np.ptp(positions) < SAME_PLACE_MM:
        return
    along, aside = positions - positions.mean(), lateral - lateral.mean(axis=0)
    slope = along @ aside / (along @ along)
    shift = np.linalg.norm(slope) * np.ptp(positions)
    residual = np.linalg.norm(aside - along[:, None] * slope, axis=1).max()
    if shift > SHIFT_TOLERANCE_MM and residual < 0.1 * shift:
        places = np.unique(positions.round(2))
        raise VolumeGeometryError(
            f"The slices are sheared: each lies {np.linalg.norm(slope):.3f} mm aside per millimetre along their normal "
            f"({np.rad2deg(np.arctan(np.linalg.norm(slope))):.1f} degrees, {shift:.1f} mm over the stack), as with a tilted "
            "gantry. "
            f"{_describe_gaps(places)}No grid of rectangular voxels fits. Reformat the series without tilt."
        )


def _clusters(lateral: Floats) -> list[list[int]]:
    """Slices that lie over each other: indices into `lateral`."""
    groups: list[list[int]] = []
    for index, place in enumerate(lateral):
        for group in groups:
            if np.linalg.norm(place - lateral[group[0]]) <= SHIFT_TOLERANCE_MM:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _repeats(frames: Sequence[Frame], positions: Floats) -> list[_Stack]:
    """One stack where each position is taken once; several where all are taken equally often."""
    shelves = _shelves(frames, positions)
    counts = {len(shelf) for shelf in shelves}
    places = np.array([positions[shelf].mean() for shelf in shelves])
    if counts == {1}:
        return [_Stack(tuple(frames[shelf[0]] for shelf in shelves), places, ())]
    if len(counts) == 1 and len(shelves) > 1:
        count = counts.pop()
        flag = "volume {} of {}: the series takes every position that often (echoes or time points)"
        turns = [tuple(frames[shelf[turn]] for shelf in shelves) for turn in range(count)]
        return [_Stack(chosen, places, (flag.format(turn + 1, count),)) for turn, chosen in enumerate(turns)]
    commonest = Counter(frame.acquisition for frame in frames).most_common(1)[0][0]
    kept = tuple(min((frames[k] for k in shelf), key=lambda frame: frame.acquisition != commonest) for shelf in shelves)
    doubled = ", ".join(f"{place:.1f}" for place, shelf in zip(places, shelves, strict=True) if len(shelf) > 1)
    dropped = len(frames) - len(kept)
    flag = f"{dropped} of {len(frames)} slices left out: their positions are taken twice (at {doubled} mm along the normal)"
    return [_Stack(kept, places, (flag,))]


def _shelves(frames: Sequence[Frame], positions: Floats) -> list[list[int]]:
    """Indices of the slices at each position, in order of position; within one, by echo and time."""
    shelves: list[list[int]] = []
    for index in np.argsort(positions, kind="stable"):
        if shelves and positions[index] - positions[shelves[-1][0]] < SAME_PLACE_MM:
            shelves[-1].append(int(index))
        else:
            shelves.append([int(index)])
    return [sorted(shelf, key=lambda k: (frames[k].echo_time_ms or 0.0, *frames[k].order)) for shelf in shelves]


def _even_blocks(stack: _Stack, normal: Floats) -> list[Block]:
    """Part a stack where the distance of its slices changes."""
    gaps = np.diff(stack.positions_mm)
    if len(gaps) == 0:
        return [_lone_slice(stack.frames[0], normal, flags=stack.flags)]
    usual = _commonest_gap(gaps)
    if _is_even(gaps, usual).all():
        return [_block(stack.frames, normal, flags=stack.flags)]
    for key in (lambda frame: frame.acquisition, lambda frame: (frame.rows, frame.columns)):
        parts = _parts(stack, key)
        if len(parts) > 1 and all(len(part.frames) > 2 and _is_even(np.diff(part.positions_mm), None).all() for part in parts):
            flag = f"{len(parts)} overlapping stacks: parted by acquisition"
            return [_block(part.frames, normal, flags=(*part.flags, flag)) for part in parts]
    if _is_even(gaps, usual).sum() < 2:
        raise VolumeGeometryError(
            f"The distances of {len(stack.frames)} parallel slices are uneven, and no three of them form a grid. "
            f"{_describe_gaps(stack.positions_mm)}Nothing was filled in: export the whole series."
        )
    return _split_at_gaps(stack, normal, gaps)


def _parts(stack: _Stack, key: Callable[[Frame], Hashable]) -> list[_Stack]:
    parts: dict[Hashable, list[int]] = {}
    for index, frame in enumerate(stack.frames):
        parts.setdefault(key(frame), []).append(index)
    return [_Stack(tuple(stack.frames[k] for k in part), stack.positions_mm[part], stack.flags) for part in parts.values()]


def _split_at_gaps(stack: _Stack, normal: Floats, gaps: Floats) -> list[Block]:
    usual = _commonest_gap(gaps)
    flags = (*stack.flags, f"{_describe_gaps(stack.positions_mm)}The series is split there")
    blocks = []
    for start, stop in _runs(gaps):
        frames = stack.frames[start:stop]
        if len(frames) > 1:
            blocks.append(_block(frames, normal, flags=flags))
        else:
            lone = f"one slice stands alone; its neighbours lie {usual:.2f} mm apart, and so much is taken as its height"
            blocks.append(Block(frames, _triple(normal * usual), (*flags, lone)))
    return blocks


def _runs(gaps: Floats) -> list[tuple[int, int]]:
    """Part slices into runs of even gaps, the longest first; the ends are (start, stop) of slices."""
    stretches, start = [], 0
    for index in range(1, len(gaps) + 1):
        if index == len(gaps) or not _is_even(gaps[index : index + 1], gaps[start])[0]:
            stretches.append((start, index + 1))
            start = index
    usual = _commonest_gap(gaps)
    owner = np.full(len(gaps) + 1, -1)
    by_length = sorted(stretches, key=lambda ends: (ends[0] - ends[1], gaps[ends[0]]))
    for number, (first, stop) in enumerate(by_length):
        free = [k for k in range(first, stop) if owner[k] < 0]
        if len(free) > 1 and (stop - first > 2 or _is_even(gaps[first : first + 1], usual)[0]):
            owner[free] = number
    lone = owner < 0
    owner[lone] = len(stretches) + np.arange(lone.sum())
    breaks = [0, *(np.flatnonzero(np.diff(owner)) + 1), len(owner)]
    return [(int(first), int(stop)) for first, stop in pairwise(breaks)]


def _block(frames: tuple[Frame, ...], normal: Floats, *, flags: tuple[str, ...]) -> Block:
    ends = frames[-1].center_lps_mm - frames[0].center_lps_mm
    if len(frames) < MIN_SLICES:
        flags = (*flags, f"only {len(frames)} slices: their distance of {ends @ normal:.2f} mm is confirmed by no third")
    return Block(frames, _triple(ends / (len(frames) - 1)), flags)


def _lone_slice(frame: Frame, normal: Floats, *, flags: tuple[str, ...]) -> Block:
    thickness = frame.slice_thickness_mm
    if thickness and thickness > 0:
        flag = f"one slice: its height is SliceThickness, {thickness:g} mm"
        return Block((frame,), _triple(normal * thickness), (*flags, flag))
    flag = "one slice of unknown thickness: across it the affine says a direction (of length 1), no distance"
    return Block((frame,), _triple(normal), (*flags, flag))


def _is_even(gaps: Floats, usual: float | None) -> npt.NDArray[np.bool_]:
    usual = float(np.median(gaps)) if usual is None else usual
    return np.asarray(np.abs(gaps - usual) <= max(EVEN_SHARE * usual, SAME_PLACE_MM))


def _commonest_gap(gaps: Floats) -> float:
    """The gap that most others equal; of several, the smallest."""
    votes = [(-int(_is_even(gaps, gap).sum()), float(gap)) for gap in gaps]
    return min(votes)[1]


def _describe_gaps(positions: Floats) -> str:
    """Name each uneven gap of sorted positions; empty where all are even."""
    gaps = np.diff(positions)
    if len(gaps) == 0:
        return ""
    usual = _commonest_gap(gaps)
    uneven = [k for k in range(len(gaps)) if not _is_even(gaps[k : k + 1], usual)[0]]
    named = [f"{gaps[k]:.2f} mm between the slices at {positions[k]:.2f} and {positions[k + 1]:.2f} mm" for k in uneven[:3]]
    more = f" and {len(uneven) - 3} more" if len(uneven) > 3 else ""
    return f"Uneven gap: {', '.join(named)}{more}, where others lie {usual:.2f} mm apart. " if uneven else ""


def _triple(vector: Floats) -> Triple:
    return float(vector[0]), float(vector[1]), float(vector[2])
