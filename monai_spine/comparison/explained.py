"""Where the contenders look in chosen cases: Grad-CAM of all on one sheet, feature maps and filters of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from monai_spine.anatomy import Severity
from monai_spine.comparison.built import built
from monai_spine.comparison.pictures import save_figure
from monai_spine.comparison.plan import Plan, Run, testing_config
from monai_spine.comparison.questions import Question, questions_of, spoken
from monai_spine.comparison.sheets import Look, cam_sheet, feature_sheet, filter_sheet
from monai_spine.errors import TableError, WeightsError
from monai_spine.explain import class_activation, feature_maps, first_filters, seen_by
from monai_spine.misfits import why_not
from monai_spine.studies.folds import write_splits
from monai_spine.studies.midsagittal import has_scale
from monai_spine.studies.prepared import read_datalist
from monai_spine.suggestions import did_you_mean
from monai_spine.training.condition_pictures import SliceView
from monai_spine.training.grading_crops import through_axis

__all__ = ["Chosen", "choose_case", "explain_case", "split_case"]


@dataclass(frozen=True)
class _Shown:
    """A trained contender and the crop that it is shown.

    Attributes:
        run: Its training.
        network: Ready to answer, on its device.
        example: The crop as the dataset gives it, with target and label.
        axis: In three dimensions the crop's axis across the slices.
        view: What its slices show.
        severities: Names of those that it tells apart, where an experiment has fewer; None: all.
    """

    run: Run
    network: torch.nn.Module
    example: Mapping[str, Any]
    axis: int
    view: SliceView
    severities: Sequence[str] | None

    @property
    def target(self) -> str:
        """Slug of what the crop shows."""
        return str(self.example["target"])

    @property
    def image(self) -> torch.Tensor:
        """The crop as a batch of one, on the network's device."""
        return torch.as_tensor(self.example["image"])[None].to(next(self.network.parameters()).device)


@dataclass(frozen=True)
class Chosen:
    """A case that is to be explained.

    Attributes:
        case: Its name.
        fold: The one whose test it is in.
        targets: Slug of what is shown, by the folder of each bundle that is tested on it.
    """

    case: str
    fold: int
    targets: Mapping[Path, str]


def split_case(text: str) -> tuple[str, str | None]:
    """`CASE`, or `CASE:target` such as `900003001:left_subarticular_stenosis_l4_l5`."""
    case, _, target = text.partition(":")
    return case, target or None


def choose_case(plan: Plan, text: str) -> Chosen:
    """Find what is to be explained among the tests of a plan, of which nothing need be trained yet.

    Args:
        plan: As `run.measure_all` wrote it down.
        text: As `split_case` takes it; without a target the severest of each bundle is shown.

    Raises:
        TableError: No fold's test has this case, or no bundle is tested on this target.
    """
    case, target = split_case(text)
    fold = _fold_of(plan, case)
    with _alone(plan, fold, case) as folder:
        labels = {bundle: _labels(plan, bundle, folder) for bundle in plan.bundles}
    every = sorted({slug for found in labels.values() for slug in found})
    if not every or target not in (None, *every):
        hint = did_you_mean(target or "", every)
        raise TableError(f"Case {case} has no {target or 'graded target'}. {hint}It has: {', '.join(every) or 'none'}.")
    shown = {bundle: target or max(found, key=found.__getitem__) for bundle, found in labels.items() if found}
    return Chosen(case, fold, {bundle: slug for bundle, slug in shown.items() if slug in labels[bundle]})


def _fold_of(plan: Plan, case: str) -> int:
    tests = [read_datalist(plan.fold(number)).splits["test"] for number in range(plan.folds)]
    for number, cases in enumerate(tests):
        if case in cases:
            return number
    every = [name for cases in tests for name in cases]
    hint = did_you_mean(case, every)
    raise TableError(f"No fold tests on a case {case!r}. {hint}There are {len(every)}, such as {', '.join(every[:3])}.")


@contextmanager
def _alone(plan: Plan, fold: int, case: str) -> Iterator[Path]:
    """A folder with a data list of one case alone, as the test: it is read for each contender, and that of a study is long."""
    whole = read_datalist(plan.fold(fold))
    with TemporaryDirectory(dir=plan.output, prefix=".") as folder:
        own = replace(whole, cases=tuple(one for one in whole.cases if one.case == case))
        write_splits(own, folder, splits={"test": [case]})
        yield Path(folder)


def _labels(plan: Plan, bundle: Path, folder: Path) -> dict[str, int]:
    """The targets that all contenders are shown, each with its label; of several labels the highest."""
    found: list[dict[str, int]] = []
    for contender in plan.contenders:
        try:
            items = built(testing_config(plan, bundle, contender, folder), "validate#dataset").items
        except TableError:
            items = []
        found.append({item["target"]: int(np.max(item["label"])) for item in items})
    return {target: label for target, label in found[0].items() if all(target in other for other in found)}


def explain_case(plan: Plan, chosen: Chosen, out: Path) -> dict[Path, str]:
    """Write the sheets of one case, each contender with the weights of the fold that held the case out (first seed).

    Args:
        plan: What was compared.
        chosen: What is shown.
        out: Folder.

    Returns:
        Captions of the files, of each bundle Grad-CAM first.

    Raises:
        OutputError: A sheet cannot be written.
        WeightsError: The runs are not finished, or their weights do not fit.
    """
    sheets: dict[Path, str] = {}
    with _alone(plan, chosen.fold, chosen.case) as folder:
        for bundle in chosen.targets:
            sheets |= _explained(plan, bundle, chosen, folder, out)
    return sheets


def _explained(plan: Plan, bundle: Path, chosen: Chosen, folder: Path, out: Path) -> dict[Path, str]:
    """Write the sheets of one bundle, and caption them."""
    case, target = chosen.case, chosen.targets[bundle]
    looks: dict[str, list[Look]] = {question.name: [] for question in questions_of(bundle.name, plan.questions)}
    others: dict[Path, str] = {}
    for contender in plan.contenders:
        shown = _load(Run(plan, bundle, contender, chosen.fold, plan.seeds[0]), folder, target)
        for question in questions_of(bundle.name, plan.questions):
            if (look := _look(shown, question)) is not None:
                looks[question.name].append(look)
        others |= _inside(shown, case, out)
    title = f"{case}, {spoken(target)}"
    caption = (
        f"{bundle.name}: {title}. The redder, the more Grad-CAM says that the answer rests on it; in red what was called wrong."
    )
    sheets = {
        save_figure(
            cam_sheet(found, f"{title}: {spoken(name)}"), out / f"grad_cam_{bundle.name}_{name}_{case}_{target}.png"
        ): caption
        for name, found in looks.items()
        if found
    }
    return sheets | others


def _inside(shown: _Shown, case: str, out: Path) -> dict[Path, str]:
    """Write the feature maps and the filters of one contender, and caption them."""
    run, label = shown.run, shown.run.contender.label
    seen = f"{case}, {spoken(shown.target)}"
    maps = feature_sheet(feature_maps(shown.network, shown.image), f"{label}, {seen}", shown.axis)
    filters = filter_sheet(*first_filters(shown.network), f"{label}, fold {run.fold + 1}", shown.axis)
    of_crop = out / f"features_{run.bundle.name}_{case}_{shown.target}_{run.contender.slug}.png"
    plane = "axial" if shown.view.axial else "sagittal"
    of_run = out / f"filters_{run.bundle.name}_fold_{run.fold}_{plane}_{run.contender.slug}.png"
    return {
        save_figure(maps, of_crop): f"{run.name}: what its first, a middle and its last convolution make of {seen}.",
        save_figure(filters, of_run): f"{run.name}: filters of its first convolution.",
    }


def _load(run: Run, folder: Path, target: str) -> _Shown:
    config = testing_config(run.plan, run.bundle, run.contender, folder)
    dataset, network = built(config, "validate#dataset"), built(config, "network_def")
    _load_weights(network, run)
    at = next(at for at, item in enumerate(dataset.items) if item["target"] == target)
    axis = _axis_of(network, dataset, at)
    return _Shown(
        run=run,
        network=network.to(config.get_parsed_content("device")).eval(),
        example=dataset[at],
        axis=axis,
        view=_view_of(dataset, at, axis, read_datalist(folder).study),
        severities=config.get("severities"),
    )


def _load_weights(network: torch.nn.Module, run: Run) -> None:
    if not run.weights.is_file():
        raise WeightsError(f"{run.name} is not finished: there is no {run.weights}. Run the comparison without --explain first.")
    state: Any = None
    try:
        state = torch.load(run.weights, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # torch raises pickle, zip and key errors of many kinds for one cause
        raise WeightsError(
            f"The weights {run.weights} do not fit the network of {run.name}: {why_not(state, network, error)}. Remove the "
            f"folder {run.folder} and run the comparison again, which trains this run anew."
        ) from error


def _look(shown: _Shown, question: Question) -> Look | None:
    """Where a network looks for an answer; None where the crop has no label of it, as a vertebra has no disc's grade."""
    questions, network, image = questions_of(shown.run.bundle.name), shown.network, shown.image
    answers = question.answers if shown.severities is None else tuple(Severity.parse(name).slug for name in shown.severities)
    at = questions.index(question)
    label = int(np.atleast_1d(torch.as_tensor(shown.example["label"]).numpy())[at])
    if label < 0:
        return None
    first = sum(len(one.answers) for one in questions[:at])
    with torch.no_grad():
        shares = network(image)[0, first : first + len(answers)].softmax(dim=0)
    called = int(shares.argmax())
    true = question.answers[label]
    _, seen = seen_by(network, image)
    return Look(
        contender=shown.run.contender.label,
        image=seen[0, 0].cpu().numpy(),
        heat=class_activation(network, image, first + called),
        called=f"{spoken(answers[called])} {100 * float(shares[called]):.0f} %",
        true=spoken(true),
        right=answers[called] == true,
        axis=shown.axis,
        view=shown.view,
    )


def _axis_of(network: torch.nn.Module, dataset: Any, at: int) -> int:
    """The axis of a crop across the slices that are shown: the one that the network itself cuts, otherwise that of the scan."""
    view = getattr(network, "view", None)
    affines, _ = dataset.placed([at])
    return through_axis(dataset.volumes[at], affines[0]) if view is None else int(view.axis)


def _view_of(dataset: Any, at: int, axis: int, study: str) -> SliceView:
    """What the slices across an axis of a crop show, by where the crop lies in its scan."""
    affines, mirrored = dataset.placed([at])
    steps = affines[0][:3, :3]
    first, second = (float(np.linalg.norm(steps[:, one]) * dataset.spec.shape[one]) for one in range(3) if one != axis)
    axial = int(np.abs(steps[:, axis]).argmax()) == 2
    return SliceView((first, second), axial=axial, mirrored=bool(mirrored[0]), has_scale=has_scale(study))
