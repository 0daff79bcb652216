"""The folder that a run writes into: what may be written there, and which studies in it are finished."""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from monai_spine.errors import OutputError
from monai_spine.files import name_of

__all__ = ["ExistingResults", "OutputFolderError", "ResultsFolder", "foreign_in", "study_names"]

COMPLETE = ".complete"
MAX_NAME_BYTES = 200
"""Of a study's folder: file systems take 255, and a suffix comes while it is written."""
RUN_FILE = "run.json"
RUN_FILES = ("index.html", "cohort.csv", "degeneration.csv", "submission.csv", "failures.csv", RUN_FILE)
STUDY_FILES = (COMPLETE, "result.json", "series.json", "grades.csv", "report.html")
STUDY_FOLDERS = {"figures": ".png", "dicom": ".dcm", "segmentation": ".nii.gz"}
"""Folders of a study's results, and the suffix of the files in each."""
_LITTER = (".DS_Store", "Thumbs.db")
"""What a desktop leaves in a folder that it has shown."""


class ExistingResults(str, Enum):
    """What to do about results that are in the folder already."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


class OutputFolderError(OutputError):
    """The output folder is in use, or is not a folder for results."""

    exit_code = 2


def foreign_in(folder: Path) -> Path | None:
    """A file in a study's folder of results that monai_spine did not write, or None: such a folder may be replaced."""
    for child in sorted(folder.iterdir()):
        suffix = STUDY_FOLDERS.get(child.name)
        if suffix is None or not child.is_dir():
            if child.name not in (*STUDY_FILES, *_LITTER):
                return child
            continue
        strange = [file for file in sorted(child.iterdir()) if not file.name.endswith(suffix) and file.name not in _LITTER]
        if strange:
            return strange[0]
    return None


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
        there = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        if not there.is_dir():
            raise OutputFolderError(f"--output {self.root}: {there} is a file. Name a folder that is new or empty.")
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise OutputFolderError(f"--output {self.root}: you may not write to {there}. Choose another folder.")
        held = sorted(child.name for child in self.root.iterdir()) if self.root.is_dir() else []
        if held and self.existing is ExistingResults.REFUSE:
            raise OutputFolderError(
                f"--output {self.root} is not empty (it holds {held[0]!r}"
                + (f" and {len(held) - 1} more" if len(held) > 1 else "")
                + "). Choose another folder, or add --resume to go on or --overwrite to replace what is there."
            )
        foreign = [found for name in held if (found := self._foreign(name))]
        if foreign:
            raise OutputFolderError(
                f"--output {self.root} holds {str(foreign[0].relative_to(self.root))!r}, which monai_spine did not write, "
                "so nothing there is replaced. "
                "Choose another folder."
            )

    @contextmanager
    def made_on_demand(self) -> Iterator[None]:
        """Make the folder, and remove it and those above it that were made with it where nothing came into them.

        Raises:
            OutputFolderError: It cannot be made.
        """
        missing = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OutputFolderError(f"--output {self.root} cannot be made ({reason}). Choose another folder.") from error
        try:
            yield
        finally:
            for folder in missing:
                with suppress(OSError):
                    folder.rmdir()

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

    def _foreign(self, name: str) -> Path | None:
        """What monai_spine did not write there. Hidden entries are left alone, on resuming also finished studies."""
        if name in RUN_FILES or name.startswith("."):
            return None
        if not self.is_complete(name):
            return self.root / name
        return foreign_in(self.root / name) if self.existing is ExistingResults.OVERWRITE else None


def study_names(homes: Sequence[Path]) -> tuple[str, ...]:
    """One folder name per study, from the study's own folder or file, safe for every file system and without doubles.

    Args:
        homes: See `inputs.StudyInput.home`. Of a file, the suffix is left out.
    """
    names: list[str] = []
    for home in homes:
        bare = re.sub(r"(\.nii)?\.[A-Za-z]{2,4}$", "", home.name) if home.is_file() else name_of(home)
        clean = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", bare))
        name = clean.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip("._") or "study"
        taken = {other.casefold() for other in (*names, *RUN_FILES)}
        number = 1
        candidate = name
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{name}_{number}"
        names.append(candidate)
    return tuple(names)
