"""Where the contenders look in chosen cases: Grad-CAM of all on one sheet, feature maps and filters of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from monai_spine.anatomy import Severity
from monai_spine.comparison.contenders import Contender
from monai_spine.comparison.pictures import save_figure
from monai_spine.comparison.plan import Plan, Run, parsed_config
from monai_spine.comparison.questions import Question, questions_of, spoken
from monai_spine.errors import TableError, WeightsError
from monai_spine.explain import class_activation, feature_maps, first_filters, seen_by
from monai_spine.studies.prepared import read_datalist
from monai_spine.suggestions import did_you_mean
from monai_spine.training.condition_pictures import draw_slice
from monai_spine.training.scan_slices import ScanSlices

__all__ = ["explain_case", "split_case"]

Array = npt.NDArray[np.float32]
_CHANNELS = 8
_NAME = 24


@dataclass(frozen=True)
class _Look:
    """What one contender made of one crop.

    Attributes:
        contender: Its label.
        image: What it saw, (…) of two or three axes.
        heat: Grad-CAM for what it called, of the same shape.
        called: Its answer, with its probability.
        true: The right one.
        axis: In three dimensions the axis across the slices.
        edges_mm: Of what is shown, along its two axes.
        axial: Whether that is an axial slice.
    """

    contender: str
    image: Array
    heat: Array
    called: str
    true: str
    right: bool
    axis: int
    edges_mm: tuple[float, float]
    axial: bool


def split_case(text: str) -> tuple[str, str | None]:
    """`CASE`, or `CASE:target` such as `900003001:left_subarticular_stenosis_l4_l5`."""
    case, _, target = text.partition(":")
    return case, target or None


def explain_case(plan: Plan, bundle: Path, text: str, out: Path) -> dict[Path, str]:
    """Write the sheets of one case, each contender with the weights of the fold that held the case out (first seed).

    Args:
        plan: What was compared.
        bundle: Folder of a bundle.
        text: As `split_case` takes it; without a target the severest is shown.
        out: Folder.

    Returns:
        Captions of the files, Grad-CAM first.

    Raises:
        OutputError: A sheet cannot be written.
        TableError: No fold's test has this case or target.
        WeightsError: The runs are not finished.
    """
    case, target = split_case(text)
    fold = _fold_of(plan, case)
    questions = questions_of(bundle.name)
    shown = questions_of(bundle.name, plan.questions)
    looks: dict[str, list[_Look]] = {question.name: [] for question in shown}
    others: dict[Path, str] = {}
    for contender in plan.contenders:
        run = Run(plan, bundle, contender, fold, plan.seeds[0])
        network, dataset, parser = _loaded(run, case)
        example, target = _example(dataset, case, target)
        image = example["image"][None].to(next(network.parameters()).device)
        severities = parser.get("severities")
        for question in shown:
            looks[question.name].append(_look(run, network, image, example, (question, questions), severities, dataset))
        maps = _feature_sheet(network, image, contender, looks[shown[0].name][-1].axis)
        others[save_figure(maps, out / f"features_{case}_{target}_{contender.slug}.png")] = (
            f"{contender.label}: what its first, a middle and its last convolution make of this crop."
        )
        filters = _filter_sheet(network, contender)
        others[save_figure(filters, out / f"filters_{contender.slug}.png")] = (
            f"{contender.label}: filters of its first convolution."
        )
    title = f"{case}, {spoken(target or '')}"
    caption = f"{title}. The redder, the more Grad-CAM says that the answer rests on it; in red what was called wrong."
    sheets = {
        save_figure(_cam_sheet(found, f"{title}: {name}"), out / f"grad_cam_{bundle.name}_{name}_{case}_{target}.png"): caption
        for name, found in looks.items()
    }
    return sheets | others


def _fold_of(plan: Plan, case: str) -> int:
    tests = [read_datalist(plan.fold(number)).splits["test"] for number in range(plan.folds)]
    for number, cases in enumerate(tests):
        if case in cases:
            return number
    every = [name for cases in tests for name in cases]
    hint = did_you_mean(case, every)
    raise TableError(f"No fold tests on a case {case!r}. {hint}There are {len(every)}, such as {', '.join(every[:3])}.")


def _loaded(run: Run, case: str) -> tuple[torch.nn.Module, Any, Any]:
    if not run.weights.is_file():
        raise WeightsError(f"{run.name} is not finished: there is no {run.weights}. Run the comparison without --explain first.")
    plan = run.plan
    parser = parsed_config(plan, run.bundle, run.contender)
    evaluate = parser.load_config_file(str(run.bundle / "configs" / "evaluate.json"))
    parser.update({"dataset_dir": str(plan.fold(run.fold)), "split": "test", "validate#data": evaluate["validate#data"]})
    items = [item for item in parser.get_parsed_content("validate#data") if item["case"] == case]
    parser.update({"validate#data": items})
    dataset = parser.get_parsed_content("validate#dataset")
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(run.weights, weights_only=True, map_location="cpu"))
    return network.to(parser.get_parsed_content("device")).eval(), dataset, parser


def _example(dataset: Any, case: str, target: str | None) -> tuple[Mapping[str, Any], str]:
    """The crop of a case's target, or the one whose label is the highest."""
    mine = [at for at, item in enumerate(dataset.items) if target in (None, item["target"])]
    if not mine:
        there = sorted({item["target"] for item in dataset.items})
        hint = did_you_mean(target or "", there)
        raise TableError(f"Case {case} has no {target or 'graded target'}. {hint}It has: {', '.join(there) or 'none'}.")
    at = max(mine, key=lambda index: np.max(dataset.items[index]["label"]))
    return dataset[at], dataset.items[at]["target"]


def _look(
    run: Run,
    network: torch.nn.Module,
    image: torch.Tensor,
    example: Mapping[str, Any],
    asked: tuple[Question, Sequence[Question]],
    severities: Sequence[str] | None,
    dataset: Any,
) -> _Look:
    question, questions = asked
    answers = question.answers if severities is None else tuple(Severity.parse(name).slug for name in severities)
    names = [one.name for one in questions]
    first = sum(len(one.answers) for one in questions[: names.index(question.name)])
    with torch.no_grad():
        shares = network(image)[0, first : first + len(answers)].softmax(dim=0)
    called = int(shares.argmax())
    label = int(np.atleast_1d(torch.as_tensor(example["label"]).numpy())[names.index(question.name)])
    true = question.answers[label] if label >= 0 else "not graded"
    _, seen = seen_by(network, image)
    heat = class_activation(network, image, first + called)
    axis, edges, axial = _frame(network, dataset, example["target"])
    say, right = f"{spoken(answers[called])} {100 * float(shares[called]):.0f} %", answers[called] == true
    return _Look(run.contender.label, seen[0, 0].cpu().numpy(), heat, say, spoken(true), right, axis, edges, axial)


def _frame(network: torch.nn.Module, dataset: Any, target: str) -> tuple[int, tuple[float, float], bool]:
    """The axis across the slices that are shown, their edges in mm, and whether they are axial."""
    size = dataset.spec.size_mm
    axial_scan = "subarticular" in target
    if isinstance(dataset, ScanSlices):
        return 0, (size[1], size[2]), axial_scan
    view = getattr(network, "view", None)
    shape = dataset.spec.shape
    axis = int(view.axis) if view is not None else (2 if axial_scan else int(np.argmin(shape)))
    within = [edge for at, edge in enumerate(size) if at != axis]
    return axis, (within[0], within[1]), axis == 2


def _cam_sheet(looks: Sequence[_Look], title: str) -> Figure:
    """Each contender's crop, and on it where Grad-CAM is: in 3D the middle slice, and the one where it is strongest."""
    columns = 3 if any(look.image.ndim == 3 for look in looks) else 2
    figure = Figure(figsize=(2.5 * columns, 0.5 + 2.6 * len(looks)), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for row, look in enumerate(looks):
        planes = _planes(look)
        for column, (name, plane, heat) in enumerate(planes):
            axes = figure.add_subplot(len(looks), columns, row * columns + column + 1)
            draw_slice(axes, plane, look.edges_mm, axial=look.axial, heat=heat)
            said = f"{look.contender}: {look.called}\ntrue: {look.true}" if column == 0 else name
            axes.set_title(said, fontsize=7, color="black" if look.right or column else "crimson")
    return figure


def _planes(look: _Look) -> list[tuple[str, Array, Array | None]]:
    if look.image.ndim == 2:
        return [("crop", look.image, None), ("Grad-CAM", look.image, look.heat)]
    middle = look.image.shape[look.axis] // 2
    across = tuple(axis for axis in range(3) if axis != look.axis)
    strongest = int(look.heat.sum(axis=across).argmax())
    cuts = [tuple(np.take(values, at, look.axis) for values in (look.image, look.heat)) for at in (middle, strongest)]
    return [
        ("crop", cuts[0][0], None),
        (f"Grad-CAM, middle slice {middle}", *cuts[0]),
        (f"Grad-CAM, strongest slice {strongest}", *cuts[1]),
    ]


def _feature_sheet(network: torch.nn.Module, image: torch.Tensor, contender: Contender, axis: int) -> Figure:
    """Eight maps of the first, a middle and the last convolution; in 3D their middle slices."""
    maps = feature_maps(network, image)
    figure = Figure(figsize=(1.4 * _CHANNELS, 1.7 * len(maps) + 0.3), layout="constrained")
    figure.suptitle(f"{contender.label}: feature maps", fontsize=9)
    for row, (name, values) in enumerate(maps.items()):
        strongest = np.argsort(-values.reshape(len(values), -1).std(axis=1), kind="stable")[:_CHANNELS]
        for column, channel in enumerate(sorted(strongest)):
            axes = figure.add_subplot(len(maps), _CHANNELS, row * _CHANNELS + column + 1)
            axes.imshow(_flat(values[channel], axis)[::-1].T, cmap="viridis", origin="lower")
            axes.set_axis_off()
            axes.set_title(f"{_short(name)}\nof {len(values)}: {channel}" if column == 0 else str(channel), fontsize=6)
    return figure


def _short(name: str) -> str:
    """The end of a layer's name, as much as fits above a map."""
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"


def _filter_sheet(network: torch.nn.Module, contender: Contender) -> Figure:
    """Kernels of the first convolution, blue below 0 and red above; in 3D their middle slices."""
    name, kernels = first_filters(network)
    shown = kernels[: 4 * _CHANNELS]
    rows = -(-len(shown) // _CHANNELS)
    figure = Figure(figsize=(0.9 * _CHANNELS, 0.9 * rows + 0.4), layout="constrained")
    figure.suptitle(f"{contender.label}: {len(shown)} of {len(kernels)} filters of {name}", fontsize=9)
    limit = float(np.abs(shown).max())
    for at, kernel in enumerate(shown):
        axes = figure.add_subplot(rows, _CHANNELS, at + 1)
        axes.imshow(_flat(kernel, 0).T, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower")
        axes.set_axis_off()
    return figure


def _flat(values: Array, axis: int) -> Array:
    """A map, or the middle slice of one in three dimensions."""
    return values if values.ndim == 2 else np.asarray(values.take(values.shape[axis] // 2, axis))
