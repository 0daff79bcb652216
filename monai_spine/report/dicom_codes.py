"""Codes for anatomy and findings: SNOMED CT where pydicom's dictionary has the concept, otherwise the scheme 99MONAISPINE.

A private code's value is the slug of the concept in capitals, so that it follows from `anatomy.py`.
"""

from __future__ import annotations

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from monai_spine.anatomy import Condition, Level, Severity, Side, Vertebra

__all__ = [
    "GRADED_ON",
    "NOT_ASSESSABLE",
    "READER_DECISION",
    "REFERRED",
    "SCHEME",
    "SINGLE_SLICE",
    "condition_code",
    "level_code",
    "probability_code",
    "severity_code",
    "side_code",
    "vertebra_code",
]

SCHEME = "99MONAISPINE"


def _private(slug: str, meaning: str) -> Code:
    return Code(slug.upper(), SCHEME, meaning)


NOT_ASSESSABLE = _private("not_assessable", "Not assessable")
GRADED_ON = _private("graded_on", "What the grade was given on")
SINGLE_SLICE = _private("single_slice", "One slice alone: what lies beside it was not seen")
READER_DECISION = _private("reader_decision", "Decision left to a reader")
REFERRED = _private("referral", "Referred to a reader: the grader is less sure than its threshold")


def condition_code(condition: Condition) -> Code:
    """What is graded."""
    return _private(condition.slug, condition.label.capitalize())


def severity_code(severity: Severity) -> Code:
    """The grade. `Normal/Mild` is one class of the challenge and no concept of SNOMED CT."""
    if severity is Severity.NORMAL_MILD:
        return _private(severity.slug, severity.label)
    return codes.SCT.Moderate if severity is Severity.MODERATE else codes.SCT.Severe


def probability_code(severity: Severity) -> Code:
    """Name of the measurement that holds the probability of a severity."""
    return _private(f"probability_{severity.slug}", f"Probability of {severity.label}")


def level_code(level: Level) -> Code:
    """The height of a disc, such as SNOMED CT `Level of L4/L5 intervertebral disc`."""
    return getattr(codes.SCT, f"LevelOf{level.value.replace('/', '')}IntervertebralDisc")


def vertebra_code(vertebra: Vertebra) -> Code:
    """A vertebral body. The sacrum stands for S1, because only its first segment has no code of its own here."""
    if vertebra is Vertebra.S1:
        return codes.SCT.Sacrum
    if vertebra is Vertebra.L6:
        return _private(vertebra.slug, "L6 vertebra")
    return getattr(codes.SCT, f"{vertebra.value}Vertebra")


def side_code(side: Side | None) -> Code | None:
    """The patient's own side."""
    return {Side.LEFT: codes.SCT.Left, Side.RIGHT: codes.SCT.Right, None: None}[side]
