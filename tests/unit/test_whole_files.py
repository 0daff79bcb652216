"""A file is there as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from monai_spine.comparison.pictures import save_figure
from monai_spine.errors import OutputError
from monai_spine.training.bundle_runs import keep
from monai_spine.whole_files import write_text, written_whole


def broken_off(path: Path) -> None:
    with written_whole(path) as beside:
        beside.write_text("ha")
        raise KeyboardInterrupt


def test_a_file_that_is_broken_off_leaves_the_former_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    write_text(path, "former")
    with pytest.raises(KeyboardInterrupt):
        broken_off(path)
    assert [one.name for one in tmp_path.iterdir()] == ["page.md"]
    assert path.read_text() == "former"


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda folder: write_text(folder / "page.md", ""), "page.md"),
        (lambda folder: save_figure(Figure(), folder / "cost.png"), "cost.png"),
        (lambda folder: keep(folder / "runs", {"epochs": 1}), "settings.json"),
    ],
)
def test_what_cannot_be_written_is_named_with_a_remedy(tmp_path: Path, write: Callable[[Path], object], name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=rf"{name} cannot be written .*Free some space or choose a folder"):
        write(tmp_path / "file")


def test_a_picture_that_fails_halfway_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "filters.png"
    save_figure(Figure(), path)
    former = path.read_bytes()

    def full(self: Figure, where: Path, **_: object) -> None:
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OutputError, match=r"filters\.png cannot be written \(No space left on device\)"):
        save_figure(Figure(), path)
    assert path.read_bytes() == former
    assert len(list(tmp_path.iterdir())) == 1
