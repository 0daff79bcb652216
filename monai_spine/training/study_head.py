"""Training of a study head: what it must learn to do without, its loss, and its answers finding by finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.transforms import Randomizable, Transform

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.training.losses import MISSING, GradeLoss
from monai_spine.training.predictions import SavePredictions

__all__ = ["RandMirrorStudy", "RandMissing", "SaveStudyPredictions", "StudyLoss", "study_rows"]

_MIRRORED = torch.tensor([TARGETS.index(target.mirrored) for target in TARGETS])
_CONDITION = torch.tensor([list(Condition).index(target.condition) for target in TARGETS])


class RandMissing(Randomizable, Transform):
    """Take targets out of a study, so that a head learns to do without: single ones, and whole conditions.

    At least one target stays. What is taken out is not asked for either.

    Args:
        target_prob: Of each target.
        condition_prob: Of each condition.
        seed: Of the random numbers.

    Raises:
        ValueError: A probability lies outside [0, 1).
    """

    def __init__(self, target_prob: float = 0.1, condition_prob: float = 0.15, *, seed: int = 0) -> None:
        for probability in (target_prob, condition_prob):
            if not 0 <= probability < 1:
                raise ValueError(f"A probability to leave out must be in [0, 1), got {probability}.")
        self.target_prob, self.condition_prob = target_prob, condition_prob
        self.set_random_state(seed=seed)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        out = torch.from_numpy(self.R.random(len(TARGETS)) < self.target_prob)
        out |= torch.from_numpy(self.R.random(len(Condition)) < self.condition_prob)[_CONDITION]
        there = data["present"].nonzero()[:, 0]
        out[there[int(self.R.randint(len(there)))]] = False
        return {**data, "present": data["present"] & ~out, "label": data["label"].masked_fill(out, MISSING)}


class RandMirrorStudy(Randomizable, Transform):
    """Exchange left and right in half of the studies: the graders are shown right sides as left ones, so that both are as likely.

    Args:
        prob: Of the exchange.
        seed: Of the random numbers.
    """

    def __init__(self, prob: float = 0.5, *, seed: int = 0) -> None:
        self.prob = prob
        self.set_random_state(seed=seed)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        if self.R.random() >= self.prob:
            return dict(data)
        return {key: value[_MIRRORED] if isinstance(value, torch.Tensor) else value for key, value in data.items()}


class StudyLoss(GradeLoss):
    """`GradeLoss` over the targets of studies: logits (B, 25, 3) against labels (B, 25)."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(logits.flatten(0, 1), labels.flatten())


def study_rows(output: Sequence[Mapping[str, Any]], key: str = "pred") -> tuple[list[str], list[str], torch.Tensor, torch.Tensor]:
    """An evaluator's decollated output as `OfficialScoreMetric` takes it: targets, studies, probabilities and labels, row by row.

    Args:
        output: Of each study `case_id`, `label` (25,) and logits or probabilities (25, 3).
        key: `pred`, after a softmax, or `image`: the graders' own answers, whose softmax is taken here.
    """
    answers = torch.cat([torch.as_tensor(study[key]).float() for study in output])
    probabilities = answers if key == "pred" else answers.softmax(dim=1)
    targets = [target.slug for _ in output for target in TARGETS]
    studies = [str(study["case_id"]) for study in output for _ in TARGETS]
    return targets, studies, probabilities, torch.cat([study["label"] for study in output])


class SaveStudyPredictions(SavePredictions):
    """Write one row per target that was there, as `SavePredictions` does."""

    def _collect(self, engine: Engine) -> None:
        for study, answer in zip(engine.state.batch, engine.state.output, strict=True):
            for at in study["present"].nonzero()[:, 0].tolist():
                probabilities = [f"{float(value):.6f}" for value in answer["pred"][at]]
                self._rows.append([str(study["case"]), TARGETS[at].slug, *probabilities, str(int(study["label"][at]))])
