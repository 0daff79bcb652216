"""Simulated studies in the prepared layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_spine.errors import TableError
from monai_spine.phantom import prepare_phantom


def test_an_empty_set_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="above 0"):
        prepare_phantom(tmp_path / "out", splits={"training": 0, "validation": 0}, seed=0)
    assert not (tmp_path / "out").exists()
