"""The simulated anatomy: coordinates along the column round-trip, and a narrowing takes the share it says."""

from __future__ import annotations

import numpy as np
import pytest

from monai_spine.anatomy import DISCS, LEVELS, Condition, Side, Target
from monai_spine.geometry import apply_affine
from monai_spine.levels import BODY_VALUES
from monai_spine.phantom.column import bend_column
from monai_spine.phantom.prepared import describe_case
from monai_spine.phantom.profiles import tabulate_profiles
from monai_spine.phantom.scanner import body_labels
from monai_spine.phantom.simulate import simulate_patient


@pytest.fixture(scope="module")
def patients():
    return [simulate_patient(index, seed=11, max_matrix=192) for index in range(12)]


def test_column_coordinates_round_trip_within_a_tenth_of_a_millimetre():
    curve = bend_column([-100, -40, 0, 60], [42, 20, 0, -8], [0, 5, -4, 2], origin_ras_mm=(4.0, -20.0, 10.0))
    rng = np.random.default_rng(0)
    wanted = np.column_stack([rng.uniform(-25, 25, 200), rng.uniform(-25, 30, 200), rng.uniform(-90, 60, 200)])
    found = np.column_stack(curve.from_ras(np.array([curve.to_ras(*place) for place in wanted])))
    assert np.abs(found - wanted).max() < 0.1


def test_levels_descend_and_stand_as_far_apart_as_real_ones(patients):
    for simulated in patients:
        centres = np.array([simulated.spine.disc_point(level) for level in DISCS])
        gaps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
        assert (np.diff(centres[:, 2]) < 0).all()
        assert gaps.min() > 22
        assert gaps.max() < 48


def test_left_targets_lie_on_the_patients_left(patients):
    spine = patients[0].spine
    for condition in (Condition.NEURAL_FORAMINAL_NARROWING, Condition.SUBARTICULAR_STENOSIS):
        for level in LEVELS:
            left, right = (spine.target_point(Target(condition, side, level))[0] for side in (Side.LEFT, Side.RIGHT))
            assert left < spine.canal_point(level)[0] < right


def test_the_sac_loses_the_share_of_its_section_that_the_latent_says(patients):
    for simulated in patients:
        spine = simulated.spine
        profiles = tabulate_profiles(spine, np.random.default_rng(3))
        for level in LEVELS:
            lost = spine.discs[level].canal
            neighbours = sum(spine.discs[other].canal for other in LEVELS if other is not level)
            if lost < 0.4 or neighbours > 1.0:
                continue
            deepest = spine.disc_s_mm(level) + spine.discs[level].offset_mm
            at = profiles.index_of(np.array([deepest, deepest + 18.0]))
            section = profiles.at("sac_half_width", at) * (profiles.at("sac_front", at) - profiles.at("sac_back", at))
            assert section[0] / section[1] == pytest.approx(1 - lost, abs=0.2)


def test_a_patient_is_fixed_by_its_seed_and_index():
    again, other = simulate_patient(3, seed=11, max_matrix=192), simulate_patient(4, seed=11, max_matrix=192)
    first = simulate_patient(3, seed=11, max_matrix=192)
    np.testing.assert_array_equal(first.reading.latents, again.reading.latents)
    assert first.spine.disc_point(LEVELS[0]) == again.spine.disc_point(LEVELS[0])
    assert not np.allclose(first.reading.latents, other.reading.latents)


def test_labelled_bodies_lie_where_the_anatomy_has_them_t12_included(patients):
    simulated = next(one for one in patients if one.series[0].role.startswith("sagittal"))
    stack = simulated.series[0].stacks[0]
    labels = body_labels(simulated.patient, stack).transpose(2, 1, 0)
    for body, value in BODY_VALUES.items():
        found = apply_affine(stack.affine(), np.argwhere(labels == value)).mean(0)
        assert np.linalg.norm(found - simulated.spine.body_point(body)) < 6, body
    assert describe_case(simulated).discs.keys() == set(DISCS)
