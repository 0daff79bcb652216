"""Find, verify and load MONAI bundles.

A bundle is run through its own `configs/inference.json` (preprocessing, network, inferer, postprocessing), so that another bundle
with the same outputs can take its place without any code.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_spine.errors import WeightsError
from monai_spine.misfits import why_not
from monai_spine.suggestions import did_you_mean

__all__ = [
    "WEIGHT_FILES",
    "Bundle",
    "bundle_folder",
    "bundle_root",
    "find_bundle",
    "find_bundles",
    "metadata_text",
    "record_weights",
    "verify_bundle",
]

WEIGHT_FILES = ("models/model.pt", "models/model.ts")
"""The state dict and its TorchScript export, relative to a bundle."""

BUNDLES_VARIABLE = "MONAI_SPINE_BUNDLES"


@dataclass(frozen=True)
class Bundle:
    """A MONAI bundle on disk.

    Attributes:
        name: Name of its folder, which says the task.
        root: The folder.
        metadata: Contents of `configs/metadata.json`.
    """

    name: str
    root: Path
    metadata: Mapping[str, Any]

    @property
    def version(self) -> str:
        return str(self.metadata.get("version", "unknown"))

    @property
    def training_data(self) -> str:
        """What it was trained on, in a few words such as `simulated`."""
        return str(self.metadata.get("training_data", "unknown"))

    @property
    def notice(self) -> str:
        """What every report that uses it has to say."""
        return str(self.metadata.get("notice", ""))

    @property
    def weights_sha256(self) -> Mapping[str, str]:
        """SHA-256 of each weight file, by its path in the bundle, as the metadata states them."""
        return dict(self.metadata.get("weights_sha256") or {})

    def config(self, key: str) -> Any:
        """A section of `inference.json` as written there, such as `crop`.

        Raises:
            WeightsError: There is no such section.
        """
        found = self.option(key)
        if found is None:
            raise WeightsError(f"Bundle {self.name} has no {key!r} in configs/inference.json. Use a bundle that states it.")
        return found

    def option(self, key: str) -> Any:
        """A section of `inference.json` as written there, or None where there is none."""
        return self._parser.get(key)

    @cached_property
    def preprocessing(self) -> Any:
        """Callable on a dict with `image`, a channel-first array or tensor."""
        return self._built("preprocessing")

    @cached_property
    def postprocessing(self) -> Any:
        """Callable on a dict with `pred`."""
        return self._built("postprocessing")

    @cached_property
    def inferer(self) -> Any:
        """Callable as `inferer(inputs, network)`."""
        return self._built("inferer")

    def network_definition(self) -> Any:
        """The network without its weights."""
        return self._built("network_def")

    def network(self, device: str = "cpu") -> Any:
        """The network in evaluation mode, with its verified weights, on a device.

        Raises:
            WeightsError: The weights are missing, altered, unreadable, or do not fit the network.
        """
        import torch

        contents = _verified_bytes(self, WEIGHT_FILES[0])
        network = self.network_definition()
        state: Any = None
        try:
            state = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
            network.load_state_dict(state)
        except Exception as error:  # torch raises pickle, zip and key errors of many kinds for one cause
            raise WeightsError(
                f"The weights {self.root / WEIGHT_FILES[0]} do not fit the network of configs/inference.json: "
                f"{why_not(state, network, error)}. Train the bundle again or restore its weights."
            ) from error
        for part in network.modules():
            if isinstance(part, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
                part.to(memory_format=torch.channels_last_3d)  # a quarter faster on processors
        return network.to(device).eval()

    @cached_property
    def _parser(self) -> Any:
        from monai.bundle import ConfigParser

        path = self.root / "configs" / "inference.json"
        try:
            parser = ConfigParser()
            parser.read_config(str(path))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path} cannot be read ({error}). Restore the bundle from its release.") from error
        parser["bundle_root"] = str(self.root)
        return parser

    def _built(self, key: str) -> Any:
        self.config(key)
        try:
            return self._parser.get_parsed_content(key)
        except Exception as error:  # a config can name anything, so anything can go wrong in it
            raise WeightsError(
                f"{key!r} in configs/inference.json of bundle {self.name} cannot be built ({type(error).__name__}: {error}). "
                "Correct the config, or restore the bundle from its release."
            ) from error


def bundle_folder(folder: Path | str | None = None) -> Path:
    """Where bundles lie: the given folder, the variable MONAI_SPINE_BUNDLES, or `bundles` beside the package's checkout.

    Raises:
        WeightsError: That folder does not exist.
    """
    beside = Path(__file__).resolve().parents[1] / "bundles"
    chosen = Path(folder or os.environ.get(BUNDLES_VARIABLE) or beside).expanduser()
    if not chosen.is_dir():
        raise WeightsError(
            f"There is no folder of bundles at {chosen}. Give one with --bundles or the variable {BUNDLES_VARIABLE}; "
            "the repository holds them in bundles/."
        )
    return chosen


def find_bundles(folder: Path | str | None = None) -> tuple[Bundle, ...]:
    """All bundles in a folder, by name."""
    roots = sorted(path.parents[1] for path in bundle_folder(folder).glob("*/configs/metadata.json"))
    return tuple(_open(root) for root in roots)


def find_bundle(name: str, folder: Path | str | None = None) -> Bundle:
    """The bundle of this name.

    Args:
        name: Name of the bundle's folder.
        folder: Folder of bundles; see `bundle_folder`.

    Raises:
        WeightsError: There is none, or its metadata cannot be read.
    """
    root = bundle_folder(folder) / name
    if not (root / "configs" / "metadata.json").is_file():
        there = sorted(path.parents[1].name for path in root.parent.glob("*/configs/metadata.json"))
        raise WeightsError(
            f"There is no bundle {name!r} in {root.parent}. {did_you_mean(name, there)}There: {', '.join(there) or 'none'}. "
            "Choose a folder with --bundles."
        )
    return _open(root)


def verify_bundle(bundle: Bundle) -> dict[str, str]:
    """Check every weight file against its SHA-256 in the metadata.

    Returns:
        The SHA-256 of each file, by its path in the bundle.

    Raises:
        WeightsError: A file is missing, differs from its hash, or has none.
    """
    names = {WEIGHT_FILES[0], *bundle.weights_sha256, *(name for name in WEIGHT_FILES if (bundle.root / name).is_file())}
    return {name: hashlib.sha256(_verified_bytes(bundle, name)).hexdigest() for name in sorted(names)}


def record_weights(root: Path | str) -> dict[str, str]:
    """Write the SHA-256 of a bundle's present weight files into its metadata: for whoever has just trained it.

    Args:
        root: The bundle's folder.

    Returns:
        The hashes that were written, by path in the bundle.
    """
    bundle = _open(Path(root))
    present = [name for name in WEIGHT_FILES if (bundle.root / name).is_file()]
    hashes = {name: hashlib.sha256((bundle.root / name).read_bytes()).hexdigest() for name in present}
    path = bundle.root / "configs" / "metadata.json"
    beside = path.with_suffix(".json.part")
    beside.write_text(metadata_text({**bundle.metadata, "weights_sha256": hashes}), encoding="utf-8")
    beside.replace(path)
    return hashes


def _open(root: Path) -> Bundle:
    path = root / "configs" / "metadata.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error}). Restore the bundle from its release.") from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path} holds no JSON object, so it is no bundle's metadata. Restore the bundle from its release.")
    return Bundle(name=root.name, root=root, metadata=metadata)


def _verified_bytes(bundle: Bundle, name: str) -> bytes:
    path = bundle.root / name
    if not path.is_file():
        raise WeightsError(f"Bundle {bundle.name} has no weights at {path}. Train it (docs/README.md), or restore the file.")
    stated = bundle.weights_sha256.get(name)
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}. Check its permissions, or restore the file.") from error
    found = hashlib.sha256(contents).hexdigest()
    if stated is None:
        raise WeightsError(
            f"The metadata of bundle {bundle.name} states no SHA-256 for {name}, so that it cannot be verified. "
            f"If you trained it yourself, run `monai-spine weights record {bundle.root}`."
        )
    if found != stated:
        raise WeightsError(
            f"{path} is not the file that the bundle was released with: its SHA-256 is {found[:12]}…, the metadata says "
            f"{stated[:12]}…. Restore the file; if you trained it yourself, run `monai-spine weights record {bundle.root}`."
        )
    return contents


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """A bundle's metadata as they are written to `metadata.json`."""
    return json.dumps(metadata, indent=4, ensure_ascii=False) + "\n"


def bundle_root(name: str) -> str:
    """The folder of a bundle for its own configs: the working directory where that is a bundle, otherwise `find_bundle`.

    Raises:
        WeightsError: There is no bundle of this name.
    """
    here = Path.cwd()
    return str(here if (here / "configs" / "metadata.json").is_file() else find_bundle(name).root)
