"""Decoding in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_spine import decoder


@pytest.fixture
def fresh():
    decoder._process.cache_clear()
    yield
    decoder._process.cache_clear()


def test_a_decoder_that_aborts_costs_its_file_only(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(decoder, "_SERVE", "import os, sys; sys.stdin.readline(); os.abort()")
        with pytest.raises(ValueError, match="broke down"):
            decoder.decode(tmp_path / "slice.dcm", [])
    with pytest.raises(ValueError, match="FileNotFoundError"):
        decoder.decode(tmp_path / "slice.dcm", [])
