"""A command line that runs in this process, with stand-in bundles and a small study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bundles import write_bundles
from tiny_studies import write_study
from typer.testing import CliRunner, Result

from monai_spine.cli import app


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Path:
    return write_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "spine_1")


@pytest.fixture
def run(bundles, monkeypatch) -> Callable[..., Result]:
    """Run `monai-spine` with the arguments given; what it printed and its exit code come back."""
    monkeypatch.setenv("MONAI_SPINE_BUNDLES", str(bundles))

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke
