"""The folder that a run writes into: what may be written there, and which studies in it are finished."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from monai_spine.errors import OutputError
from monai_spine.files import name_of

__all__ = ["ExistingResults", "OutputFolderError", "ResultsFolder", "study_names", "write_text"]

COMPLETE = ".complete"
RUN_FILE = "run.json"
RUN_FILES = ("index.html", "cohort.csv", "submission.csv", "failures.csv", RUN_FILE)


class ExistingResults(str, Enum):
    """What to do about results that are in the folder already."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


class OutputFolderError(OutputError):
    """The output folder is in use, or is not a folder for results."""

    exit_code = 2


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, then rename it, so that nobody ever meets half of it.

    Raises:
        OutputError: The disk is full, or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}. Free space there or choose another --output."
        ) from error


@dataclass(frozen=True)
class ResultsFolder:
    """A folder of results: one subfolder per study, and the tables over all of them."""

    root: Path
    existing: ExistingResults = ExistingResults.REFUSE

    def check(self) -> None:
        """Refuse a place that holds anything which must not be touched. Nothing is written.

        Raises:
            OutputFolderError: It is a file; or it holds something, and neither resuming nor overwriting was asked for; or it
                holds something that monai_spine did not write.
        """
        if self.root.exists() and not self.root.is_dir():
            raise OutputFolderError(f"--output {self.root} is a file. Name a folder that is new or empty.")
        held = sorted(child.name for child in self.root.iterdir()) if self.root.is_dir() else []
        if held and self.existing is ExistingResults.REFUSE:
            raise OutputFolderError(
                f"--output {self.root} is not empty (it holds {held[0]!r}"
                + (f" and {len(held) - 1} more" if len(held) > 1 else "")
                + "). Choose another folder, or add --resume to go on or --overwrite to replace what is there."
            )
        foreign = [name for name in held if not self._is_ours(name)]
        if foreign:
            raise OutputFolderError(
                f"--output {self.root} holds {foreign[0]!r}, which monai_spine did not write, so nothing there is replaced. "
                "Choose another folder."
            )

    def folder(self, study: str) -> Path:
        """Where the results of a study lie."""
        return self.root / study

    def is_complete(self, study: str) -> bool:
        """Whether the study's results are all there."""
        return (self.folder(study) / COMPLETE).is_file()

    def check_study(self, study: str, *, source: Path, study_instance_uid: str | None) -> None:
        """Refuse to take a finished result for that of another study with the same name.

        Raises:
            OutputFolderError: Neither the StudyInstanceUID nor the input is the same; or the result cannot be read.
        """
        path = self.folder(study) / "result.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))["study"]
            known_uid, known_source = about["study_instance_uid"], str(about["source"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputFolderError(
                f"{path} cannot be read ({error}). Remove {self.folder(study)}, or use --overwrite."
            ) from error
        same = (
            known_uid == study_instance_uid
            if study_instance_uid and known_uid
            else Path(known_source).resolve() == source.resolve()
        )
        if not same:
            raise OutputFolderError(
                f"{self.folder(study)} holds the result of another study of the same name ({known_source}, not {source}), so "
                "that --resume cannot skip it. Choose another --output, or use --overwrite."
            )

    def finished(self) -> list[str]:
        """All studies whose results are there, sorted."""
        children = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [child.name for child in children if child.is_dir() and self.is_complete(child.name)]

    def keep_only(self, studies: Sequence[str]) -> None:
        """Remove the finished results of other studies. Nothing goes that has no `.complete`."""
        for study in self.finished():
            if study not in studies:
                shutil.rmtree(self.folder(study))

    def _is_ours(self, name: str) -> bool:
        return name in RUN_FILES or name.startswith(".") or self.is_complete(name)


def study_names(homes: Sequence[Path]) -> tuple[str, ...]:
    """One folder name per study, from the study's own folder or file, safe for every file system and without doubles.

    Args:
        homes: See `inputs.StudyInput.home`. Of a file, the suffix is left out.
    """
    names: list[str] = []
    for home in homes:
        bare = re.sub(r"(\.nii)?\.[A-Za-z]{2,4}$", "", home.name) if home.is_file() else name_of(home)
        name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", bare)).strip("._") or "study"
        taken = {other.casefold() for other in (*names, *RUN_FILES)}
        number = 1
        candidate = name
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{name}_{number}"
        names.append(candidate)
    return tuple(names)
