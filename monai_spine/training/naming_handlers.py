"""What only the naming network's engines need: batches, the loss, metrics and a table at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from monai_spine.level_names import CLASSES
from monai_spine.training.gathering import FirstPictures, RowMetric, StudyTable

__all__ = ["NameAccuracy", "NameLoss", "NamePictures", "NameTable", "NamingLogLoss", "prepare_batch"]

_LOWEST_DISC = CLASSES.index("L5/S1")


def prepare_batch(
    batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, dict[str, Any]]:
    """Images (B, 1, R, A, S) and their answers: `label` (B,), and for the metrics `study`."""
    answer = {"label": torch.as_tensor(batch["label"]).to(device=device, non_blocking=non_blocking), "study": batch["study"]}
    return torch.as_tensor(batch["image"]).to(device=device, non_blocking=non_blocking), answer


class NameLoss(nn.Module):
    """Cross-entropy over the classes of `level_names.CLASSES`.

    Args:
        label_smoothing: Share of each answer that is spread over all classes.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, answer: Mapping[str, Any]) -> Tensor:
        """Mean over a batch of logits (B, 8)."""
        return cross_entropy(logits, answer["label"], label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class _Row:
    """One block: its class, whether it was the most probable one, and minus the logarithm of its probability."""

    study: str
    label: int
    is_right: bool
    log_loss: float


def _row_of(output: Mapping[str, Any]) -> _Row:
    """Judge one decollated element of an evaluator's output (probabilities `pred`) by its `label`."""
    probabilities, label = output["pred"].float().cpu(), int(output["label"]["label"])
    loss = -float(torch.log(probabilities[label].clamp_min(1e-6)))
    return _Row(str(output["label"]["study"]), label, int(probabilities.argmax()) == label, loss)


class NameAccuracy(RowMetric):
    """Share of blocks with the right name, of L5/S1 alone, and log loss, for each data set.

    Computes a mapping such as `{"phantom accuracy": 0.9, "phantom L5/S1": 0.97, "phantom log loss": 0.3, "phantom count": 60.0}`.
    """

    def rows_of(self, element: Mapping[str, Any]) -> list[_Row]:
        return [_row_of(element)]

    def compute(self) -> Any:
        rows = self.gathered()
        result: dict[str, float] = {}
        for study in sorted({row.study for row in rows}):
            mine = [row for row in rows if row.study == study]
            lowest = [row.is_right for row in mine if row.label == _LOWEST_DISC]
            result[f"{study} accuracy"] = float(np.mean([row.is_right for row in mine]))
            result |= {f"{study} L5/S1": float(np.mean(lowest))} if lowest else {}
            result[f"{study} log loss"] = float(np.mean([row.log_loss for row in mine]))
            result[f"{study} count"] = float(len(mine))
        return result


class NamingLogLoss(NameAccuracy):
    """One number to choose the best network by: the log loss, the mean over data sets. Lower is better."""

    def compute(self) -> float:
        values = super().compute()
        return float(np.mean([value for name, value in values.items() if name.endswith("log loss")]))


class NameTable(StudyTable):
    """Print the metrics of `NameAccuracy`."""

    columns: ClassVar[Mapping[str, str]] = {"accuracy": ".1%", "L5/S1": ".1%", "log loss": ".3f"}

    def __init__(self, metric: str = "names") -> None:
        super().__init__(metric)


class NamePictures(FirstPictures):
    """Middle slices of blocks; below, one box per class, as bright as it is probable, the true one framed in red."""

    tag = "names"

    def draw(self, output: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        image = np.clip(np.asarray(output["image"].cpu())[0], 0, 1)
        picture = np.flip(image[image.shape[0] // 2].T, (0, 1))
        edge = picture.shape[1] // len(CLASSES)
        boxes = np.kron(output["pred"].float().cpu().numpy(), np.ones((edge, edge)))
        strip = np.zeros((edge, picture.shape[1]))
        strip[:, : boxes.shape[1]] = boxes
        colored = np.repeat(np.concatenate([picture, strip])[None], 3, axis=0).astype(np.float32)
        first = int(output["label"]["label"]) * edge
        frame = np.zeros(colored.shape[1:], bool)
        frame[-edge:, first : first + edge] = True
        frame[1 - edge : -1, first + 1 : first + edge - 1] = False
        colored[:, frame] = np.array([[1.0], [0.0], [0.0]], np.float32)
        return colored
