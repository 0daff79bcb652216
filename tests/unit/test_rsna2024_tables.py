"""The competition's tables: read strictly, written as it gives them, and the priors that come from them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Severity, Side, Target
from monai_spine.errors import OutputError, TableError
from monai_spine.studies.priors import PRIORS_PATH, prior_probabilities, submission_prior
from monai_spine.studies.rsna2024 import (
    TRAIN_COLUMNS,
    LabelledPoint,
    SeriesDescription,
    StudyLabels,
    SubmissionRow,
    prior_by_level,
    read_coordinates,
    read_series_descriptions,
    read_solution,
    read_submission,
    read_train,
    write_submission,
    write_train_tables,
)

LARGE = 4_290_709_089
"""A study id beyond int32, as the real ones are."""

CANAL = Target.parse("spinal_canal_stenosis_l4_l5")


def write_train(folder: Path, *lines: str, columns: tuple[str, ...] = TRAIN_COLUMNS) -> Path:
    path = folder / "train.csv"
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


def train_line(study: object = 1, **labels: str) -> str:
    return ",".join([str(study), *(labels.get(column, "Normal/Mild") for column in TRAIN_COLUMNS[1:])])


def table_lines(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_real_train_keeps_its_ids_and_missing_labels(rsna_tables_dir: Path) -> None:
    train = read_train(rsna_tables_dir / "train.csv")
    labels = train[[target.slug for target in TARGETS]].to_numpy()
    assert train["study_id"].dtype == np.int64
    assert train["study_id"].max() == LARGE
    assert len(train) == 1975
    assert (labels == -1).sum() == 572
    assert labels.max() == 2


def test_real_coordinates_and_series_are_read_whole(rsna_tables_dir: Path) -> None:
    points = read_coordinates(rsna_tables_dir / "train_label_coordinates.csv")
    series = read_series_descriptions(rsna_tables_dir / "train_series_descriptions.csv")
    assert len(points) == 48692
    assert set(points["target"]) == {target.slug for target in TARGETS}
    assert series["series_id"].max() > 2**32 - 10**6
    assert set(points["series_id"]) <= set(series["series_id"])


def test_column_order_is_that_of_the_real_train(rsna_tables_dir: Path) -> None:
    assert tuple(pd.read_csv(rsna_tables_dir / "train.csv", nrows=1).columns) == TRAIN_COLUMNS


def test_real_sample_submission_is_in_the_order_of_targets(rsna_tables_dir: Path, tmp_path: Path) -> None:
    sample = read_submission(rsna_tables_dir / "sample_submission.csv")
    rows = [SubmissionRow(int(study), target, (0.2, 0.3, 0.5)) for study in sample["study"].unique() for target in TARGETS]
    write_submission(reversed(rows), tmp_path / "submission.csv")
    written = pd.read_csv(tmp_path / "submission.csv")
    real = pd.read_csv(rsna_tables_dir / "sample_submission.csv")
    assert list(written.columns) == list(real.columns)
    assert list(written["row_id"]) == list(real["row_id"])


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write_train(tmp_path, "1", columns=("study_id",))
    with pytest.raises(TableError, match=r"train\.csv has no column spinal_canal_stenosis_l1_l2, .* and 19 more"):
        read_train(path)


def test_an_unknown_label_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_train(tmp_path, train_line(1), "", train_line(2, spinal_canal_stenosis_l4_l5="severe"))
    with pytest.raises(TableError, match=r"train\.csv, line 4: spinal_canal_stenosis_l4_l5 is 'severe'.*Normal/Mild, Moderate"):
        read_train(path)


def test_a_study_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"line 3: a second row for study_id '7', the same as line 2 \(1 more like it\)\. Keep one"
    ):
        read_train(write_train(tmp_path, *[train_line(7)] * 3))


@pytest.mark.parametrize("study", ["4003253.0", "4.29e9", "-3", "1_000", "007", "9" * 19])
def test_an_id_that_is_no_whole_number_is_refused(tmp_path: Path, study: str) -> None:
    with pytest.raises(TableError, match=rf"line 2: study_id '{study}' is not a whole number\. .*saved as floats"):
        read_train(write_train(tmp_path, train_line(study)))


@pytest.mark.parametrize("study", ["", "nan", "NaN", "null"])
def test_an_id_that_is_missing_is_asked_for(tmp_path: Path, study: str) -> None:
    with pytest.raises(TableError, match=rf"line 2: study_id '{study}' is not a whole number\. .*missing: give it in every row"):
        read_train(write_train(tmp_path, train_line(study)))


def test_a_line_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 3: 2 cells under a header of 26"):
        read_train(write_train(tmp_path, train_line(1), "2,Severe"))


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 1: column study_id is there twice"):
        read_train(write_train(tmp_path, columns=(*TRAIN_COLUMNS, "study_id")))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"cannot be read .*No such file"):
        read_train(tmp_path / "none.csv")
    with pytest.raises(TableError, match=r"cannot be read .*directory"):
        read_train(tmp_path)
    (tmp_path / "empty.csv").write_text("\n")
    with pytest.raises(TableError, match=r"is empty: there is not even a header"):
        read_train(tmp_path / "empty.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00study_id")
    with pytest.raises(TableError, match=r"is no CSV file in UTF-8"):
        read_train(tmp_path / "binary.csv")
    with pytest.raises(TableError, match=r"no column study_id \(wide, as in train\.csv\) or row_id \(long"):
        read_solution(table_lines(tmp_path, "points.csv", "x,y", "1,2"))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1,2,3,Spinal Canal,L1/L2,1.5,2", "condition is 'Spinal Canal'. Choose from: Spinal Canal Stenosis"),
        ("1,2,3,Spinal Canal Stenosis,L6/S1,1.5,2", "level is 'L6/S1'. Choose from: L1/L2"),
        ("1,2,3.0,Spinal Canal Stenosis,L1/L2,1.5,2", "instance_number '3.0' is not a whole number"),
        ("1,2,3,Spinal Canal Stenosis,L1/L2,left,2", "x is 'left', which is not a number"),
        ("1,2,3,Spinal Canal Stenosis,L1/L2,1.5,inf", "y is 'inf', which is not finite"),
        ("1,2,9,Spinal Canal Stenosis,L5/S1,1.5,2", "a second row for study_id '1', condition 'Spinal Canal Stenosis'"),
    ],
)
def test_a_wrong_point_is_named_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    header = "study_id,series_id,instance_number,condition,level,x,y"
    path = table_lines(tmp_path, "points.csv", header, f"1,{LARGE},3,Spinal Canal Stenosis,L5/S1,1.5,2", line)
    with pytest.raises(TableError, match=rf"points\.csv, line 3: {complaint}"):
        read_coordinates(path)


def test_an_unknown_series_description_is_named(tmp_path: Path) -> None:
    path = table_lines(tmp_path, "series.csv", "study_id,series_id,series_description", "1,2,Axial T1")
    with pytest.raises(TableError, match=r"line 2: series_description is 'Axial T1'\. Choose from: Sagittal T1, "):
        read_series_descriptions(path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1_spinal_canal_stenosis,1,0,0,1", "row_id '1_spinal_canal_stenosis' is not <study_id>_<target>"),
        ("1.0_spinal_canal_stenosis_l1_l2,1,0,0,1", "study id that was saved as a float"),
        ("4.003253e+06_spinal_canal_stenosis_l1_l2,1,0,0,1", "study id that was saved as a float"),
        ("-4258207_spinal_canal_stenosis_l1_l2,1,0,0,1", "study id that was saved as a float or in 32 bits"),
        ("1_spinal_canal_stenosis_l1_l2,1,1,0,1", "the label is 1, 1, 0, which is not one-hot"),
        ("1_spinal_canal_stenosis_l1_l2,0.5,0.5,0,1", "which is not one-hot"),
        ("1_spinal_canal_stenosis_l1_l2,0,0,1,-4", "sample_weight is -4, below 0"),
        ("1_spinal_canal_stenosis_l1_l2,0,0,1,", "sample_weight is '', which is not a number"),
    ],
)
def test_a_wrong_row_of_a_long_solution_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    header = "row_id,normal_mild,moderate,severe,sample_weight"
    path = table_lines(tmp_path, "solution.csv", header, "2_spinal_canal_stenosis_l1_l2,,,,", line)
    with pytest.raises(TableError, match=rf"solution\.csv, line 3: .*{complaint}"):
        read_solution(path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    labels = [StudyLabels(LARGE, {CANAL: Severity.SEVERE, TARGETS[0]: None}), StudyLabels(5, {TARGETS[3]: Severity.MODERATE})]
    points = [LabelledPoint(LARGE, LARGE - 1, 8, TARGETS[7], 322.83185840707966, 0.1)]
    series = [SeriesDescription(LARGE, LARGE - 1, "Axial T2"), SeriesDescription(5, 6, "Sagittal T2/STIR")]
    write_train_tables(tmp_path / "new", labels=labels, points=points, series=series)
    train = read_train(tmp_path / "new" / "train.csv").set_index("study_id")
    assert train.loc[LARGE, CANAL.slug] == 2
    assert train.loc[5, TARGETS[3].slug] == 1
    assert (train.to_numpy() >= 0).sum() == 2
    found = read_coordinates(tmp_path / "new" / "train_label_coordinates.csv").iloc[0]
    assert (found["target"], found["x"], found["instance_number"]) == (TARGETS[7].slug, 322.83185840707966, 8)
    described = read_series_descriptions(tmp_path / "new" / "train_series_descriptions.csv")
    assert list(described["series_description"]) == ["Axial T2", "Sagittal T2/STIR"]
    sample = read_submission(tmp_path / "new" / "sample_submission.csv")
    assert list(sample["study"].unique()) == ["5", str(LARGE)]
    assert list(sample["target"][:25]) == [target.slug for target in TARGETS]


def test_written_tables_look_as_the_real_ones(rsna_tables_dir: Path, tmp_path: Path) -> None:
    write_train_tables(
        tmp_path,
        labels=[StudyLabels(1, {})],
        points=[LabelledPoint(1, 2, 3, Target(Condition.SUBARTICULAR_STENOSIS, Side.LEFT, LEVELS[0]), 1.0, 2.0)],
        series=[SeriesDescription(1, 2, "Axial T2")],
    )
    names = ("train.csv", "train_label_coordinates.csv", "train_series_descriptions.csv", "sample_submission.csv")
    for name in names:
        assert (tmp_path / name).read_text().splitlines()[0] == (rsna_tables_dir / name).read_text().splitlines()[0]
    assert (tmp_path / "train_label_coordinates.csv").read_text().splitlines()[
        1
    ] == "1,2,3,Left Subarticular Stenosis,L1/L2,1.0,2.0"


def test_tables_with_a_repeated_study_or_an_unknown_series_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="2 rows of labels for 1 studies"):
        write_train_tables(tmp_path, labels=[StudyLabels(1, {})] * 2, points=[], series=[])
    with pytest.raises(TableError, match="Unknown series description 'Axial T1'"):
        write_train_tables(tmp_path, labels=[], points=[], series=[SeriesDescription(1, 2, "Axial T1")])
    assert not list(tmp_path.iterdir())


def test_a_submission_is_sorted_by_study_number_then_name(tmp_path: Path) -> None:
    studies = ("1.2.840", 30, 4, "1.2.3")
    write_submission((SubmissionRow(study, target, (1, 0, 0)) for study in studies for target in TARGETS), tmp_path / "s.csv")
    assert list(read_submission(tmp_path / "s.csv")["study"].unique()) == ["4", "30", "1.2.3", "1.2.840"]


def test_an_incomplete_or_impossible_submission_is_not_written(tmp_path: Path) -> None:
    rows = [SubmissionRow(1, target, (0.5, 0.25, 0.25)) for target in TARGETS]
    path = tmp_path / "submission.csv"
    with pytest.raises(
        TableError, match=r"24 rows for 1 studies .* of 25 rows: '1_left_neural_foraminal_narrowing_l1_l2' is missing"
    ):
        write_submission(rows[1:], path)
    with pytest.raises(TableError, match=r"26 rows .*a target is there twice"):
        write_submission([*rows, rows[0]], path)
    for wrong in ((0.5, 0.6, 0.7), (float("nan"), 0.5, 0.5), (-0.5, 1.0, 0.5)):
        with pytest.raises(TableError, match="not three numbers from 0 to 1 with sum 1"):
            write_submission([SubmissionRow(1, TARGETS[0], wrong), *rows[1:]], path)
    assert not list(tmp_path.iterdir())


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rows = [SubmissionRow(1, target, (0.5, 0.25, 0.25)) for target in TARGETS]
    with pytest.raises(OutputError, match=r"submission\.csv cannot be written .*choose a folder"):
        write_submission(rows, tmp_path / "file" / "submission.csv")


def test_prior_pools_the_sides_of_a_level(tmp_path: Path) -> None:
    path = write_train(tmp_path, train_line(1, left_subarticular_stenosis_l1_l2="Severe", right_subarticular_stenosis_l1_l2=""))
    prior = prior_by_level(read_train(path)).set_index(["condition", "level"])
    assert prior.loc[("subarticular_stenosis", "l1_l2"), ["labelled", "severe"]].tolist() == [1, 1]
    assert prior.loc[("subarticular_stenosis", "l2_l3"), ["labelled", "normal_mild"]].tolist() == [2, 1]


def test_prior_of_a_level_without_labels_is_refused(tmp_path: Path) -> None:
    path = write_train(tmp_path, train_line(1, spinal_canal_stenosis_l3_l4=""))
    with pytest.raises(TableError, match="No study of 1 has a label for spinal canal stenosis at L3/L4"):
        prior_by_level(read_train(path))


def test_every_target_has_a_prior_and_its_scaled_form() -> None:
    for target in TARGETS:
        prior, scaled = prior_probabilities(target), submission_prior(target)
        assert sum(prior) == pytest.approx(1, abs=1e-9)
        assert sum(scaled) == pytest.approx(1, abs=1e-9)
        assert [q / p for p, q in zip(prior, scaled, strict=True)] == pytest.approx([scaled[0] / prior[0] * w for w in (1, 2, 4)])
        assert prior_probabilities(target.mirrored) == prior


def fit_priors_tool() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tools" / "fit_priors.py"
    spec = importlib.util.spec_from_file_location("fit_priors", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_priors_are_those_of_the_real_train(rsna_tables_dir: Path, tmp_path: Path) -> None:
    fit_priors_tool().fit_priors(rsna_tables_dir / "train.csv", tmp_path / "priors.csv")
    assert (tmp_path / "priors.csv").read_text() == PRIORS_PATH.read_text()
