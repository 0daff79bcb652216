"""Which values of the configs a comparison takes: not those that it gives its runs itself, none that would change nothing."""

from __future__ import annotations

from monai.bundle import ReferenceResolver

from monai_spine.comparison.plan import Plan, read_configs
from monai_spine.training.given_names import unknown_names

__all__ = ["wrong_settings"]

_OWN = {
    "bundle_root": "Give --bundle instead.",
    "ckpt_path": "",
    "dataset_dir": "Give --study instead.",
    "last_path": "",
    "network_def": "Give --architectures instead.",
    "network_def::name": "Give --architectures instead.",
    "output_dir": "Give --output instead.",
    "resume": "",
    "seed": "Give --seeds instead.",
    "spatial_dims": "Give --dims instead.",
    "split": "Give --folds instead.",
}
_COUNTS = ("batch_size", "epochs", "limit")


def wrong_settings(plan: Plan) -> list[str]:
    """A sentence for each name of the budget that is the comparison's own, counts less than 1, or that the configs of a contender
    do not know, with the nearest that is there."""
    said = []
    for name, value in plan.settings.items():
        own = _OWN.get(ReferenceResolver.normalize_id(name))
        if own is not None:
            said.append(f"--set {name} is not taken, as each run has its own. {own}".rstrip())
        elif name in _COUNTS and isinstance(value, (int, float)) and value < 1:
            said.append(f"{name} must be 1 or more, got {value}.")
    return said or _unknown_settings(plan)


def _unknown_settings(plan: Plan) -> list[str]:
    said = [
        sentence.replace("--", "--set ", 1)
        for bundle in plan.bundles
        for contender in plan.contenders
        for sentence in unknown_names(read_configs(plan, bundle, contender), plan.settings)
    ]
    return list(dict.fromkeys(said))
