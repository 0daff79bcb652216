"""What `inspect`, `info` and `weights` print."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from monai_spine import __version__
from monai_spine.errors import SpineError, WeightsError
from monai_spine.inputs import find_studies
from monai_spine.series import SeriesRole, assign_roles
from monai_spine.settings import Settings
from monai_spine.study import Study, open_study
from monai_spine.weights import Bundle, bundle_folder, find_bundle, find_bundles, verify_bundle

__all__ = ["bundle_lines", "info_lines", "inspect_all", "role_lines", "roles_json", "verified_lines"]

PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "pydicom", "nibabel", "SimpleITK", "python-gdcm", "highdicom")


def roles_json(study: Study, roles: Sequence[SeriesRole]) -> dict[str, Any]:
    """The series of a study, for JSON: UID, description, role, reason, number of files."""
    files = {series.series_instance_uid: len(series.instances) for series in study.series}
    entries = [
        {
            "series_instance_uid": role.series_instance_uid,
            "description": role.description,
            "files": files.get(role.series_instance_uid, 0),
            "role": role.role.value if role.role else None,
            "used": role.used,
            "reason": role.reason,
        }
        for role in roles
    ]
    set_aside = [{"path": file.path, "reason": file.reason} for file in study.set_aside]
    about = {"study_instance_uid": study.study_instance_uid, "source": study.source, "kind": study.kind}
    return {"study": about, "series": entries, "set_aside": set_aside}


def role_lines(study: Study, roles: Sequence[SeriesRole]) -> list[str]:
    """The series of a study for people: one paragraph each, used ones marked by `*`."""
    files = {series.series_instance_uid: len(series.instances) for series in study.series}
    lines = [f"{study.source} ({study.kind}, {study.study_instance_uid or 'no StudyInstanceUID'})"]
    for role in roles:
        mark, name = "*" if role.used else " ", role.role.label if role.role else "set aside"
        count = files.get(role.series_instance_uid, 0)
        lines += [f"{mark} {name:<17}{role.description!r}, {count} files, {role.series_instance_uid}", f"      {role.reason}"]
    lines += [f"  not read: {file.path}: {file.reason}" for file in study.set_aside]
    return [*lines, "* used. Another choice: --series ROLE=UID"]


def inspect_all(source: Path, settings: Settings) -> Iterator[tuple[Study, tuple[SeriesRole, ...]] | SpineError]:
    """The studies of an input with the roles of their series, or why one cannot be read.

    Raises:
        SpineError: The input is one study, and it cannot be read.
    """
    found = find_studies(source)
    chosen, table, nifti_role = settings.series, settings.descriptions, settings.nifti_role
    for one in found:
        try:
            with open_study(one.path) as study:
                yield study, assign_roles(study, chosen=chosen, table=table, nifti_role=nifti_role)
        except SpineError as error:
            if len(found) == 1:
                raise
            yield error


def info_lines(bundles: Path | None) -> list[str]:
    """Versions, devices and bundles of this installation."""
    import torch

    devices = ["cpu", *(f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count()))]
    lines = [f"monai_spine {__version__}", f"python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    lines += [f"{name} {_version(name)}" for name in PACKAGES]
    lines += [f"devices: {', '.join(devices)}, {torch.get_num_threads()} threads", ""]
    return lines + bundle_lines(bundles)


def bundle_lines(folder: Path | None) -> list[str]:
    """The bundles of a folder, with what they were trained on and what every report says of them."""
    found = find_bundles(folder)
    lines = [f"{len(found)} bundles in {bundle_folder(folder)}"]
    for bundle in found:
        lines.append(f"{bundle.name} {bundle.version}: trained on {bundle.training_data} data")
        lines += [f"    {bundle.notice}"] if bundle.notice else []
    return lines


def verified_lines(folder: Path | None, names: Sequence[str]) -> list[str]:
    """Check bundles (all, if none is named) and say what was checked.

    Raises:
        WeightsError: A bundle or weight file is missing, or is not the one that the metadata name.
    """
    bundles: Sequence[Bundle] = [find_bundle(name, folder) for name in names] or find_bundles(folder)
    if not bundles:
        raise WeightsError(f"There is no bundle in {bundle_folder(folder)}: nothing was checked. Choose a folder with --bundles.")
    hashes = ((bundle.name, file, digest) for bundle in bundles for file, digest in verify_bundle(bundle).items())
    return [f"{name}/{file}: ok, sha256 {digest[:12]}…" for name, file, digest in hashes]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is not installed"
