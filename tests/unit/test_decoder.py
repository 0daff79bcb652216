"""Decoding in a process of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames

from monai_spine import decoder

PACKED = {"rle": 4, "jpeg_lossless": 5, "jpeg_ls": 7, "jpeg_2000": 9}
"""Files of one picture in several transfer syntaxes."""


@pytest.fixture
def fresh():
    decoder._process.cache_clear()
    yield
    decoder._process.cache_clear()


@pytest.fixture(params=PACKED)
def packed(request: pytest.FixtureRequest, dicom_oddities_dir: Path) -> Path:
    return dicom_oddities_dir / "dcm_qa_ts" / "In" / f"{PACKED[request.param]}.dcm"


def with_stream(path: Path, changed, to: Path) -> Path:
    """The same file around another stream of pixels."""
    dataset = pydicom.dcmread(path)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([changed(stream)])
    dataset.save_as(to)
    return to


def fuzzed(stream: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    values = np.frombuffer(stream, np.uint8).copy()
    values[rng.integers(0, len(values), 40)] = rng.integers(0, 256, 40)
    return values.tobytes()


def test_a_decoder_that_aborts_costs_its_file_only(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(decoder, "_SERVE", "import os, sys; sys.stdin.readline(); os.abort()")
        with pytest.raises(ValueError, match="broke down"):
            decoder.decode(tmp_path / "slice.dcm", [])
    with pytest.raises(ValueError, match="FileNotFoundError"):
        decoder.decode(tmp_path / "slice.dcm", [])


def test_a_decoder_that_hangs_is_ended(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decoder, "_SERVE", "import time; time.sleep(600)")
    monkeypatch.setattr(decoder, "DECODING_SECONDS", 0.2)
    with pytest.raises(ValueError, match="broke down"):
        decoder.decode(tmp_path / "slice.dcm", [])


def test_a_good_file_has_the_pixels_that_pydicom_decodes(packed: Path) -> None:
    expected = pydicom.dcmread(packed).pixel_array
    found = decoder.decode(packed, [])
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_stream_that_ends_too_early_is_refused(packed: Path, tmp_path: Path) -> None:
    cut = with_stream(packed, lambda stream: stream[: len(stream) // 3 * 2], tmp_path / "cut.dcm")
    with pytest.raises(ValueError, match=r"Unable to decode|broke down"):
        decoder.decode(cut, [])
    short = tmp_path / "short.dcm"
    short.write_bytes(packed.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="End of file reached"):
        decoder.decode(short, [])
    assert decoder.decode(packed, []).shape == (384, 384), "the next file is decoded as ever"


@pytest.mark.parametrize("seed", range(4))
def test_a_fuzzed_stream_is_refused_or_gives_a_picture_of_its_size(packed: Path, tmp_path: Path, seed: int) -> None:
    path = with_stream(packed, lambda stream: fuzzed(stream, seed), tmp_path / "fuzzed.dcm")
    started = time.monotonic()
    try:
        found = decoder.decode(path, [])
    except ValueError:
        pass
    else:
        assert (found.shape, found.dtype.itemsize) == ((384, 384), 2)
    assert time.monotonic() - started < decoder.DECODING_SECONDS + 10, "a decoder that hangs is ended"
    assert decoder.decode(packed, []).shape == (384, 384), "the next file is decoded as ever"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process's address space reliably")
def test_a_decoder_that_wants_too_much_memory_is_refused_it(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import resource

    large = tmp_path / "large.dcm"
    large.write_bytes(bytes(1 << 26))
    reading = "decoder.DECODING_BYTES = 1 << 20; decoder.read_whole = lambda path, **_: path.read_bytes()"
    monkeypatch.setattr(decoder, "_SERVE", f"from monai_spine import decoder; {reading}; decoder.serve()")
    with pytest.raises(ValueError, match=r"MemoryError|broke down"):
        decoder.decode(large, [])
    monkeypatch.undo()
    decoder._process.cache_clear()
    with pytest.raises(ValueError, match="FileNotFoundError"):
        decoder.decode(tmp_path / "slice.dcm", [])
    assert resource.prlimit(decoder._process().pid, resource.RLIMIT_AS)[0] <= decoder.DECODING_BYTES
