"""What speaks for and against a series: its plane, its weighting by TE, TR and TI, and how it compares with others."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monai_spine.errors import VolumeGeometryError
from monai_spine.geometry import PlaneOrientation, normal_of, plane_orientation
from monai_spine.instances import Frame, Tags
from monai_spine.study import Series

__all__ = ["MIN_SAGITTAL_SLICES", "Facts", "Finding", "read_facts", "weigh"]

# Usual values in ms: T1 TR 500-700, TE 8-15; T2 TR 3000-6000, TE 90-120; STIR TI 150-170; T1 FLAIR (3 T) TI 700-1100, TE 10-25.
T1_MAX_TE_MS, T1_MAX_TR_MS = 35.0, 1300.0
T2_MIN_TE_MS, T2_MIN_TR_MS = 55.0, 1500.0
STIR_TI_MS = (80.0, 300.0)
T1_FLAIR_TI_MS = (500.0, 1300.0)
MIN_SAGITTAL_SLICES = 3

_DERIVED_WORDS = frozenset(("MPR", "REFORMATTED", "RESAMPLED", "MIP", "MINIP", "CPR", "ADC", "FA", "TRACEW", "DIFFUSION"))
_DERIVED_WORDS |= frozenset(("SUBTRACTION", "PERFUSION", "PHASE", "T1MAP", "T2MAP"))
Floats = npt.NDArray[np.float64]

_LOCALIZER = re.compile(r"\b(loc|locali[sz]er|scout|survey|3 ?plane|three ?plane|aascout|plan)\b")
_AXIAL = re.compile(r"\b(ax|axial|axl|tra|transversal|transverse|trans)\b|\bt[12] ?(ax|tra)|\b(ax|tra)t[12]")
_OTHER_REGION = re.compile(r"\b([ct] ?spine|cspine|tspine|cerv\w*|thor\w*|bws|hws|brain|head|si ?joints?|pelvis|hip)\b")
_LUMBAR = re.compile(r"\b(l ?spine|lspine|ls ?spine|lumb\w*|lws)\b")
_FAT_SATURATED = re.compile(r"\b(fs|fatsat|fat ?sat|spair|spir|stir|tirm)\b")
_AFTER_CONTRAST = re.compile(r"\b(post|gd|gad|km|contrast)\b|\+ ?c\b")


_ADVANTAGES = (
    "is original, not derived",
    "shows the lumbar spine",
    "is without contrast agent",
    "is a spin echo",
    "is without fat suppression",
)


@dataclass(frozen=True)
class Finding:
    """A role by its value, or None, and the reason in words."""

    role: str | None
    reason: str


@dataclass(frozen=True)
class Facts:
    """What a series' headers say.

    Attributes:
        plane: The plane of most slices, or None where nothing says it.
        planes: Slices in each plane.
        tilt_deg: Angle of most slices' normal to the axis of that plane.
        slices: Number of slices.
        extent_mm: From the first slice to the last, at most over all orientations.
        pixel_mm: Edge of a pixel, the coarser one.
        words: Description and protocol, lower case, words parted by spaces.
        missing: Attributes that place a slice, where the first slice lacks them.
        identity: Equal for series of the same slices and timing; None where positions are missing.
    """

    plane: PlaneOrientation | None = None
    planes: tuple[tuple[PlaneOrientation, int], ...] = ()
    tilt_deg: float = 0.0
    slices: int = 0
    extent_mm: float = 0.0
    pixel_mm: float = 0.0
    words: str = ""
    identity: tuple[object, ...] | None = None
    missing: tuple[str, ...] = ()
    number: int = 0
    tags: Tags = field(default_factory=Tags)

    @property
    def plane_words(self) -> str:
        """The plane in words, with its tilt where that is a degree or more."""
        if self.plane is None:
            return "nowhere"
        return f"{self.plane.value} ({self.tilt_deg:.0f} degrees oblique)" if self.tilt_deg >= 1 else self.plane.value

    @property
    def is_derived(self) -> bool:
        return self.tags.image_type[:1] == ("DERIVED",)

    @property
    def quality(self) -> tuple[bool, ...]:
        """What one kind of series lacks against a better kind; False is better, earlier counts more."""
        other_region = bool(_OTHER_REGION.search(self.words)) and not _LUMBAR.search(self.words)
        nulled = STIR_TI_MS[0] <= (self.tags.inversion_time_ms or 0.0) <= STIR_TI_MS[1]
        fat_saturated = bool(_FAT_SATURATED.search(self.words)) or "FS" in self.tags.scan_options or nulled
        contrast = bool(self.tags.contrast_agent) or bool(_AFTER_CONTRAST.search(self.words))
        gradient = "GR" in self.tags.scanning_sequence
        return self.is_derived, other_region, contrast, gradient, fat_saturated

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts the best candidate first."""
        return (*self.quality, -round(self.extent_mm / 10), round(self.pixel_mm, 2), -self.slices, self.number)

    def advantage_over(self, other: Facts) -> str:
        """The first point in which this series beats another, as the end of a sentence that starts with `it`."""
        for name, mine, its in zip(_ADVANTAGES, self.quality, other.quality, strict=True):
            if mine < its:
                return name
        if round(self.extent_mm / 10) > round(other.extent_mm / 10):
            return f"covers more ({self.extent_mm:.0f} against {other.extent_mm:.0f} mm)"
        if round(self.pixel_mm, 2) < round(other.pixel_mm, 2):
            return f"has finer pixels ({self.pixel_mm:.2f} against {other.pixel_mm:.2f} mm)"
        if self.slices > other.slices:
            return f"has more slices ({self.slices} against {other.slices})"
        return "comes first by number"


def read_facts(series: Series) -> Facts:
    """Gather what the headers of a series say; frames without a usable position count as slices only."""
    frames = [frame for instance in series.instances for frame in instance.frames]
    placed = [(frame, normal) for frame in frames if (normal := _normal(frame)) is not None]
    planes = Counter(plane_orientation(normal) for _, normal in placed)
    plane = planes.most_common(1)[0][0] if planes else None
    axis = {PlaneOrientation.SAGITTAL: 0, PlaneOrientation.CORONAL: 1, PlaneOrientation.AXIAL: 2}
    inside = [abs(normal[axis[plane]]) for _, normal in placed if plane and plane_orientation(normal) is plane]
    words = re.sub(r"[^a-z0-9+]+", " ", f"{series.description} {series.tags.protocol}".lower()).strip()
    return Facts(
        plane=plane,
        planes=tuple(sorted(planes.items())),
        tilt_deg=float(np.rad2deg(np.arccos(min(1.0, np.median(inside))))) if inside else 0.0,
        slices=len(frames),
        extent_mm=_extent_mm(placed),
        pixel_mm=max((max(frame.pixel_spacing_mm or (0.0, 0.0)) for frame in frames), default=0.0),
        words=words,
        identity=_identity(series, placed),
        missing=frames[0].missing if frames else (),
        number=series.number or 0,
        tags=series.tags,
    )


def weigh(facts: Facts) -> Finding:
    """The role of a series by plane and weighting, or the reason why it has none."""
    excluded = _exclusion(facts)
    if excluded:
        return Finding(None, excluded)
    plane, plane_reason = _plane(facts)
    weighting, weighting_reason = _weighting(facts)
    reason = f"{plane_reason}, {weighting_reason}"
    if plane is PlaneOrientation.CORONAL:
        return Finding(None, f"{plane_reason}: not used for these findings")
    if plane is PlaneOrientation.AXIAL:
        return Finding("axial_t2" if weighting == "T2" else None, reason if weighting == "T2" else f"{reason}: not an axial T2")
    if weighting in ("T1", "T2"):
        return Finding(f"sagittal_{weighting.lower()}", reason)
    if weighting == "unknown":
        return Finding("sagittal", f"{reason}: levels only")
    return Finding(None, f"{reason}: neither T1, T2 nor STIR")


def _exclusion(facts: Facts) -> str | None:
    """Why a series is none of the wanted kinds, whatever its plane."""
    tags, kinds = facts.tags, dict(facts.planes)
    marks = _DERIVED_WORDS & {word for entry in tags.image_type[2:] for word in re.split(r"[^A-Z0-9]+", entry)}
    if facts.plane is None:
        lacking = ", ".join(facts.missing) or "ImageOrientationPatient"
        return f"no place in space, as its headers lack a usable {lacking}: a screen capture, or a damaged export"
    if tags.photometric_interpretation not in ("", "MONOCHROME1", "MONOCHROME2"):
        return f"in colour ({tags.photometric_interpretation}): no MR signal"
    if "LOCALIZER" in tags.image_type or _LOCALIZER.search(facts.words):
        return "a localizer, by its description or ImageType"
    if len(kinds) > 1 and PlaneOrientation.SAGITTAL in kinds:
        return f"a localizer: its {facts.slices} slices lie in {len(kinds)} planes"
    if tags.image_type[:2] == ("DERIVED", "SECONDARY") or marks or tags.image_type[2:3] == ("P",):
        return f"derived from other images (ImageType {' / '.join(tags.image_type)})"
    if "EP" in tags.scanning_sequence:
        return "echo planar: functional or diffusion images, no anatomy"
    if facts.plane is PlaneOrientation.SAGITTAL and facts.slices < MIN_SAGITTAL_SLICES:
        return f"only {facts.slices} sagittal slice{'s' if facts.slices > 1 else ''}: at least {MIN_SAGITTAL_SLICES} are needed"
    return None


def _plane(facts: Facts) -> tuple[PlaneOrientation | None, str]:
    """The plane by position; where that says coronal and the description axial, the description, with a warning."""
    if facts.plane is PlaneOrientation.CORONAL and _AXIAL.search(facts.words):
        return PlaneOrientation.AXIAL, f"axial by its description (check: its slices lie {facts.plane_words})"
    return facts.plane, f"{facts.plane_words} slices"


def _weighting(facts: Facts) -> tuple[str, str]:
    """`T1`, `T2`, `other` or `unknown`, and why."""
    tags, hint = facts.tags, _hinted_weighting(facts.words)
    echo, repetition = tags.echo_time_ms, tags.repetition_time_ms
    by_tags, measured = _measured_weighting(tags), _timing_words(tags)
    if by_tags in ("T1", "T2", "other") and not (by_tags == "other" and hint):
        doubt = f" (check: the description says {hint})" if hint and hint != by_tags else ""
        return by_tags, f"{measured}: {'another weighting' if by_tags == 'other' else f'{by_tags}-weighted'}{doubt}"
    if hint:
        silence = "no timing in the header" if echo is None and repetition is None else f"{measured} decide nothing"
        return hint, f"{hint}-weighted by its description ({silence})"
    return "unknown", f"unknown weighting ({measured or 'no TE and TR'})"


def _measured_weighting(tags: Tags) -> str:
    """Weighting by timing; `unknown` where TE or TR is missing, `other` where it is none of the wanted."""
    echo, repetition, inversion = tags.echo_time_ms, tags.repetition_time_ms, tags.inversion_time_ms or 0.0
    inverted = inversion > 0 and (not tags.scanning_sequence or "IR" in tags.scanning_sequence)
    if inverted and STIR_TI_MS[0] <= inversion <= STIR_TI_MS[1]:
        return "T2"
    if echo is None:
        return "unknown"
    if inverted and T1_FLAIR_TI_MS[0] <= inversion <= T1_FLAIR_TI_MS[1] and echo <= T1_MAX_TE_MS:
        return "T1"
    if inverted and inversion > T1_FLAIR_TI_MS[1]:
        return "other"
    if echo >= T2_MIN_TE_MS and (repetition is None or repetition >= T2_MIN_TR_MS):
        return "T2"
    if repetition is None:
        return "unknown"
    is_gradient_echo = "GR" in tags.scanning_sequence
    return "T1" if echo <= T1_MAX_TE_MS and repetition <= T1_MAX_TR_MS and not is_gradient_echo else "other"


def _timing_words(tags: Tags) -> str:
    sequence = "gradient echo " if "GR" in tags.scanning_sequence else ""
    times = (("TE", tags.echo_time_ms), ("TR", tags.repetition_time_ms), ("TI", tags.inversion_time_ms or None))
    return sequence + ", ".join(f"{name} {value:g} ms" for name, value in times if value is not None)


def _hinted_weighting(words: str) -> str | None:
    if re.search(r"t2|stir|tirm", words):
        return "T2"
    return "T1" if "t1" in words else None


def _normal(frame: Frame) -> Floats | None:
    if not frame.is_placed:
        return None
    try:
        return normal_of(frame.directions)
    except VolumeGeometryError:
        return None


def _extent_mm(placed: list[tuple[Frame, Floats]]) -> float:
    """The longest distance between slices along the normal of the first, in mm."""
    if not placed:
        return 0.0
    return float(np.ptp([frame.corner_lps_mm @ placed[0][1] for frame, _ in placed]))


def _identity(series: Series, placed: list[tuple[Frame, Floats]]) -> tuple[object, ...] | None:
    if not placed:
        return None
    places = sorted(tuple(round(value, 1) for value in (*frame.corner_lps_mm, *normal)) for frame, normal in placed)
    times = (series.tags.echo_time_ms, series.tags.repetition_time_ms, series.tags.inversion_time_ms)
    return (tuple(places), times)
