"""Sheets of explained cases, of networks that learnt nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tiny_prepared import write_tiny_prepared
from tiny_runs import write_tiny_runs

from monai_spine.anatomy import Condition
from monai_spine.comparison import explained
from monai_spine.comparison.contenders import contenders_of
from monai_spine.comparison.experiments import find_experiment
from monai_spine.comparison.explained import choose_case, explain_case
from monai_spine.comparison.plan import Plan, write_down
from monai_spine.comparison.questions import CONDITIONS
from monai_spine.comparison.sheets import feature_sheet, filter_sheet
from monai_spine.degeneration import DEGENERATION
from monai_spine.errors import TableError, WeightsError
from monai_spine.models import GRADERS
from monai_spine.studies import midsagittal
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.condition_pictures import SliceView, draw_slice
from monai_spine.weights import find_bundle

CANAL, RECESS = GRADERS[Condition.SPINAL_CANAL_STENOSIS], GRADERS[Condition.SUBARTICULAR_STENOSIS]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("study"), cases=3)


@pytest.fixture
def plan(study: Path, tmp_path: Path) -> Plan:
    contenders = contenders_of(["cnn"], [2], bundles=[CANAL])
    settings = {"crop#shape": [8, 24, 24]}
    return Plan(study, tmp_path / "out", (find_bundle(CANAL).root,), contenders, folds=3, settings=settings)


def case_of(plan: Plan, fold: int) -> str:
    """The first case of a fold's test."""
    return read_datalist(plan.fold(fold)).splits["test"][0]


def explain(plan: Plan, text: str) -> dict[Path, str]:
    return explain_case(plan, choose_case(plan, text), plan.output / "explained")


def test_one_sheet_shows_all_contenders_and_two_each_of_them(plan: Plan) -> None:
    write_tiny_runs(plan)
    sheets = explain(plan, f"{case_of(plan, 0)}:spinal_canal_stenosis_l4_l5")
    assert [path.name.split("_")[0] for path in sheets] == ["grad", "features", "filters"]
    assert all(path.stat().st_size > 1000 for path in sheets)
    assert all("L4/L5" in caption for path, caption in sheets.items() if path.name.startswith("grad"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[Path, Figure]:
    """Sheets by their files, which are not written: that takes its time."""
    figures: dict[Path, Figure] = {}

    def keep(figure: Figure, path: Path) -> Path:
        assert path not in figures
        figures[path] = figure
        return path

    monkeypatch.setattr(explained, "save_figure", keep)
    return figures


def test_bundles_and_folds_do_not_write_over_each_other(plan: Plan, drawn: dict[Path, Figure]) -> None:
    both = replace(plan, bundles=(*plan.bundles, find_bundle(CONDITIONS).root))
    write_tiny_runs(both)
    captions: list[str] = []
    for fold in (0, 1):
        captions += explain(both, f"{case_of(both, fold)}:spinal_canal_stenosis_l4_l5").values()
    assert len(drawn) == 3 + 3 + 4 + 4  # two questions are asked of a condition's crop
    assert len(set(captions)) == len(captions) - 2  # which share the captions of their sheets


def first_axes(drawn: dict[Path, Figure], name: str, at: int) -> Axes:
    """The first plot of one of the sheets whose names begin like this."""
    return [figure for path, figure in drawn.items() if path.name.startswith(name)][at].axes[0]


def test_a_whole_slice_is_drawn_at_its_own_scale(plan: Plan, drawn: dict[Path, Figure]) -> None:
    """A sagittal slice of the study has 110 x 180 mm, an axial one 90 x 90 mm."""
    whole = {"crop#whole": True, "crop#marker_mm": 4.0}
    contenders = contenders_of(["cnn"], [2], bundles=[CONDITIONS], settings={"cnn": whole})
    overlays, roots = (find_experiment("document_001").path,), (find_bundle(CONDITIONS).root,)
    own = replace(plan, bundles=roots, contenders=contenders, overlays=overlays, settings={"size": 48}, questions=("severity",))
    write_tiny_runs(own)
    for target in ("spinal_canal_stenosis_l4_l5", "left_subarticular_stenosis_l4_l5"):
        explain(own, f"{case_of(own, 0)}:{target}")
    for at, (edge, marks) in enumerate([(180.0, "APSI"), (90.0, "RLAP")]):
        axes = first_axes(drawn, "grad", at)
        assert axes.images[0].get_extent() == pytest.approx([0.0, edge, 0.0, edge])
        assert [text.get_text() for text in axes.texts] == [*marks, "10 mm"]
        assert np.ptp(axes.lines[0].get_xdata()) == pytest.approx(10.0)


@pytest.fixture
def pictures(plan: Plan, tmp_path: Path) -> Plan:
    """The study as one of pictures without millimetres, whose discs and vertebrae are graded."""
    study, root = tmp_path / "study", find_bundle(DEGENERATION).root
    shutil.copytree(plan.study, study)
    listed = json.loads((study / "datalist.json").read_text())
    (study / "datalist.json").write_text(json.dumps({**listed, "study": midsagittal.STUDY}))
    contenders = contenders_of(["cnn"], [2], bundles=[DEGENERATION])
    made = replace(plan, study=study, bundles=(root,), contenders=contenders, settings={})
    write_tiny_runs(made)
    return made


def test_a_picture_without_millimetres_gets_no_bar_of_them(pictures: Plan, drawn: dict[Path, Figure]) -> None:
    explain(pictures, f"{case_of(pictures, 0)}:l4_l5")
    axes = first_axes(drawn, "grad", 0)
    assert [text.get_text() for text in axes.texts] == [*"APSI"]
    assert not axes.lines


@pytest.mark.parametrize(("target", "asked"), [("l4_l5", ["grade", "schmorl"]), ("l4", ["vertebra"])])
def test_what_a_crop_has_no_label_of_is_not_asked(
    pictures: Plan, drawn: dict[Path, Figure], target: str, asked: list[str]
) -> None:
    explain(pictures, f"{case_of(pictures, 0)}:{target}")
    heads = [path.name.removeprefix(f"grad_cam_{DEGENERATION}_").split("_")[0] for path in drawn if "grad_cam" in path.name]
    assert heads == asked


@pytest.mark.parametrize("axis", [0, 2])
def test_maps_and_filters_are_seen_from_the_side_that_crops_are_seen_from(axis: int) -> None:
    values = np.random.default_rng(0).normal(size=(1, 3, 3, 3)).astype(np.float32)
    axes = Figure().add_subplot()
    draw_slice(axes, values[0].take(1, axis), SliceView((3.0, 3.0), axial=axis == 2))
    seen = np.asarray(axes.images[0].get_array())
    for sheet in (feature_sheet({"conv": values}, "cnn 3D", axis), filter_sheet("conv", values, "cnn 3D", axis)):
        assert np.array_equal(np.asarray(sheet.axes[0].images[0].get_array()), seen)
    assert not np.array_equal(seen, seen[:, ::-1])


def test_filters_of_a_volume_are_cut_as_the_scan_of_each_case_is(plan: Plan, drawn: dict[Path, Figure]) -> None:
    root = find_bundle(CONDITIONS).root
    volumes = replace(
        plan, bundles=(root,), contenders=contenders_of(["cnn"], [3], bundles=[CONDITIONS]), questions=("severity",)
    )
    write_tiny_runs(volumes)
    for target in ("spinal_canal_stenosis_l4_l5", "left_subarticular_stenosis_l4_l5"):
        explain(volumes, f"{case_of(volumes, 0)}:{target}")
    sagittal, axial = (np.asarray(first_axes(drawn, "filters", at).images[0].get_array()) for at in (0, 1))
    assert not np.array_equal(sagittal, axial)
    assert sagittal[1, 1] == axial[1, 1]  # the kernel's middle


def test_weights_that_do_not_fit_are_named_with_what_to_do(plan: Plan) -> None:
    write_tiny_runs(plan)
    run = next(plan.runs())
    for write in (
        lambda: torch.save(torch.nn.Linear(2, 2).state_dict(), run.weights),
        lambda: run.weights.write_bytes(run.weights.read_bytes()[:100]),
        lambda: run.weights.write_bytes(b""),
    ):
        write()
        with pytest.raises(WeightsError, match=r"fold_0/seed_0/model\.pt do not fit .*cnn 2D, fold 1 of 3: .*Remove the folder"):
            explain(plan, case_of(plan, 0))
    run.weights.unlink()
    with pytest.raises(WeightsError, match=r"is not finished: there is no .*model\.pt"):
        explain(plan, case_of(plan, 0))


def test_bundles_that_do_not_have_the_target_are_left_out(plan: Plan) -> None:
    both = replace(plan, bundles=(*plan.bundles, find_bundle(RECESS).root))
    write_down(both)
    case, recess = case_of(both, 1), "left_subarticular_stenosis_l4_l5"
    chosen = choose_case(both, f"{case}:{recess}")
    assert (chosen.case, chosen.fold, dict(chosen.targets)) == (case, 1, {both.bundles[1]: recess})
    severest = choose_case(both, case).targets
    graded = next(one for one in read_datalist(plan.study).cases if one.case == case).targets
    grades = {target.slug: found.severity.index for target, found in graded.items() if found.severity is not None}
    for bundle, name in zip(both.bundles, ("spinal_canal", "subarticular"), strict=True):
        assert grades[severest[bundle]] == max(grade for slug, grade in grades.items() if name in slug)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("spinal_canal_stenosis_l4_l6", r"has no spinal_canal_stenosis_l4_l6\. Did you mean '.*l4_l5'.* It has: .*_l5_s1\."),
        ("left_subarticular_stenosis_l4_l5", "has no left_subarticular_stenosis_l4_l5"),
    ],
)
def test_a_target_that_no_bundle_is_tested_on_is_refused_before_training(plan: Plan, target: str, said: str) -> None:
    write_down(plan)
    with pytest.raises(TableError, match=said):
        choose_case(plan, f"{case_of(plan, 0)}:{target}")
    with pytest.raises(TableError, match=r"No fold tests on a case '1000'.*There are 9"):
        choose_case(plan, "1000")


def test_a_target_that_one_contender_cannot_be_shown_is_none(plan: Plan) -> None:
    """A crop of half a metre lies outside of its scan by more than is allowed."""
    large = {"cnn": {"crop#size_mm": [500.0, 500.0, 500.0]}}
    contenders = (*plan.contenders, *contenders_of(["cnn"], [3], bundles=[CANAL], settings=large))
    both = replace(plan, contenders=contenders)
    write_down(both)
    with pytest.raises(TableError, match=r"has no graded target\. It has: none\."):
        choose_case(both, case_of(both, 0))


@pytest.mark.parametrize(("side", "marks"), [("left", "RLAP"), ("right", "LRAP")])
def test_a_right_recess_that_is_shown_as_a_left_one_bears_its_own_sides(
    plan: Plan, drawn: dict[Path, Figure], side: str, marks: str
) -> None:
    recesses = replace(plan, bundles=(find_bundle(RECESS).root,), settings={"crop#shape": [24, 24, 8]})
    write_tiny_runs(recesses)
    explain(recesses, f"{case_of(recesses, 0)}:{side}_subarticular_stenosis_l4_l5")
    assert [text.get_text() for text in first_axes(drawn, "grad", 0).texts] == [*marks, "10 mm"]
