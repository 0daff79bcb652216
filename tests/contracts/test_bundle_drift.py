"""The committed grading bundles are what the template gives."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build_bundles() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_bundles", REPOSITORY / "tools" / "build_bundles.py")
    if spec is None or spec.loader is None:
        pytest.fail("tools/build_bundles.py is not there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_committed_bundles_are_what_the_template_gives(build_bundles: ModuleType) -> None:
    assert build_bundles.drifted(REPOSITORY / "bundles") == []


def test_a_change_by_hand_is_noticed(build_bundles: ModuleType, tmp_path: Path) -> None:
    build_bundles.write_bundles(tmp_path)
    assert build_bundles.drifted(tmp_path) == []
    path = tmp_path / "spinal_canal_stenosis_grading" / "configs" / "train.json"
    path.write_text(path.read_text().replace('"batch_size": 32', '"batch_size": 31'))
    assert build_bundles.drifted(tmp_path) == ["spinal_canal_stenosis_grading/configs/train.json"]


def test_new_weights_without_their_hash_are_noticed(build_bundles: ModuleType, tmp_path: Path) -> None:
    build_bundles.write_bundles(tmp_path)
    (tmp_path / "subarticular_stenosis_grading" / "models" / "model.pt").write_bytes(b"weights")
    assert build_bundles.drifted(tmp_path) == ["subarticular_stenosis_grading/configs/metadata.json"]
