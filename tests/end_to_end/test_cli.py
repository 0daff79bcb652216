from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import jsonschema
import pytest
from tiny_studies import SAGITTAL_T1, SAGITTAL_T2, StudySpec, write_study

import monai_spine
from monai_spine.anatomy import TARGETS

SCHEMA = Path(monai_spine.__file__).parent / "report" / "result.schema.json"
COMMANDS = {"compare", "analyze", "evaluate", "info", "inspect", "phantom", "prepare", "weights"}
HEAVY = ("torch", "monai", "numpy", "pydicom", "pandas", "matplotlib", "SimpleITK", "nibabel", "rich.progress")


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60)


def _two_studies(folder: Path) -> Path:
    for name in ("a", "b"):
        write_study(folder / name, [SAGITTAL_T2], StudySpec(seed=name))
    return folder


def test_help_lists_the_commands(run):
    result = run("--help")
    assert result.exit_code == 0
    listed = {line.split()[0] for line in result.stdout.split("Commands:")[1].splitlines() if line.strip()}
    assert listed == COMMANDS


def test_the_package_itself_runs_as_the_command():
    assert _python("-m", "monai_spine", "--version").stdout == f"monai_spine {monai_spine.__version__}\n"


def test_help_imports_nothing_heavy_and_answers_within_a_second():
    code = "import sys, monai_spine.cli as cli; cli.app(['--help'], standalone_mode=False); print(*sys.modules, file=sys.stderr)"
    before = getrusage(RUSAGE_CHILDREN)
    done = _python("-c", code)
    after = getrusage(RUSAGE_CHILDREN)
    assert "analyze" in done.stdout
    assert set(HEAVY) & set(done.stderr.split()) == set()
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # of the processor: others may be at work


def test_every_command_has_help(run):
    parts = {"prepare": ("phantom", "lumbar_volumes", "midsagittal", "nifti"), "weights": ("list", "verify", "record")}
    for command in [*COMMANDS, *(f"{group} {part}" for group, names in parts.items() for part in names)]:
        result = run(*command.split(), "--help")
        assert result.exit_code == 0
        assert "Usage: " in result.stdout


def test_the_version_is_printed(run):
    assert run("--version").stdout == f"monai_spine {monai_spine.__version__}\n"


def test_inspect_says_role_and_reason_of_each_series(run, study):
    result = run("inspect", study)
    assert result.exit_code == 0
    for name in ("Sagittal T1", "Sagittal T2/STIR", "Axial T2"):
        assert re.search(rf"\* {name} ", result.stdout)
    assert "TE 100 ms, TR 3500 ms: T2-weighted" in result.stdout


def test_inspect_gives_json(run, study):
    content = json.loads(run("inspect", study, "--json").stdout)
    assert [series["role"] for series in content["series"]] == ["sagittal_t1", "sagittal_t2", "axial_t2"]
    assert all(series["used"] and series["reason"] and series["files"] == 5 for series in content["series"])


def test_inspect_gives_a_list_for_a_batch_however_many_can_be_read(run, tmp_path):
    write_study(tmp_path / "good", [SAGITTAL_T2])
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04")
    result = run("inspect", tmp_path, "--json")
    assert result.exit_code == 5
    (only,) = json.loads(result.stdout)
    assert only["study"]["source"] == str(tmp_path / "good")


def test_inspect_works_without_torch(study):
    code = (
        "import sys; sys.modules.update(torch=None, monai=None); from monai_spine.cli import app;"
        f"app(['inspect', {str(study)!r}], standalone_mode=False)"
    )
    done = _python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "T2-weighted" in done.stdout


def test_inspect_goes_through_a_batch(run, tmp_path):
    _two_studies(tmp_path)
    (tmp_path / "empty").mkdir()
    result = run("inspect", tmp_path)
    assert result.exit_code == 5
    assert result.stdout.count("Sagittal T2/STIR") == 2
    assert "empty is empty" in result.stderr


def test_a_study_gets_all_files_of_its_folder(run, study, tmp_path):
    result = run("analyze", study, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "cohort.csv", "failures.csv", "index.html", "run.json", "spine_1", "submission.csv",
    }  # fmt: skip
    assert {path.name for path in (out / "spine_1").iterdir()} == {
        ".complete", "figures", "grades.csv", "report.html", "result.json", "series.json",
    }  # fmt: skip
    content = json.loads((out / "spine_1" / "result.json").read_text())
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    assert content["study"]["source"] == str(study)
    assert "1 study analysed: " in result.stdout
    with (out / "submission.csv").open() as file:
        assert [row["row_id"] for row in csv.DictReader(file)] == [f"spine_1_{target.slug}" for target in TARGETS]
    assert json.loads((out / "run.json").read_text())["studies"] == ["spine_1"]


def test_dicom_outputs_refer_to_a_zipped_study_too(run, study, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", study)
    result = run("analyze", archive, "-o", tmp_path / "out", "--formats", "seg,sr,nifti")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "study" / "dicom" / "report.dcm").is_file()
    assert (tmp_path / "out" / "study" / "dicom" / "segmentation.dcm").is_file()
    assert (tmp_path / "out" / "study" / "segmentation" / "vertebral_bodies.nii.gz").is_file()


def test_results_are_not_replaced_unasked(run, study, tmp_path):
    (tmp_path / "note.txt").touch()
    result = run("analyze", study, "-o", tmp_path)
    assert result.exit_code == 2
    assert "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_run_resumes_where_it_stopped_and_sums_up_everything(run, tmp_path):
    studies, out = _two_studies(tmp_path / "studies"), tmp_path / "out"
    assert run("analyze", studies / "a", "-o", out, "--formats", "json").exit_code == 0
    before = (out / "a" / "result.json").stat().st_mtime_ns
    result = run("analyze", studies, "-o", out, "--formats", "json", "--resume")
    assert result.exit_code == 0, result.output
    assert "1 study analysed, 1 was there already" in result.stdout
    assert (out / "a" / "result.json").stat().st_mtime_ns == before
    assert len((out / "cohort.csv").read_text().splitlines()) == 3


def test_resuming_never_takes_another_studys_result(run, tmp_path):
    for place, name in (("first", "a"), ("second", "b")):
        write_study(tmp_path / place / "spine", [SAGITTAL_T2], StudySpec(seed=name))
    out = tmp_path / "out"
    assert run("analyze", tmp_path / "first" / "spine", "-o", out, "--formats", "json").exit_code == 0
    before = (out / "submission.csv").read_bytes()
    result = run("analyze", tmp_path / "second" / "spine", "-o", out, "--formats", "json", "--resume")
    assert result.exit_code == 2
    assert "holds the result of another study of the same name" in result.stderr
    assert (out / "submission.csv").read_bytes() == before
    shutil.make_archive(str(tmp_path / "spine"), "zip", tmp_path / "first" / "spine")
    assert run("analyze", tmp_path / "spine.zip", "-o", out, "--resume").exit_code == 2


@pytest.mark.parametrize("given", ["train_images", "train_images/100206310", "100206310.zip"])
def test_the_rows_of_a_lone_study_bear_the_name_of_its_own_folder(run, tmp_path, given):
    study = write_study(tmp_path / "train_images" / "100206310", [SAGITTAL_T1])
    shutil.make_archive(str(tmp_path / "100206310"), "zip", study)
    result = run("analyze", tmp_path / given, "-o", tmp_path / "out", "--formats", "json")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "submission.csv").open() as file:
        assert [row["row_id"] for row in csv.DictReader(file)] == [f"100206310_{target.slug}" for target in TARGETS]
    content = json.loads((tmp_path / "out" / "100206310" / "result.json").read_text())
    assert content["study"]["source"] == str(tmp_path / given)


def test_overwriting_leaves_no_result_of_an_earlier_run(run, tmp_path):
    studies, out = _two_studies(tmp_path / "studies"), tmp_path / "out"
    assert run("analyze", studies, "-o", out, "--formats", "json").exit_code == 0
    assert run("analyze", studies / "b", "-o", out, "--formats", "json", "--overwrite").exit_code == 0
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["b"]
    assert len((out / "cohort.csv").read_text().splitlines()) == 2


def test_several_processes_give_what_one_gives(run, tmp_path):
    studies = _two_studies(tmp_path / "studies")
    for jobs in (1, 2):
        result = run("analyze", studies, "-o", tmp_path / str(jobs), "--formats", "json", "--jobs", jobs)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "1" / "submission.csv").read_text() == (tmp_path / "2" / "submission.csv").read_text()


def test_fail_fast_stops_at_the_first_failure(run, tmp_path):
    studies = _two_studies(tmp_path / "studies")
    (studies / "0_empty").mkdir()
    result = run("analyze", studies, "-o", tmp_path / "out", "--fail-fast")
    assert result.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_fail_fast_sums_up_what_other_processes_finished_meanwhile(run, tmp_path, monkeypatch):
    studies, out = _two_studies(tmp_path / "studies"), tmp_path / "out"
    (studies / "c").mkdir()

    def side_by_side(work, items, *, jobs):
        results = [work(item) for item in items]
        yield next(result for result in results if result.failure)
        raise AssertionError("The run goes on.")

    monkeypatch.setattr("monai_spine.batch.in_processes", side_by_side)
    result = run("analyze", studies, "-o", out, "--formats", "json", "--jobs", 3, "--fail-fast")
    assert result.exit_code == 5
    assert json.loads((out / "run.json").read_text())["studies"] == ["a", "b"]


def test_fail_fast_does_not_begin_where_an_input_is_missing(run, study, tmp_path):
    result = run("analyze", study, tmp_path / "nowhere", "-o", tmp_path / "out", "--fail-fast")
    assert result.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_quiet_says_nothing(run, study, tmp_path):
    result = run("analyze", study, "-o", tmp_path / "out", "--formats", "json", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_only_the_levels_asked_for_are_graded(run, study, tmp_path):
    assert run("analyze", study, "-o", tmp_path / "out", "--formats", "json", "--levels", "l5_s1,L4/L5").exit_code == 0
    content = json.loads((tmp_path / "out" / "spine_1" / "result.json").read_text())
    assert {grade["level"] for grade in content["grades"]} == {"L4/L5", "L5/S1"}
    assert content["provenance"]["settings"]["levels"] == ["L4/L5", "L5/S1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formats", "docx"], "Unknown format 'docx'"),
        (["--levels", "L4/L6"], "Unknown level 'L4/L6'"),
        (["--levels", "T12/L1"], "T12/L1 is not graded"),
        (["--levels", ""], "'' is not graded"),
        (["--role", ""], "Unknown role ''"),
        (["--series", "sagittal_t2"], "is not ROLE=UID"),
        (["--series", "sagital=1.2"], "Unknown role 'sagital'"),
        (["--role", "t2"], "Unknown role 't2'"),
        (["--device", "gpu"], "Unknown device 'gpu'"),
        (["--resume", "--overwrite"], "Give one of them"),
        (["--jobs", "0"], "jobs"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(run, study, tmp_path, options, message):
    result = run("analyze", study, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_series_that_is_not_there_makes_the_study_unusable(run, study, tmp_path):
    result = run("analyze", study, "-o", tmp_path / "out", "--series", "sagittal_t2=1.2.3")
    assert result.exit_code == 3
    assert "Series '1.2.3', chosen as sagittal_t2, is not in" in result.stderr


def test_an_interrupted_run_ends_without_a_traceback(run, study, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_spine.pipeline.localize_levels", interrupted)
    result = run("analyze", study, "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert "Interrupted. Finished studies are kept" in result.stderr
    assert "Traceback" not in result.output
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_too_little_memory_is_no_fault_of_ours(run, study, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("monai_spine.pipeline.localize_levels", full)
    result = run("analyze", study, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "It does not fit into memory. Close other programs, use fewer --jobs" in result.stderr
    assert not (tmp_path / "out").exists()


def test_what_the_file_system_refuses_is_no_fault_of_ours(run, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "/data/out")

    monkeypatch.setattr("monai_spine.phantom.prepare_phantom", full)
    result = run("prepare", "phantom", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.strip().endswith(
        "Error: /data/out: No space left on device. Check the path, its permissions, and the space that is left."
    )


def test_tables_that_are_not_there_are_named_and_nothing_is_written(run, tmp_path):
    (tmp_path / "tables").mkdir()
    result = run("phantom", tmp_path / "out", "--tables", tmp_path / "tables", "--studies", 2)
    assert result.exit_code == 2
    assert re.search(r"train\.csv is not there: a replica cannot be drawn without it\. Give a folder", result.stderr)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_of_ours_says_so_and_shows_a_traceback_only_on_demand(run, study, tmp_path, monkeypatch, debug):
    def broken(*arguments, **options):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("monai_spine.pipeline.localize_levels", broken)
    result = run("analyze", study, "-o", tmp_path / "out", *(["--debug"] if debug else []))
    assert result.exit_code == 1
    assert re.search("Error: .*Unexpected ZeroDivisionError: division by zero.*fault in monai_spine", result.stderr)
    assert ("Traceback" in result.stderr) is debug


def test_a_table_of_series_is_trusted_more_than_headers(run, tmp_path):
    folder = write_study(tmp_path / "100", [SAGITTAL_T1], StudySpec(seed="table"))
    (folder / "series_1").rename(folder / "777")
    table = tmp_path / "series.csv"
    table.write_text("study_id,series_id,series_description\n100,777,Sagittal T2/STIR\n")
    result = run("inspect", folder, "--series-table", table)
    assert "* Sagittal T2/STIR" in result.stdout


def test_evaluate_prints_the_score_and_its_parts(run, tmp_path):
    header = "row_id,normal_mild,moderate,severe"
    rows = [f"1_{target.slug},1,0,0" for target in TARGETS]
    (tmp_path / "solution.csv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "submission.csv").write_text("\n".join([header, *(row.replace("1,0,0", "0.5,0.25,0.25") for row in rows)]) + "\n")
    result = run("evaluate", "--solution", tmp_path / "solution.csv", "--submission", tmp_path / "submission.csv")
    assert result.exit_code == 0, result.output
    assert "0.6931" in result.stdout
    for part in ("spinal", "foraminal", "subarticular", "any_severe_spinal"):
        assert part in result.stdout


def test_a_table_that_breaks_its_specification_is_a_usage_error(run, tmp_path):
    (tmp_path / "broken.csv").write_text("a,b\n1,2\n")
    result = run("evaluate", "--solution", tmp_path / "broken.csv", "--submission", tmp_path / "broken.csv")
    assert result.exit_code == 2
    assert "broken.csv" in result.stderr


def test_info_lists_versions_devices_and_bundles(run):
    result = run("info")
    assert result.exit_code == 0
    for wanted in (f"monai_spine {monai_spine.__version__}", "torch ", "devices: cpu", "6 bundles in ", "a stand-in for tests"):
        assert wanted in result.stdout


def test_weights_are_listed_and_verified(run):
    assert "neural_foraminal_narrowing_grading 0.0.1: trained on simulated data" in run("weights", "list").stdout
    result = run("weights", "verify")
    assert result.exit_code == 0
    assert result.stdout.count("models/model.pt: ok") == 6
    assert run("weights", "verify", "lumbar_level_localization").stdout.count(": ok") == 1
    assert run("weights", "verify", "no_such_bundle").exit_code == 4


def test_a_folder_without_bundles_is_not_taken_for_verified(run, tmp_path):
    result = run("weights", "verify", "--bundles", tmp_path)
    assert result.exit_code == 4
    assert "There is no bundle in" in result.stderr


def test_results_inside_the_input_are_not_taken_for_studies(run, tmp_path):
    studies = _two_studies(tmp_path)
    for options in ([], ["--resume"]):
        result = run("analyze", studies, "-o", tmp_path / "results", "--formats", "json", *options)
        assert result.exit_code == 0, result.output
    assert "2 were there already" in result.stdout
    assert json.loads((tmp_path / "results" / "run.json").read_text())["studies"] == ["a", "b"]


def test_a_worker_that_dies_is_told_from_a_bad_study(run, tmp_path, monkeypatch):
    class DyingPool(ThreadPoolExecutor):
        def __init__(self, *arguments, **options):
            super().__init__(1)

        def submit(self, *arguments):
            future = Future()
            future.set_exception(BrokenProcessPool())
            return future

    monkeypatch.setattr("monai_spine.workers.ProcessPoolExecutor", DyingPool)
    result = run("analyze", _two_studies(tmp_path / "studies"), "-o", tmp_path / "out", "--jobs", 2)
    assert result.exit_code == 1
    assert "worker processes was ended from outside" in result.stderr
    assert "--resume and fewer --jobs" in result.stderr
