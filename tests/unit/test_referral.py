"""Which findings are left to a reader: how the threshold is chosen, and what a bundle says of it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monai_spine.anatomy import TARGETS, Condition, Level, Severity
from monai_spine.errors import WeightsError
from monai_spine.models import GRADERS
from monai_spine.referral import Referral, expected_risk
from monai_spine.studies.priors import prior_probabilities
from monai_spine.studies.submissions import PROBABILITIES, SubmissionRow, write_submission
from monai_spine.training.referral_choice import choose_threshold, referral_effect

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import choose_referral

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
FREQUENCIES = RNG.dirichlet((2.0, 0.7, 0.4), size=4000)
LABELS = (RNG.random((4000, 1)) > FREQUENCIES.cumsum(axis=1)).sum(axis=1).clip(max=2)


def test_a_finding_is_referred_above_the_threshold_and_says_why() -> None:
    referral = Referral(0.4)
    assert referral.doubts((0.6, 0.3, 0.1), Level.L4_L5) == ()
    (doubt,) = referral.doubts((0.55, 0.35, 0.1), Level.L4_L5)
    assert (doubt.flag, doubt.level) == ("referral", Level.L4_L5)
    assert doubt.seen == "expected to be wrong with 45.0 %; above 40.0 % a reader should decide"


def test_a_bundle_without_a_threshold_refers_nothing() -> None:
    assert Referral.from_config(None) is None


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "cannot be used.*needs expected_risk"),
        ({"expected_risk": "much"}, "cannot be used"),
        ({"expected_risk": 40}, "is no share"),
        ({"expected_risk": float("nan")}, "is no share"),
    ],
)
def test_a_threshold_that_is_none_is_refused(config: dict, why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        Referral.from_config(config)


@pytest.mark.parametrize("coverage", [0.5, 0.9, 1.0])
def test_the_share_that_is_wanted_is_kept_and_no_more_than_it_takes(coverage: float) -> None:
    effect = referral_effect(FREQUENCIES, LABELS, choose_threshold(FREQUENCIES, LABELS, coverage=coverage))
    assert 1 - effect.referred >= coverage
    assert 1 - effect.referred == pytest.approx(coverage, abs=0.002)


def test_what_is_kept_errs_as_seldom_as_wanted_and_the_referred_more_often_than_all() -> None:
    threshold = choose_threshold(FREQUENCIES, LABELS, risk=0.1)
    effect = referral_effect(FREQUENCIES, LABELS, threshold)
    assert 0.09 < effect.risk_of_rest <= 0.101
    assert effect.risk_of_rest < effect.risk_of_all < effect.risk_of_referred
    referred = np.array([expected_risk(row) > threshold for row in FREQUENCIES])
    assert referred.mean() == effect.referred
    assert effect.risk_of_referred == (FREQUENCIES.argmax(axis=1) != LABELS)[referred].mean()


def test_a_risk_that_no_threshold_reaches_says_what_can_be_reached() -> None:
    wrong = (FREQUENCIES.argmax(axis=1) + 1) % 3
    with pytest.raises(ValueError, match=r"No threshold makes the risk 0\.1: of the surest .* 100 % are wrong"):
        choose_threshold(FREQUENCIES, wrong, risk=0.1)


@pytest.mark.parametrize("wanted", [{}, {"coverage": 0.5, "risk": 0.1}, {"coverage": 0.0}, {"risk": 1.5}])
def test_one_share_has_to_be_wanted(wanted: dict) -> None:
    with pytest.raises(ValueError, match="either a coverage above 0 and up to 1 or a risk from 0 to 1"):
        choose_threshold(FREQUENCIES, LABELS, **wanted)


def test_the_sentence_holds_what_a_reader_has_to_know() -> None:
    effect = referral_effect(np.array([[0.9, 0.1, 0.0]] * 8 + [[0.4, 0.3, 0.3]] * 2), np.array([0] * 9 + [1]), 0.5)
    assert effect.sentence("a test") == (
        "On 10 findings of a test: 20.0 % are referred to a reader; "
        "0.0 % of the rest are graded wrong, 50 % of those referred, 10.0 % of all."
    )
    assert "nothing is left" in referral_effect(FREQUENCIES, LABELS, 0.0).sentence("a test")


def written_predictions(folder: Path) -> Path:
    """A table as `SavePredictions` writes it, of forty studies."""
    rows = [f"{study},{target.slug}" for study in range(1, 41) for target in TARGETS]
    values = FREQUENCIES[: len(rows)].round(6)
    lines = [f"{row},{','.join(map(str, p))},{label}" for row, p, label in zip(rows, values, LABELS, strict=False)]
    (folder / "predictions.csv").write_text("\n".join(["case,target,normal_mild,moderate,severe,label", *lines]) + "\n")
    return folder / "predictions.csv"


def test_the_tool_prints_thresholds_and_writes_them_into_bundles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied_bundles(tmp_path / "bundles")
    predictions = written_predictions(tmp_path)
    more = ["--source", "forty studies", "--write", str(tmp_path / "bundles")]
    assert choose_referral.main([str(predictions), "--coverage", "0.8", *more]) == 0
    printed = capsys.readouterr().out
    assert "spinal canal stenosis: expected_risk 0." in printed.lower()
    for path in tmp_path.glob("bundles/*/configs/inference.json"):
        section = json.loads(path.read_text())["referral"]
        assert f"expected_risk {section['expected_risk']:.4f}. {section['meaning']}" in printed
        assert re.search(r"findings of forty studies: (20\.0|19\.\d) % are referred to a reader", section["meaning"])


def written_out_of_fold(folder: Path) -> list[str]:
    """`frequencies.csv` and `train.csv` of forty studies whose canals alone were predicted; arguments of the tool."""
    severities = [severity.label for severity in Severity]
    rows, true = [], [["study_id", *(target.slug for target in TARGETS)]]
    labels = iter(LABELS)
    for study in range(1, 41):
        true.append([str(study), *(severities[next(labels)] for _ in TARGETS)])
        for number, target in enumerate(TARGETS):
            predicted = target.condition is Condition.SPINAL_CANAL_STENOSIS and study > 1
            values = FREQUENCIES[25 * (study - 1) + number] if predicted else prior_probabilities(target)
            rows.append(SubmissionRow(study, target, tuple(values)))
    write_submission(rows, folder / "frequencies.csv")
    (folder / "train.csv").write_text("\n".join(",".join(row) for row in true) + "\n")
    return [str(folder / "frequencies.csv"), "--solution", str(folder / "train.csv")]


def copied_bundles(folder: Path) -> dict[Condition, Path]:
    """Copies of the graders' configs; inference.json of each."""
    for name in GRADERS.values():
        shutil.copytree(ROOT / "bundles" / name / "configs", folder / name / "configs")
    return {condition: folder / name / "configs" / "inference.json" for condition, name in GRADERS.items()}


def test_the_prior_is_no_prediction_and_a_condition_without_one_is_not_written(tmp_path: Path) -> None:
    given, bundles = written_out_of_fold(tmp_path), copied_bundles(tmp_path / "bundles")
    before = {condition: path.read_text() for condition, path in bundles.items()}
    assert choose_referral.main([*given, "--coverage", "0.9", "--write", str(tmp_path / "bundles")]) == 0
    changed = [condition for condition, path in bundles.items() if path.read_text() != before[condition]]
    assert changed == [Condition.SPINAL_CANAL_STENOSIS]
    assert "195 findings" in json.loads(bundles[changed[0]].read_text())["referral"]["meaning"], "39 studies of 5 levels"


def test_a_condition_that_cannot_reach_the_risk_is_named_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(written_predictions(tmp_path))
    canal = table["target"].str.startswith(Condition.SPINAL_CANAL_STENOSIS.slug)
    table.loc[canal, "label"] = (table.loc[canal, list(PROBABILITIES)].to_numpy().argmax(axis=1) + 1) % 3
    table.to_csv(tmp_path / "predictions.csv", index=False)
    bundles = copied_bundles(tmp_path / "bundles")
    before = {condition: path.read_text() for condition, path in bundles.items()}
    more = ["--risk", "0.2", "--write", str(tmp_path / "bundles")]
    assert choose_referral.main([str(tmp_path / "predictions.csv"), *more]) == 2
    shown = capsys.readouterr()
    assert "spinal canal stenosis has no threshold, and its bundle is left as it is. No threshold makes the risk" in shown.err
    assert shown.out.count("expected_risk") == shown.out.count("\n") == 2
    kept = [condition for condition, path in bundles.items() if path.read_text() == before[condition]]
    assert kept == [Condition.SPINAL_CANAL_STENOSIS]


def test_a_table_of_nothing_but_priors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [SubmissionRow(1, target, prior_probabilities(target)) for target in TARGETS]
    written_out_of_fold(tmp_path)
    write_submission(rows, tmp_path / "frequencies.csv")
    given = [str(tmp_path / "frequencies.csv"), "--solution", str(tmp_path / "train.csv"), "--coverage", "0.9"]
    assert choose_referral.main(given) == 2
    assert "is predicted and labelled" in capsys.readouterr().err


def test_an_analysis_and_an_out_of_fold_table_say_the_same_with_their_solution(tmp_path: Path) -> None:
    table = choose_referral.graded_findings([written_predictions(tmp_path)])
    by_slug = {target.slug: target for target in TARGETS}
    rows = [SubmissionRow(row.study, by_slug[row.target], tuple(row[list(PROBABILITIES)])) for _, row in table.iterrows()]
    write_submission(rows, tmp_path / "frequencies.csv")
    header = ["study_id", *by_slug]
    names = [severity.label for severity in Severity]
    wide = [
        [study, *(names[group.set_index("target")["label"][slug]] for slug in by_slug)] for study, group in table.groupby("study")
    ]
    (tmp_path / "train.csv").write_text("\n".join(",".join(row) for row in [header, *wide]) + "\n")
    for study, group in table.groupby("study"):
        places = [(by_slug[row["target"]], {name: row[name] for name in PROBABILITIES}) for _, row in group.iterrows()]
        (tmp_path / "results" / study).mkdir(parents=True)
        grades = [
            {
                "condition": target.condition.value,
                "side": target.side and target.side.value,
                "level": target.level.label,
                "probabilities": values,
            }
            for target, values in places
        ]
        (tmp_path / "results" / study / "result.json").write_text(json.dumps({"grades": grades}))
    wanted = choose_referral.effects(table, table, coverage=0.9)
    for source in ("frequencies.csv", "results"):
        other = choose_referral.graded_findings([tmp_path / source], tmp_path / "train.csv")
        assert choose_referral.effects(other, other, coverage=0.9) == wanted
    assert choose_referral.main([str(tmp_path), "--coverage", "0.9", "--solution", str(tmp_path / "train.csv")]) == 2
