"""What all tests share: where real data lies, and how a test that needs it is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _data_root() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("MONAI_SPINE_TEST_DATA", default))


def _need(name: str) -> Path:
    folder = _data_root() / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not there: set MONAI_SPINE_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def lumbar_volumes_dir() -> Path:
    """Real sagittal volumes with label maps."""
    return _need("lumbar_volumes")


@pytest.fixture(scope="session")
def dicom_oddities_dir() -> Path:
    """Real third-party DICOM files with reference conversions."""
    return _need("dicom_oddities")


@pytest.fixture(scope="session")
def rsna_tables_dir() -> Path:
    """The tables of the RSNA 2024 challenge."""
    return _need("rsna2024")


@pytest.fixture(scope="session")
def midsagittal_dir() -> Path:
    """Real mid-sagittal pictures with points."""
    return _need("midsagittal")
