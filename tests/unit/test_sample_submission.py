"""A submission looks as the competition's sample does, to the byte; and a replica has one of its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from monai_spine.anatomy import TARGETS
from monai_spine.phantom.replica.export import _write_test_tables
from monai_spine.phantom.replica.tables import ReplicaTables
from monai_spine.report.tables import study_submission
from monai_spine.studies.submissions import SubmissionRow, read_submission, write_submission, write_uniform_submission

SMALL, LARGE = 4_003_253, 4_290_709_089
THIRD = "0.3333333333333333"
KINDS = (
    "left_neural_foraminal_narrowing",
    "left_subarticular_stenosis",
    "right_neural_foraminal_narrowing",
    "right_subarticular_stenosis",
    "spinal_canal_stenosis",
)
LEVELS = ("l1_l2", "l2_l3", "l3_l4", "l4_l5", "l5_s1")


def lines_of(*studies: object, cells: str = f"{THIRD},{THIRD},{THIRD}") -> str:
    rows = [f"{study}_{kind}_{level},{cells}\n" for study in studies for kind in KINDS for level in LEVELS]
    return "".join(["row_id,normal_mild,moderate,severe\n", *rows])


def test_a_sample_submission_has_the_bytes_of_the_real_one(rsna_tables_dir: Path, tmp_path: Path) -> None:
    write_uniform_submission([44036939], tmp_path / "sample.csv")
    assert (tmp_path / "sample.csv").read_bytes() == (rsna_tables_dir / "sample_submission.csv").read_bytes()


def test_a_submission_has_these_bytes_whatever_the_order_of_its_rows_and_ids_beyond_32_bits(tmp_path: Path) -> None:
    rows = [SubmissionRow(study, target, (0.5, 0.25, 0.25)) for study in (LARGE, SMALL) for target in reversed(TARGETS)]
    write_submission(rows, tmp_path / "submission.csv")
    assert (tmp_path / "submission.csv").read_bytes().decode() == lines_of(SMALL, LARGE, cells="0.5,0.25,0.25")
    write_uniform_submission([LARGE, SMALL], tmp_path / "sample.csv")
    assert (tmp_path / "sample.csv").read_bytes().decode() == lines_of(SMALL, LARGE)
    assert list(read_submission(tmp_path / "sample.csv")["study"].unique()) == [str(SMALL), str(LARGE)]


@pytest.mark.parametrize("probabilities", [(0.7, 0.2, 0.1), (0.999998, 1e-6, 1e-6), (0.333333, 0.333333, 0.333334)])
def test_probabilities_of_an_analysis_sum_to_1_in_its_submission(tmp_path: Path, probabilities: tuple[float, ...]) -> None:
    named = dict(zip(("normal_mild", "moderate", "severe"), probabilities, strict=True))
    graded = {"condition": "spinal_canal_stenosis", "side": None, "level": "L4/L5", "status": "graded", "probabilities": named}
    rows, notes = study_submission(str(LARGE), {"grades": [graded]})
    assert len(notes) == 24, "a finding that was not graded takes the prior"
    write_submission(rows, tmp_path / "submission.csv")
    lines = (tmp_path / "submission.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == [line.split(",")[0] for line in lines_of(LARGE).splitlines()[1:]]
    for line in lines:
        assert sum(map(float, line.split(",")[1:])) == pytest.approx(1, abs=1e-9)


@pytest.fixture
def replica(rsna_tables_dir: Path, tmp_path: Path) -> Callable[[Path], Path]:
    contents = ReplicaTables.read(rsna_tables_dir)
    chosen = tuple(list(contents.studies)[::-400])

    def write(tables: Path) -> Path:
        _write_test_tables(tmp_path, tables, contents, chosen)
        return tmp_path

    return write


def test_a_replica_has_the_test_tables_of_its_own_studies(replica: Callable[[Path], Path], rsna_tables_dir: Path) -> None:
    out = replica(rsna_tables_dir)
    sample = (out / "sample_submission.csv").read_bytes()
    assert sample.splitlines()[0] == (rsna_tables_dir / "sample_submission.csv").read_bytes().splitlines()[0]
    studies = list(dict.fromkeys(line.split(b"_")[0] for line in sample.splitlines()[1:]))
    assert len(sample.splitlines()) == 1 + 25 * len(studies)
    assert all(int(one) < int(next_) for one, next_ in pairwise(studies))
    assert int(studies[-1]) > 2**31
    series = (out / "test_series_descriptions.csv").read_bytes().splitlines()
    real = (rsna_tables_dir / "train_series_descriptions.csv").read_bytes().splitlines()
    assert series[0] == (rsna_tables_dir / "test_series_descriptions.csv").read_bytes().splitlines()[0]
    assert sorted(series[1:]) == sorted(line for line in real[1:] if line.split(b",")[0] in studies)


def test_a_replica_of_tables_without_them_has_none(replica: Callable[[Path], Path], tmp_path: Path) -> None:
    assert not list(replica(tmp_path / "nowhere").glob("*.csv"))
