"""Real mid-sagittal T2 pictures with eleven points each (discs T12/L1 … L5/S1, vertebrae L1 … L5), as prepared data.

The pictures state no millimetres. Each is given a scale of its own: the mean distance of its neighbouring discs is taken for
`DISC_SPACING_MM`, the mean of adults. Distances on them are therefore shares of the disc spacing rather than millimetres, and
nothing that depends on a patient's size may be learnt from them. A picture becomes a volume of one slice, front to the left.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import DISC_GRADES, DISCS, VERTEBRA_GRADES, Vertebra
from monai_spine.errors import TableError, UnreadableInputError
from monai_spine.geometry import Affine, Point, apply_affine
from monai_spine.level_sequence import DISC_SPACING_MM
from monai_spine.studies.nifti_files import save_nifti
from monai_spine.studies.prepared import PreparedCase, PreparedVolume, write_datalist
from monai_spine.studies.source_table import SourceTable
from monai_spine.volume import Volume, load_picture, picture_volume

__all__ = ["STUDY", "has_scale", "prepare"]

STUDY = "midsagittal"

_FOLDS, _VALIDATION_FOLD = 5, 2
_NAME = re.compile(r"\w[\w .-]*")
_BODIES = (Vertebra.L1, Vertebra.L2, Vertebra.L3, Vertebra.L4, Vertebra.L5)

_SCHMORL = "schmorl_node"
_GRADES = {"disc": DISC_GRADES, "vertebra": VERTEBRA_GRADES}

Points = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class _Graded:
    """What the readers said of a picture's structures, by their names."""

    grades: dict[str, str] = field(default_factory=dict)
    schmorl_nodes: dict[str, bool] = field(default_factory=dict)


def has_scale(study: str) -> bool:
    """Whether the millimetres of a prepared study of this name are the patients', which those of pictures are not."""
    return study not in (STUDY, f"{STUDY}_lesions")


def prepare(data_dir: Path | str, out_dir: Path | str) -> Path:
    """Write the prepared layout of `midsagittal`: one slice per picture, its points, and `datalist.json`.

    Args:
        data_dir: Folder with `points.csv` and `images/NAME.jpg`.
        out_dir: Where to write; made if it does not exist.

    Returns:
        Path of the data list.

    Raises:
        TableError: `points.csv` is missing or empty, or names what is no picture, no structure or no number.
        UnreadableInputError: A picture is missing or broken, or its points do not lie on it or give it no scale. Nothing is
            written then.
        OutputError: Nothing can be written there.
    """
    images, table = Path(data_dir) / "images", Path(data_dir) / "points.csv"
    marked, graded = _read_points(table), _read_grades(table)
    for name, points in sorted(marked.items()):
        _read_picture(images, name, points)
    cases = [_prepare_case(images, name, points, graded[name], Path(out_dir)) for name, points in sorted(marked.items())]
    names = [case.case for case in cases]
    validation = names[_VALIDATION_FOLD::_FOLDS]
    splits = {"training": [name for name in names if name not in validation], "validation": validation}
    return write_datalist(out_dir, study=STUDY, source="real", cases=cases, splits=splits)


def _read_points(path: Path) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Points (x, y) in pixels by picture and structure."""
    table = SourceTable.read(path, columns=("image", "structure", "x_px", "y_px"))
    images = table.cells["image"].tolist()
    if not images:
        raise TableError(f"{path} has a header and no row, so that no picture has a point. Restore it from the set.")
    table.refuse(
        [_NAME.fullmatch(image) is None for image in images],
        lambda row: f"image is {images[row]!r}, which is no file's name",
        remedy="Name a picture in images/ without its suffix: letters, digits, spaces, dots, dashes.",
    )
    structures = table.one_of("structure", [*(level.label for level in DISCS), *(body.label for body in _BODIES)])
    table.unique(("image", "structure"))
    places = np.stack([table.numbers("x_px"), table.numbers("y_px")], axis=1)
    marked: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    for image, structure, place in zip(images, structures, places, strict=True):
        marked.setdefault(image, {})[structure] = place
    return marked


def _read_grades(path: Path) -> Mapping[str, _Graded]:
    """Grades by picture, where the table has them: `disc_bulge`, `vertebra_normal`; `disc_schmorl_node` gives the node alone."""
    table, graded = SourceTable.read(path, columns=("image", "structure")), defaultdict[str, _Graded](_Graded)
    if "grade" not in table.cells.columns:
        return graded
    table.require((_SCHMORL,))
    known = [f"{kind}_{grade}" for kind, grades in _GRADES.items() for grade in grades]
    grades, nodes = table.one_of("grade", [*known, f"disc_{_SCHMORL}", ""]), table.one_of(_SCHMORL, ["0", "1", ""])
    structures = table.cells["structure"].tolist()
    table.refuse(
        [grade != "" and ("/" in name) != grade.startswith("disc_") for name, grade in zip(structures, grades, strict=True)],
        lambda row: f"{structures[row]} is graded {grades[row]!r}",
        remedy="Grade discs as disc_…, bodies as vertebra_….",
    )
    for image, structure, grade, node in zip(table.cells["image"], structures, grades, nodes, strict=True):
        if grade in known:
            graded[image].grades[structure] = grade.partition("_")[2]
        if grade == f"disc_{_SCHMORL}" or (grade.startswith("disc_") and node != ""):
            graded[image].schmorl_nodes[structure] = node == "1" or grade.endswith(_SCHMORL)
    return graded


def _prepare_case(images: Path, name: str, points: Points, graded: _Graded, out_dir: Path) -> PreparedCase:
    volume = _read_picture(images, name, points)
    image = Path("volumes") / name / "sagittal_t2_0.nii"
    save_nifti(volume.array.astype(np.uint8), volume.affine, out_dir / image)
    places = {structure: _place(volume.affine, point) for structure, point in points.items()}
    return PreparedCase(
        case=name,
        patient=name,
        volumes=(PreparedVolume(image=image.as_posix(), role="sagittal_t2"),),
        discs={level: places[level.label] for level in DISCS if level.label in places},
        vertebrae={body: places[body.label] for body in _BODIES if body.label in places},
        degeneration=graded.grades,
        schmorl_nodes=graded.schmorl_nodes,
    )


def _read_picture(images: Path, name: str, points: Points) -> Volume:
    """A picture at the scale that its points give it."""
    picture = load_picture(images / f"{name}.jpg")
    rows, columns = picture.shape
    for structure, (x, y) in points.items():
        if not (0 <= x <= columns and 0 <= y <= rows):
            raise UnreadableInputError(
                f"Picture {name} has {columns} × {rows} pixels, but points.csv places {structure} at ({x:g}, {y:g}). "
                "Remove it, or correct its points."
            )
    return picture_volume(picture, _mm_per_px(name, points))


def _mm_per_px(name: str, points: Points) -> float:
    """The scale at which neighbouring discs lie `DISC_SPACING_MM` apart on average."""
    pairs = [(upper.label, lower.label) for upper, lower in itertools.pairwise(DISCS)]
    gaps = [float(np.linalg.norm(points[lower] - points[upper])) for upper, lower in pairs if upper in points and lower in points]
    if not gaps or min(gaps) < 1:
        raise UnreadableInputError(
            f"Picture {name} has no two neighbouring discs a pixel apart in points.csv, so that it has no scale. "
            "Remove it, or correct its points."
        )
    return DISC_SPACING_MM / float(np.mean(gaps))


def _place(affine: Affine, point_px: npt.NDArray[np.float64]) -> Point:
    r, a, s = (float(value) for value in apply_affine(affine, np.array([0.0, *point_px])))
    return r, a, s
