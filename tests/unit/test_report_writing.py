"""Writing a study's folder: all of it or nothing."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from report_cases import body_map, case

from monai_spine.errors import OutputError
from monai_spine.report import DEFAULT_FORMATS, FORMATS, OutputFormatError, check_formats, write_result
from monai_spine.report.writing import write_file


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: these tests are about files."""
    monkeypatch.setattr("monai_spine.report.figures.draw_figures", lambda result, images: {"sagittal_sagittal_t2.png": b"png"})


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quick")
def test_a_study_gets_the_files_of_its_formats_and_a_mark_that_it_is_complete(tmp_path: Path) -> None:
    write_result(*case(), tmp_path / "deep" / "one", formats=(*DEFAULT_FORMATS, "nifti"))
    assert files_in(tmp_path / "deep") == {
        f"one/{name}"
        for name in (
            "report.html", "result.json", "grades.csv", "series.json", "figures/sagittal_sagittal_t2.png",
            "segmentation/vertebral_bodies.nii.gz", ".complete",
        )
    }  # fmt: skip


def test_result_json_is_written_whatever_the_formats_because_a_run_is_summed_up_from_it(tmp_path: Path) -> None:
    write_result(*case(), tmp_path / "one", formats=("csv",))
    assert files_in(tmp_path / "one") == {"result.json", "series.json", "grades.csv", ".complete"}


def test_the_nifti_mask_has_the_bodies_labels_and_place(tmp_path: Path) -> None:
    write_result(*case(), tmp_path / "one", formats=("nifti",))
    image = nibabel.load(tmp_path / "one" / "segmentation" / "vertebral_bodies.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), body_map().array)
    np.testing.assert_allclose(image.affine, body_map().affine)


def test_a_study_without_masks_has_no_segmentation(tmp_path: Path) -> None:
    result, images = case()
    write_result(replace(result, levels=replace(result.levels, bodies=None)), images, tmp_path / "one", formats=("nifti",))
    assert not (tmp_path / "one" / "segmentation").exists()


def fail_after(monkeypatch: pytest.MonkeyPatch, writes: int, code: int) -> None:
    """Let the disk fail from a given write on, having written half of that file."""
    done = []
    real = Path.write_bytes

    def write_bytes(path: Path, data: Any) -> int:
        done.append(path)
        if len(done) > writes:
            real(path, bytes(data)[: len(data) // 2])
            raise OSError(code, os.strerror(code), str(path))
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("writes", range(5))
def test_a_full_disk_leaves_nothing_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    fail_after(monkeypatch, writes, errno.ENOSPC)
    with pytest.raises(OutputError, match=r"one was not written \(No space left on device\)\. The disk is full: free some space"):
        write_result(*case(), tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.EACCES, "You may not write there"), (errno.EROFS, "read-only"), (errno.EIO, "Choose another --output")],
)
def test_other_failures_of_the_disk_come_with_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    fail_after(monkeypatch, 0, code)
    with pytest.raises(OutputError, match=remedy) as caught:
        write_result(*case(), tmp_path / "one", formats=("json",))
    assert isinstance(caught.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_results_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(*case(), tmp_path / "one", formats=("csv",))
    before = files_in(tmp_path)
    fail_after(monkeypatch, 1, errno.ENOSPC)
    with pytest.raises(OutputError, match="The disk is full"):
        write_result(*case(), tmp_path / "one", formats=("csv",))
    assert files_in(tmp_path) == before


def test_results_that_cannot_be_put_in_place_leave_those_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(*case(), tmp_path / "one", formats=("csv",))
    before, real = files_in(tmp_path), Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="The disk is full"):
        write_result(*case(), tmp_path / "one", formats=("json",))
    assert files_in(tmp_path) == before


def test_a_failure_of_another_kind_leaves_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw_figures(result: object, images: object) -> dict[str, bytes]:
        raise ZeroDivisionError("drawn by nobody")

    monkeypatch.setattr("monai_spine.report.figures.draw_figures", draw_figures)
    with pytest.raises(ZeroDivisionError, match="drawn by nobody"):
        write_result(*case(), tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_finished_results_are_replaced_as_a_whole(tmp_path: Path) -> None:
    write_result(*case(), tmp_path / "one", formats=("csv", "nifti"))
    write_result(*case(), tmp_path / "one", formats=("json",))
    assert files_in(tmp_path) == {"one/result.json", "one/series.json", "one/.complete"}


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".one.partial" / "figures").mkdir(parents=True)
    (tmp_path / ".one.partial" / "figures" / "old.png").touch()
    write_result(*case(), tmp_path / "one", formats=("json",))
    assert files_in(tmp_path) == {"one/result.json", "one/series.json", "one/.complete"}


def test_a_folder_that_monai_spine_did_not_write_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="holds something that monai_spine did not write"):
        write_result(*case(), tmp_path / "one", formats=("json",))
    assert files_in(tmp_path) == {"one/thesis.tex"}


def test_formats_are_put_in_order_without_doubles() -> None:
    assert check_formats([" HTML", "json", "html", ""]) == ("json", "html")
    assert check_formats(DEFAULT_FORMATS) == DEFAULT_FORMATS


@pytest.mark.parametrize(("given", "named"), [(("json", "pdf"), "pdf"), ((), "''")])
def test_an_unknown_format_is_refused_with_the_choices(given: tuple[str, ...], named: str) -> None:
    with pytest.raises(OutputFormatError, match=f"Unknown format .*{named}.*{', '.join(FORMATS)}") as caught:
        check_formats(given)
    assert caught.value.exit_code == 2


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "run.json", "old")

    def replace_fails(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", replace_fails)
    with pytest.raises(OutputError, match=r"run\.json was not written .* The disk is full"):
        write_file(tmp_path / "run.json", "new")
    assert files_in(tmp_path) == {"run.json"}
    assert (tmp_path / "run.json").read_text(encoding="utf-8") == "old"
