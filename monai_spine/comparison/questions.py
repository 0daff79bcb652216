"""What each bundle asks of a crop, and which answers there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monai_spine.anatomy import KINDS, TARGETS, Level, Severity, Vertebra
from monai_spine.degeneration import DEGENERATION
from monai_spine.degeneration import HEADS as DEGENERATION_HEADS
from monai_spine.errors import TableError
from monai_spine.models import GRADERS
from monai_spine.suggestions import did_you_mean

__all__ = ["CONDITIONS", "QUESTIONS", "SEVERITY", "Question", "questions_of", "spoken"]


@dataclass(frozen=True)
class Question:
    """One head of a network.

    Attributes:
        name: Such as `severity`.
        answers: Its classes, in the order of probabilities and labels.
        weights: What rows count by their label in the weighted log loss; None: there is none.
    """

    name: str
    answers: tuple[str, ...]
    weights: tuple[float, ...] | None = None


CONDITIONS = "lumbar_condition_classification"
"""Name of the bundle that says which condition a crop shows."""
SEVERITY = Question("severity", tuple(one.slug for one in Severity), tuple(float(one.weight) for one in Severity))

QUESTIONS: Mapping[str, tuple[Question, ...]] = {
    **dict.fromkeys(GRADERS.values(), (SEVERITY,)),
    CONDITIONS: (Question("condition", tuple(kind.slug for kind in KINDS)), SEVERITY),
    DEGENERATION: tuple(Question(name, tuple(answers)) for name, answers in DEGENERATION_HEADS.items()),
}
"""The questions of every bundle that can be compared, in the order of its logits and labels."""


_LABELS: Mapping[str, str] = {one.slug: one.label for one in (*TARGETS, *Level, *Vertebra, *Severity)}


def spoken(slug: str) -> str:
    """What a target or an answer is called in tables and pictures."""
    return _LABELS.get(slug, slug.replace("_", " "))


def questions_of(bundle: str, only: Sequence[str] | None = None) -> tuple[Question, ...]:
    """The questions of a bundle.

    Args:
        bundle: Its name.
        only: Names of those that are reported; None: all.

    Raises:
        TableError: No comparison is made of this bundle; the message offers the nearest.
    """
    if bundle not in QUESTIONS:
        hint = did_you_mean(bundle, QUESTIONS)
        raise TableError(f"There is no comparison of {bundle!r}. {hint}Choose from: {', '.join(QUESTIONS)}.")
    return tuple(question for question in QUESTIONS[bundle] if only is None or question.name in only)
