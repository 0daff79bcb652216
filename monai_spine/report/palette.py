"""Colours and signs of severities: told apart by lightness as well, so that they survive colour blindness and a grey printer."""

from __future__ import annotations

from monai_spine.anatomy import Severity

__all__ = ["BORDERS", "DOUBTFUL", "REFERRED", "SIGNS", "SURE"]

BORDERS: dict[Severity, str] = {Severity.NORMAL_MILD: "#7fb2d9", Severity.MODERATE: "#f0a818", Severity.SEVERE: "#c0143c"}
"""Colour around the picture of a finding."""

SURE, DOUBTFUL = "#ffffff", "#ffb000"
"""Colours of levels where nothing is doubtful, and where something is: white and amber differ to all eyes."""

SIGNS: dict[Severity, str] = {Severity.NORMAL_MILD: "○", Severity.MODERATE: "◐", Severity.SEVERE: "●"}
"""What stands before the word: more ink, more severe."""

REFERRED = "⚑"
"""What stands at a finding that is left to a reader."""
