"""Colours and signs of severities: told apart by lightness as well, so that they survive colour blindness and a grey printer."""

from __future__ import annotations

from monai_spine.anatomy import Severity

__all__ = ["BORDERS", "SIGNS"]

BORDERS: dict[Severity, str] = {Severity.NORMAL_MILD: "#7fb2d9", Severity.MODERATE: "#f0a818", Severity.SEVERE: "#c0143c"}
"""Colour around the picture of a finding."""

SIGNS: dict[Severity, str] = {Severity.NORMAL_MILD: "○", Severity.MODERATE: "◐", Severity.SEVERE: "●"}
"""What stands before the word: more ink, more severe."""
