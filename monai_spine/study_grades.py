"""The grades of a study as a whole: each grader's answers, corrected by a study head where the folder of bundles offers one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from monai_spine.anatomy import TARGETS, Condition, Severity, Target
from monai_spine.errors import WeightsError
from monai_spine.features import watching
from monai_spine.grades import Grade, Grader, grade_targets, referred
from monai_spine.levels import Levels
from monai_spine.volume import Volume
from monai_spine.weights import WEIGHT_FILES, Bundle, bundle_folder, find_bundle

__all__ = ["STUDY_HEAD", "Corrector", "grade_study", "load_corrector", "offers_head"]

STUDY_HEAD = "lumbar_study_head"
"""Name of the bundle, which need not be there."""

_LEAST = 1e-7


@dataclass(frozen=True)
class Corrector:
    """A study head that is ready to run.

    Attributes:
        bundle: Where it comes from.
        network: Called with `image` (1, 25, 3), `features` (1, 25, F) and `present` (1, 25); see `networks.study_head.StudyHead`.
        device: Such as `cpu` or `cuda:0`.
        graders: SHA-256 of the weights whose features it knows, by condition (slug); empty: it looks at answers alone.
    """

    bundle: Bundle
    network: Any = field(repr=False)
    device: str = "cpu"
    graders: Mapping[str, str] = field(default_factory=dict)

    def corrected(self, grades: Sequence[Grade], features: Mapping[Condition, torch.Tensor]) -> tuple[Grade, ...]:
        """The grades with new probabilities; what was not graded stays so.

        Args:
            grades: At most one of each target.
            features: Of each condition whose features it knows, (number of its graded targets, F), in their order.

        Raises:
            WeightsError: The bundle gives no probabilities.
        """
        rows = [at for at, grade in enumerate(grades) if grade.probabilities is not None]
        if not rows:
            return tuple(grades)
        logits = torch.zeros(1, len(TARGETS), len(Severity))
        seen = torch.zeros(1, len(TARGETS), max((part.shape[1] for part in features.values()), default=0))
        present = torch.zeros(1, len(TARGETS), dtype=torch.bool)
        for at in rows:
            place = TARGETS.index(grades[at].target)
            logits[0, place] = torch.tensor(grades[at].probabilities).clamp_min(_LEAST).log()
            present[0, place] = True
        for condition, part in features.items():
            places = [TARGETS.index(grades[at].target) for at in rows if grades[at].target.condition is condition]
            seen[0, torch.tensor(places, dtype=torch.long), : part.shape[1]] = part
        answers = self._answers(logits, seen, present)
        changed = list(grades)
        for at in rows:
            values = [float(value) for value in answers[TARGETS.index(grades[at].target)]]
            changed[at] = replace(grades[at], probabilities=(values[0], values[1], values[2]))
        return tuple(changed)

    def _answers(self, logits: torch.Tensor, features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        inputs = {"features": features.to(self.device), "present": present.to(self.device)}
        with torch.inference_mode():
            answers = self.bundle.inferer(logits.to(self.device), self.network, **inputs)[0].float().cpu()
        found = torch.as_tensor(self.bundle.postprocessing({"pred": answers})["pred"])
        given = found[present[0]] if found.shape == logits.shape[1:] else found
        if found.shape != logits.shape[1:] or bool((given < 0).any()) or not bool(((given.sum(dim=1) - 1).abs() < 1e-3).all()):
            raise WeightsError(
                f"Bundle {self.bundle.name} gave no three probabilities for each of {len(TARGETS)} targets, but "
                f"{tuple(found.shape)} values. Its inference.json has to end in a softmax over the last axis."
            )
        return found


def offers_head(folder: Path | str | None = None) -> bool:
    """Whether a folder of bundles has a study head.

    Args:
        folder: See `weights.bundle_folder`.
    """
    return (bundle_folder(folder) / STUDY_HEAD).is_dir()


def load_corrector(folder: Path | str | None, graders: Mapping[Condition, Grader], device: str = "cpu") -> Corrector | None:
    """Make a folder's study head ready to run; None where there is none.

    Args:
        folder: See `weights.bundle_folder`.
        graders: Those that it is to correct.
        device: Where it runs.

    Raises:
        WeightsError: It cannot be run, or was trained on the features of other graders.
    """
    if not offers_head(folder):
        return None
    bundle = find_bundle(STUDY_HEAD, folder)
    known = {Condition.parse(name): str(sha256) for name, sha256 in dict(bundle.config("graders")).items()}
    for condition, sha256 in known.items():
        found = graders[condition].bundle.weights_sha256.get(WEIGHT_FILES[0])
        if found != sha256:
            raise WeightsError(
                f"{bundle.root} was trained on the features of a grader of {condition.label} whose weights have the SHA-256 "
                f"{sha256[:12]}…, but those of {graders[condition].bundle.name} have {(found or 'none')[:12]}…: features of "
                "another training mean something else. Train the study head again, or remove its folder."
            )
    return Corrector(bundle, bundle.network(device), device, {condition.slug: sha256 for condition, sha256 in known.items()})


def grade_study(
    targets: Iterable[Target],
    levels: Levels,
    volumes: Mapping[Any, Sequence[Volume]],
    graders: Mapping[Condition, Grader],
    *,
    unread: Mapping[Any, str] | None = None,
    corrector: Corrector | None = None,
) -> tuple[Grade, ...]:
    """As `grade_targets`; with a corrector, its answers for the study as a whole. What is too unsure then is referred."""
    if corrector is None:
        return referred(grade_targets(targets, levels, volumes, graders, unread=unread), graders)
    known = [Condition.parse(name) for name in corrector.graders]
    with ExitStack() as stack:
        watched = {condition: stack.enter_context(watching(graders[condition].network)) for condition in known}
        grades = grade_targets(targets, levels, volumes, graders, unread=unread)
    counts = {c: sum(grade.target.condition is c and grade.status == "graded" for grade in grades) for c in known}
    corrected = corrector.corrected(grades, {c: watched[c].take(count) for c, count in counts.items()})
    return referred(corrected, graders)
