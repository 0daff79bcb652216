"""A comparison whose runs are made up: weights that learnt nothing, and answers and epochs beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from monai_spine.anatomy import LEVELS, Condition, Target
from monai_spine.comparison.plan import Plan, Run, parsed_config, write_down
from monai_spine.comparison.questions import QUESTIONS
from monai_spine.studies.prepared import read_datalist


def write_tiny_runs(plan: Plan) -> None:
    """Write down a plan, and all of its runs as if they were finished."""
    write_down(plan)
    for number, run in enumerate(plan.runs()):
        run.folder.mkdir(parents=True)
        pd.DataFrame({"epoch": [1, 2], "seconds": 1.0, "mean_train_loss": 1.0, "validation_loss": 1.0}).to_csv(
            run.epochs, index=False
        )
        _answers(run, np.random.default_rng(number)).to_csv(run.answers, index=False)
        torch.save(parsed_config(plan, run.bundle, run.contender).get_parsed_content("network_def").state_dict(), run.weights)


def _answers(run: Run, rng: np.random.Generator) -> pd.DataFrame:
    """Answers about the canals of the test's studies."""
    questions = QUESTIONS[run.bundle.name]
    slugs = [Target(Condition.SPINAL_CANAL_STENOSIS, None, level).slug for level in LEVELS]
    names = [(case, slug) for case in read_datalist(run.plan.fold(run.fold)).splits["test"] for slug in slugs]
    table = pd.DataFrame(names, columns=["case", "target"])
    shares = np.concatenate([rng.dirichlet(np.ones(len(one.answers)), len(table)) for one in questions], axis=1)
    for at, column in enumerate(shares.T):
        table[f"probability_{at}"] = column
    for at, question in enumerate(questions):
        table[f"label_{at}"] = rng.integers(len(question.answers), size=len(table))
    return table
