"""All findings of a study seen together: a small transformer that corrects what the graders say of each crop alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Severity, Side

__all__ = ["StudyHead"]

_CONDITIONS, _SIDES = list(Condition), [None, *Side]
_LEAST = -12.0
"""Logarithms of probabilities below this are as good as this."""


class StudyHead(nn.Module):
    """Corrects the graders' logits of the 25 targets, in the order of `TARGETS`, by what is seen at the others.

    Each target is a token: its logits and its features, and embeddings of its condition, side and level. What is missing is
    masked: it changes nothing elsewhere, and nothing is said of it. The correction is added to the graders' logits and starts at
    zero, so that an untrained head gives the graders' own answers.

    Args:
        widths: Number of features of each condition (slug). What is not named is known by its logits alone.
        width: Of a token.
        layers: Of the transformer.
        heads: Of each layer's attention.
        dropout: Within the transformer.

    Source: Vaswani et al., Attention is all you need, NeurIPS 2017 (`torch.nn.TransformerEncoder`, normalised first).

    Example:
        >>> import torch
        >>> head = StudyHead({"spinal_canal_stenosis": 8}).eval()
        >>> logits, present = torch.randn(2, 25, 3), torch.ones(2, 25, dtype=torch.bool)
        >>> torch.equal(head(logits, torch.randn(2, 25, 8), present), logits)
        True
    """

    condition_of: torch.Tensor
    side_of: torch.Tensor
    level_of: torch.Tensor

    def __init__(
        self,
        widths: Mapping[str, int] | None = None,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.widths = {Condition.parse(name).slug: int(count) for name, count in (widths or {}).items()}
        places = {
            "condition_of": [_CONDITIONS.index(target.condition) for target in TARGETS],
            "side_of": [_SIDES.index(target.side) for target in TARGETS],
            "level_of": [LEVELS.index(target.level) for target in TARGETS],
        }
        for name, indices in places.items():
            self.register_buffer(name, torch.tensor(indices), persistent=False)
        self.from_logits = nn.Linear(len(Severity), width)
        self.from_features = nn.ModuleDict(
            {slug: nn.Sequential(nn.LayerNorm(count), nn.Linear(count, width)) for slug, count in self.widths.items()}
        )
        self.condition = nn.Embedding(len(_CONDITIONS), width)
        self.side = nn.Embedding(len(_SIDES), width)
        self.level = nn.Embedding(len(LEVELS), width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.correction = nn.Linear(width, len(Severity))
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, logits: torch.Tensor, features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Logits (B, 25, 3) of the study as a whole; where a target is missing, 0.

        Args:
            logits: The graders' own, (B, 25, 3).
            features: (B, 25, F); of each condition the first of its `widths` are used.
            present: Which targets there are, (B, 25) bool; what stands in the others is of no account.

        Raises:
            ValueError: The shapes do not fit.
        """
        self._check(logits, features, present)
        logits = logits.masked_fill(~present[..., None], 0.0)
        features = features.masked_fill(~present[..., None], 0.0)
        tokens = self.encoder(self._tokens(logits, features), src_key_padding_mask=~present & present.any(dim=1, keepdim=True))
        return logits + self.correction(tokens).masked_fill(~present[..., None], 0.0)

    def _tokens(self, logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        tokens = self.from_logits(torch.log_softmax(logits, dim=-1).clamp_min(_LEAST))
        tokens = tokens + self.condition(self.condition_of) + self.side(self.side_of) + self.level(self.level_of)
        for slug, project in self.from_features.items():
            own = self.condition_of == _CONDITIONS.index(Condition(slug))
            seen = project(features[:, own, : self.widths[slug]])
            tokens = tokens.index_add(1, own.nonzero()[:, 0], seen.to(tokens.dtype))
        return tokens

    def _check(self, logits: torch.Tensor, features: torch.Tensor, present: torch.Tensor) -> None:
        shape, least = (len(logits), len(TARGETS)), max(self.widths.values(), default=0)
        fits = logits.shape == (*shape, len(Severity)) and present.shape == shape
        if not fits or features.shape[:2] != shape or features.shape[2] < least:
            raise ValueError(
                f"A study head takes logits (B, {len(TARGETS)}, {len(Severity)}), features (B, {len(TARGETS)}, {least} or more) "
                f"and present (B, {len(TARGETS)}), got {tuple(logits.shape)}, {tuple(features.shape)} and {tuple(present.shape)}."
            )
