"""Replicas of the RSNA 2024 studies, as planned: real points meet the structures they name. Nothing is rendered."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Severity, Side
from monai_spine.errors import TableError
from monai_spine.phantom.profiles import tabulate_profiles
from monai_spine.phantom.readers import sample_reading_of
from monai_spine.phantom.replica.choice import choose_studies, quirks_of
from monai_spine.phantom.replica.equations import Equations
from monai_spine.phantom.replica.frames import instance_numbers
from monai_spine.phantom.replica.study import replicate
from monai_spine.phantom.replica.tables import SOURCE_TABLES, ReplicaTables
from monai_spine.phantom.structures import lies_in

CANAL_ON_T1 = 3637444890
FAR_INSTANCES = 2683794967
LEVEL_OFF_ON_THE_RIGHT = 2530679352
NO_POINTS_NO_T2 = 3008676218
BOTH_SIDES_ON_ONE_SLICE = 2388577668


@pytest.fixture(scope="module")
def tables(rsna_tables_dir):
    return ReplicaTables.read(rsna_tables_dir)


@pytest.fixture(scope="module")
def sample(tables):
    chosen = np.random.default_rng(7).choice(list(tables.studies), 40, replace=False).tolist()
    return [replicate(tables.studies[study], seed=3, max_matrix=320) for study in chosen]


def _hits(replicas, condition):
    return [
        lies_in(replica.simulated.patient, point.target, replica.locate(point))
        for replica in replicas
        for point in replica.table.points
        if point.target.condition is condition
    ]


@pytest.mark.parametrize(
    ("condition", "share"),
    [
        (Condition.SPINAL_CANAL_STENOSIS, 0.98),
        (Condition.NEURAL_FORAMINAL_NARROWING, 0.90),
        (Condition.SUBARTICULAR_STENOSIS, 0.96),
    ],
)
def test_real_points_lie_in_the_structures_that_they_name(sample, condition, share):
    assert np.mean(_hits(sample, condition)) > share


def test_a_point_moved_by_a_level_or_a_side_lies_in_another_structure(sample):
    for replica in sample[:10]:
        spine, patient = replica.simulated.spine, replica.simulated.patient
        for target in TARGETS:
            assert lies_in(patient, target, spine.target_point(target)), target
            other = target.mirrored if target.side else None
            assert other is None or not lies_in(patient, other, spine.target_point(target))
            below = next((one for one in TARGETS if one.kind == target.kind and one.level > target.level), None)
            assert below is None or not lies_in(patient, below, spine.target_point(target))


def test_sagittal_slices_lie_where_the_table_of_positions_has_them(sample):
    compared = 0
    for replica in sample:
        for series, slices in zip(replica.table.series, replica.slices, strict=True):
            for instance, place in series.positions_ras_mm.items():
                np.testing.assert_allclose(slices.locate(instance, 0, 0), place, atol=1e-3)
                compared += 1
    assert compared > 50


def test_series_have_the_slices_and_matrices_of_the_tables(tables):
    for study in choose_studies(tables, studies=20, seed=2):
        replica = replicate(tables.studies[study], seed=0, max_matrix=1024)
        assert replica.scales == (1.0,) * len(replica.table.series)
        for series, slices in zip(replica.table.series, replica.slices, strict=True):
            assert sum(len(stack.centers_ras_mm) for stack in slices.stacks) == series.slices == len(slices.numbers)
            assert {stack.stored for stack in slices.stacks} == {series.shape, series.other_shape or series.shape}


def test_a_smaller_matrix_covers_the_same_field_and_keeps_points_in_place(tables):
    table = tables.studies[CANAL_ON_T1]
    whole, small = (replicate(table, seed=0, max_matrix=edge) for edge in (1024, 200))
    assert max(max(stack.stored) for slices in small.slices for stack in slices.stacks) == 200
    for point in table.points:
        np.testing.assert_allclose(whole.locate(point), small.locate(point), atol=1e-6)


def test_a_study_does_not_depend_on_the_others_but_on_the_seed(tables):
    table = tables.studies[CANAL_ON_T1]
    first, again, other = (replicate(table, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.simulated.reading.latents, again.simulated.reading.latents)
    assert first.simulated.spine.canal_point(LEVELS[0]) == again.simulated.spine.canal_point(LEVELS[0])
    assert not np.allclose(first.simulated.reading.latents, other.simulated.reading.latents)


def test_the_grades_of_the_tables_are_shown_by_the_anatomy(sample):
    lost = {severity: [] for severity in Severity}
    for replica in sample:
        assert {
            t: s for t, s in zip(TARGETS, replica.simulated.reading.severities, strict=True) if t in replica.table.grades
        } == (dict(replica.table.grades))
        for target, severity in replica.table.grades.items():
            if target.condition is Condition.SPINAL_CANAL_STENOSIS:
                lost[severity].append(replica.simulated.spine.discs[target.level].canal)
    means = [np.mean(lost[severity]) for severity in Severity]
    assert means[0] < 0.2 < 1 / 3 < means[1] < means[2]


def test_latents_given_grades_are_those_of_patients_with_these_grades():
    """Drawing grades first and latents from them gives back what drawing latents first does."""
    from monai_spine.phantom.readers import sample_reading

    rng = np.random.default_rng(0)
    drawn = [sample_reading(rng) for _ in range(400)]
    again = [sample_reading_of(rng, dict(zip(TARGETS, reading.severities, strict=True))) for reading in drawn]
    before, after = (np.array([reading.latents for reading in readings]) for readings in (drawn, again))
    spread = before.std(0)
    np.testing.assert_allclose(before.mean(0) / spread, after.mean(0) / spread, atol=0.2)
    np.testing.assert_allclose(after.std(0) / spread, 1.0, atol=0.15)
    assert np.abs(np.corrcoef(before.T) - np.corrcoef(after.T)).mean() < 0.06


def test_rare_quirks_and_severe_cells_are_chosen_and_the_choice_is_fixed_by_its_seed(tables):
    chosen = choose_studies(tables, studies=60, seed=1)
    assert chosen == choose_studies(tables, studies=60, seed=1) != choose_studies(tables, studies=60, seed=2)
    assert len(set(chosen)) == 60
    assert {quirk for study in chosen for quirk in quirks_of(tables.studies[study])} == {
        quirk for table in tables.studies.values() for quirk in quirks_of(table)
    }
    severe = {t for study in chosen for t, grade in tables.studies[study].grades.items() if grade is Severity.SEVERE}
    assert severe == set(TARGETS)


def test_more_studies_than_there_are_are_refused(tables):
    with pytest.raises(TableError, match="1976 studies were asked for, the tables have 1975"):
        choose_studies(tables, studies=1976, seed=0)


def test_every_study_can_be_replicated_in_its_slices(tables):
    """The plan of the instances covers all that the tables name, in all studies."""
    for table in tables.studies.values():
        for series in table.series:
            numbers = instance_numbers(series, table.points_on(series))
            assert len(numbers) == series.slices
            assert {point.instance for point in table.points_on(series)} <= set(numbers)


def test_an_axial_series_may_be_one_stack_or_blocks_with_own_orientations(sample):
    blocks = [slices.stacks for replica in sample for series, slices in zip(replica.table.series, replica.slices, strict=True)
              if series.is_axial]  # fmt: skip
    assert {1, 5} <= {len(stacks) for stacks in blocks}
    for stacks in blocks:
        for upper, lower in pairwise(stacks):
            assert not np.allclose(upper.normal_ras, lower.normal_ras) or upper.stored != lower.stored


def test_canal_points_on_a_t1_series_lie_in_the_canal(tables):
    replica = replicate(tables.studies[CANAL_ON_T1], seed=0)
    assert "canal points on T1" in quirks_of(replica.table)
    assert all(_hits([replica], Condition.SPINAL_CANAL_STENOSIS))


def test_instance_numbers_may_exceed_the_slice_count(tables):
    replica = next(
        replicate(table, seed=0)
        for table in tables.studies.values()
        if any(series.series_id == FAR_INSTANCES for series in table.series)
    )
    slices = next(s for series, s in zip(replica.table.series, replica.slices, strict=True) if series.series_id == FAR_INSTANCES)
    assert max(slices.numbers) > 5000 > len(slices.numbers)
    assert np.mean(_hits([replica], Condition.SUBARTICULAR_STENOSIS)) > 0.8


def test_points_that_name_a_wrong_level_stay_wrong_and_take_no_others_with_them(tables):
    """The right foramina are one level off there: the canal and the left foramina agree on where the levels are."""
    replica = replicate(tables.studies[LEVEL_OFF_ON_THE_RIGHT], seed=1)
    assert "levels of one side off" in quirks_of(replica.table)
    inside = {Side.LEFT: [], Side.RIGHT: []}
    for point in replica.table.points:
        if point.target.condition is Condition.NEURAL_FORAMINAL_NARROWING:
            inside[point.target.side].append(lies_in(replica.simulated.patient, point.target, replica.locate(point)))
    assert all(_hits([replica], Condition.SPINAL_CANAL_STENOSIS))
    assert min(sum(hits) for hits in inside.values()) == 0


def test_sides_on_a_wrong_slice_stay_on_it(tables):
    replica = replicate(tables.studies[BOTH_SIDES_ON_ONE_SLICE], seed=1)
    assert "foraminal sides on wrong slices" in quirks_of(replica.table)
    hits = _hits([replica], Condition.NEURAL_FORAMINAL_NARROWING)
    assert sum(hits) <= len(hits) / 2


def test_a_study_without_points_and_without_t2_has_a_spine_all_the_same(tables):
    replica = replicate(tables.studies[NO_POINTS_NO_T2], seed=0)
    assert {"no T2 series"} <= quirks_of(replica.table)
    assert not replica.table.points
    assert tabulate_profiles(replica.simulated.spine, np.random.default_rng(0)).tables["sac_front"].max() < 0


@pytest.mark.parametrize("missing", SOURCE_TABLES)
def test_a_missing_table_is_named_with_what_to_do(rsna_tables_dir, tmp_path, missing):
    for name in SOURCE_TABLES:
        if name != missing:
            (tmp_path / name).symlink_to(rsna_tables_dir / name)
    with pytest.raises(TableError, match=rf"{missing} is not there.*Give a folder"):
        ReplicaTables.read(tmp_path)


def test_a_missing_column_is_named_with_its_file(rsna_tables_dir, tmp_path):
    for name in SOURCE_TABLES:
        shutil.copyfile(rsna_tables_dir / name, tmp_path / name)
    path = tmp_path / "series_size_and_slice_count.csv"
    path.write_text(path.read_text().replace("n_slices", "slices", 1))
    with pytest.raises(TableError, match=r"series_size_and_slice_count\.csv has no column n_slices"):
        ReplicaTables.read(tmp_path)


def test_equations_that_are_wrong_together_are_outvoted():
    equations = Equations()
    for value in (0.0, 0.3, -0.2, 0.1):
        equations.add({"x": 1.0}, value, sigma=0.5, group="right")
    for value in (30.0, 30.4, 29.8):
        equations.add({"x": 1.0}, value, sigma=0.5, group="wrong")
    assert abs(equations.solve()["x"]) < 1.0
