"""Commands are run once, watched while they run, and keep a table of their epochs over a kill."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from ignite.engine import Engine

from monai_spine.comparison.at_work import alone_in
from monai_spine.errors import OutputError, WeightsError
from monai_spine.training import bundle_runs
from monai_spine.training.bundle_runs import Step, overlay, perform
from monai_spine.training.epoch_record import EpochRecord


def step(folder: Path, code: str) -> Step:
    return Step("trying", (sys.executable, "-S", "-c", code), folder, folder / "made", folder / "written")


def test_what_is_made_is_not_made_again(tmp_path: Path) -> None:
    write = f"from pathlib import Path; Path({str(tmp_path / 'written')!r}).write_text('x'); print('wrote')"
    perform(step(tmp_path, write))
    perform(step(tmp_path, "raise SystemExit(1)"))
    assert (tmp_path / "made").read_text() == "x"
    assert (tmp_path / "log.txt").read_text() == "wrote\n"


def test_a_command_that_fails_says_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"exit code 3.*\nno more room"):
        perform(step(tmp_path, "print('no more room'); raise SystemExit(3)"))


WRAPPED = """
from monai_spine.errors import TableError
try:
    try:
        {earlier}
        raise TableError("no datalist.json there.\\nPrepare one.")
    except TableError as error:
        raise RuntimeError("Failed to evaluate ConfigExpression") from error
except RuntimeError as error:
    raise RuntimeError("Failed to instantiate") from error
"""


@pytest.mark.parametrize("earlier", ["", "import traceback; traceback.print_exception(ValueError('an earlier one'))"])
def test_a_command_that_fails_says_first_what_the_other_errors_came_from(tmp_path: Path, earlier: str) -> None:
    failing = Step("trying", (sys.executable, "-c", WRAPPED.format(earlier=earlier)), tmp_path, tmp_path / "a", tmp_path / "b")
    with pytest.raises(WeightsError) as raised:
        perform(failing)
    log = tmp_path / "log.txt"
    said = f"trying ended with exit code 1: no datalist.json there.\nPrepare one.\nAll that it printed is in {log}."
    assert str(raised.value) == said
    with pytest.raises(WeightsError, match=r"exit code 9. The end of .*\nout of memory$"):
        perform(step(tmp_path, "print('out of memory', flush=True); import os; os._exit(9)"))


def test_what_a_watch_raises_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_runs, "_WATCH_S", 0.05)

    def watch() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(step(tmp_path, "import time; time.sleep(600)"), watch=watch)
    assert not (tmp_path / "made").exists()


def test_a_request_to_end_is_met_like_ctrl_c_and_ends_the_command_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_runs, "_WATCH_S", 0.05)
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    code = f"""if True:
        import signal, sys, time
        def end(*_):
            open({str(ended)!r}, "w").close()
            sys.exit(1)
        signal.signal(signal.SIGTERM, end)
        open({str(begun)!r}, "w").close()
        time.sleep(600)
    """

    def refuse(*_: object) -> None:
        pytest.fail("The request to end was not met.")

    before = signal.signal(signal.SIGTERM, refuse)
    try:
        with pytest.raises(KeyboardInterrupt):
            perform(step(tmp_path, code), watch=lambda: os.kill(os.getpid(), signal.SIGTERM) if begun.exists() else None)
        assert signal.getsignal(signal.SIGTERM) is refuse
    finally:
        signal.signal(signal.SIGTERM, before)
    until = time.monotonic() + 60
    while not ended.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert ended.exists()


def test_a_folder_stays_held_while_a_training_lives_on_whose_comparison_is_gone(tmp_path: Path) -> None:
    out, read, write = tmp_path / "out", *os.pipe()
    code = "import sys; print('begun', flush=True); sys.stdin.read()"
    comparison = f"""if True:
        import os, sys
        from pathlib import Path
        from monai_spine.comparison.at_work import alone_in
        from monai_spine.training.bundle_runs import Step, perform
        folder = Path({str(out)!r})
        step = Step("trying", (sys.executable, "-S", "-c", {code!r}), folder, folder / "made", folder / "written")
        with alone_in(folder) as held:
            perform(step, inherit=held)
    """
    with os.fdopen(write, "w"), subprocess.Popen((sys.executable, "-c", comparison), stdin=read) as process:
        os.close(read)
        until = time.monotonic() + 60
        while not (out / "log.txt").is_file() or "begun" not in (out / "log.txt").read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        process.kill()
        process.wait()
        with (
            pytest.raises(OutputError, match=r"Another comparison is at work in .*out.*Wait for it, or choose another"),
            alone_in(out),
        ):
            pass
    while time.monotonic() < until:
        with suppress(OutputError), alone_in(out):
            return
        time.sleep(0.05)
    pytest.fail("The folder is held although nobody is at work in it.")


def test_an_overlay_that_is_not_there_says_where_it_was_sought() -> None:
    with pytest.raises(WeightsError, match=r"no overlay .*architectures.cnm\.json.*from a checkout"):
        overlay("architectures", "cnm")


def trained(path: Path, *, epochs: int, begin: int = 0) -> list[dict[str, str]]:
    """What is recorded of a training that begins after an epoch."""
    trainer, validator = Engine(lambda *_: None), Engine(lambda *_: None)
    validator.state.metrics = {"loss": 0.25}
    EpochRecord(path, validator).attach(trainer)
    trainer.state.metrics = {"mean_train_loss": 0.5}
    if begin:
        trainer.load_state_dict({"epoch": begin, "max_epochs": epochs, "epoch_length": 2})
    trainer.run([0, 1], max_epochs=epochs)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_epochs_are_recorded_and_a_training_that_goes_on_keeps_those_before(tmp_path: Path) -> None:
    rows = trained(tmp_path / "epochs.csv", epochs=3)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all((row["mean_train_loss"], row["validation_loss"]) == ("0.5", "0.25") for row in rows)
    assert all(float(row["seconds"]) >= 0 for row in rows)
    assert [row["epoch"] for row in trained(tmp_path / "epochs.csv", epochs=4, begin=2)] == ["1", "2", "3", "4"]
