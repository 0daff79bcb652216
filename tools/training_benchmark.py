"""Samples per second of a grader's training: from the crops that it keeps, against MONAI's `Dataset` over DICOM series.

    .venv/bin/python tools/benchmark.py --only training

Both train the same network on the same targets with the same random crops and intensities, by turns in one process. The plain way
reads the series of a target with `LoadImaged` whenever its turn comes, and torch's `DataLoader` hands out the batches.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from benchmark_table import Measure
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.transforms import Compose, LoadImaged
from torch.utils.data import DataLoader

from monai_spine.anatomy import Condition
from monai_spine.crops import CropSpec, crop_affine, resample_block
from monai_spine.models import GRADERS
from monai_spine.phantom.export import write_phantom_studies
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.rsna2024_prepare import prepare
from monai_spine.training.datalists import grading_items
from monai_spine.training.grading_crops import GradingCrops, Jitter
from monai_spine.training.timing import DataWaitShare
from monai_spine.volume import Volume

__all__ = ["GRADER", "Comparison", "Epoch", "PlainCrop", "compare_training", "few_studies", "prepared_items", "training"]

CONDITION = Condition.NEURAL_FORAMINAL_NARROWING
"""Ten targets in each study, on one stack of parallel slices, which MONAI's reader places rightly."""
GRADER = GRADERS[CONDITION]
ROLE = "sagittal_t1"
TARGET, THREADS, STUDIES = 2.0, 2, 4
_TABLES = ("train.csv", "train_label_coordinates.csv", "train_series_descriptions.csv", "latents.csv")


def training(folder: Path, *, dicom: Path | None, matrix: int, repeats: int) -> Iterator[Measure]:
    """A grader's training from the crops that it keeps, against the plain way over DICOM series.

    Args:
        folder: Where everything is written.
        dicom: Studies in the competition's layout; None: simulated ones.
        matrix: Largest stored matrix of simulated ones.
        repeats: Counted epochs of each way.
    """
    data = folder / "data"
    if dicom is None:
        write_phantom_studies(data, studies=STUDIES, seed=0, max_matrix=matrix)
    else:
        few_studies(dicom, data, studies=STUDIES)
    started = time.perf_counter()
    prepared = prepare(data, folder / "prepared").path.parent
    preparing_s = time.perf_counter() - started
    torch.set_num_threads(THREADS)
    config = Path(__file__).resolve().parents[1] / "bundles" / GRADER / "configs" / "train.json"
    items = prepared_items(data, prepared)
    found = compare_training(config, items, repeats=repeats)
    way = f"{len(items)} crops of {STUDIES} studies, {THREADS} threads"
    yield Measure(f"Training with plain `Dataset` and `DataLoader` over DICOM, {way}", found.per_second("plain"), "samples/s")
    yield Measure("Training with the bundle's own loader, same network and crops", found.per_second("bundle"), "samples/s")
    yield Measure(f"Ratio of the two, median of {repeats} epochs by turns", found.ratio, "", TARGET, True)
    yield Measure("· in the first epoch, with filling the memory", found.first_ratio, "", TARGET, True)
    yield Measure("· in seconds of the processor", found.cpu_ratio, "")
    yield Measure("Share of the plain way's steps spent waiting for data", 100 * found.wait_share("plain"), "%")
    yield Measure("Share of the bundle's steps spent waiting for data", 100 * found.wait_share("bundle"), "%")
    yield Measure("`prepare rsna2024` of these studies, once before all trainings", preparing_s, "s")


@dataclass(frozen=True)
class Epoch:
    """One pass over all samples.

    Attributes:
        samples: How many.
        seconds: By the clock.
        cpu_seconds: Of the process, all threads together.
        wait_share: Share of the steps spent waiting for data, 0 to 1.
    """

    samples: int
    seconds: float
    cpu_seconds: float
    wait_share: float


@dataclass(frozen=True)
class Comparison:
    """Epochs of both ways, by turns, and what the bundle's way takes once before its first."""

    plain: tuple[Epoch, ...]
    bundle: tuple[Epoch, ...]
    filling_s: float

    def seconds(self, way: str) -> float:
        """Median of one way, `plain` or `bundle`."""
        return median(epoch.seconds for epoch in self._epochs(way))

    def per_second(self, way: str) -> float:
        """Samples per second, of the median epoch."""
        return self.plain[0].samples / self.seconds(way)

    def wait_share(self, way: str) -> float:
        """Median share of waiting."""
        return median(epoch.wait_share for epoch in self._epochs(way))

    @property
    def ratio(self) -> float:
        """How many times as many samples per second the bundle trains on."""
        return self.seconds("plain") / self.seconds("bundle")

    @property
    def first_ratio(self) -> float:
        """The same, with the time to fill the memory added to the bundle's epoch."""
        return self.seconds("plain") / (self.seconds("bundle") + self.filling_s)

    @property
    def cpu_ratio(self) -> float:
        """The same in seconds of the processor, which other processes on the machine disturb less."""
        plain, bundle = (median(epoch.cpu_seconds for epoch in epochs) for epochs in (self.plain, self.bundle))
        return plain / bundle

    def _epochs(self, way: str) -> tuple[Epoch, ...]:
        return {"plain": self.plain, "bundle": self.bundle}[way]


def few_studies(data: Path, out: Path, *, studies: int) -> Path:
    """The first studies of a folder in the competition's layout, as links and shortened tables in a new folder."""
    chosen = sorted(path for path in (data / "train_images").iterdir() if path.is_dir())[:studies]
    (out / "train_images").mkdir(parents=True)
    for study in chosen:
        (out / "train_images" / study.name).symlink_to(study.resolve())
    names = {study.name for study in chosen}
    for path in (data / name for name in _TABLES if (data / name).is_file()):
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        with (out / path.name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *(row for row in rows if row[header.index("study_id")] in names)])
    return out


def prepared_items(data: Path, prepared: Path) -> list[dict[str, Any]]:
    """Targets of all studies of a prepared folder, whatever their split, with the `series` folder that each is seen on."""
    datalist = read_datalist(prepared)
    everything = replace(datalist, splits={"all": tuple(case.case for case in datalist.cases)})
    uids = {
        str((datalist.root / volume.image).resolve()): str(volume.series_instance_uid)
        for case in datalist.cases
        for volume in case.volumes
    }
    folders = {_series_uid(folder): folder for folder in (data / "train_images").glob("*/*")}
    items = grading_items(everything, "all", CONDITION, ROLE)
    return [{**item, "series": str(folders[uids[item["image"]]])} for item in items]


def _series_uid(folder: Path) -> str:
    import pydicom

    first = next(path for path in sorted(folder.iterdir()) if path.is_file())
    return str(pydicom.dcmread(first, stop_before_pixels=True).SeriesInstanceUID)


class PlainCrop:
    """Cut the crop of one target from its whole scan, at random as `GradingCrops` does.

    Args:
        crop: The bundle's crop section.
        jitter: Arguments of `Jitter`; None cuts at the point itself.
        seed: Of the random crops.
    """

    def __init__(self, crop: Mapping[str, Any], jitter: Mapping[str, Any] | None, *, seed: int = 0) -> None:
        self.crop, self.spec = crop, CropSpec.from_config(crop)
        self.jitter = None if jitter is None else Jitter(**{**jitter, "shift_mm": tuple(jitter["shift_mm"])})
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        image, spec = data["image"], self.spec
        volume = Volume(array=image.numpy(), affine=image.affine.numpy())
        affine = crop_affine(volume.affine, data["point_ras_mm"], size_mm=spec.size_mm, shape=spec.shape)
        if self.jitter is not None:
            numbers, _ = self.jitter.drawn(self._generator)
            through = np.array([int(np.argmax(np.asarray(spec.size_mm) / spec.shape))])
            affine = self.jitter.moved(affine[None], numbers[None], shape=spec.shape, through_axes=through)[0]
        array = resample_block(volume, affine, spec.shape)
        array = array[::-1].copy() if spec.mirror_right and data["mirror"] else array
        return {"image": torch.from_numpy(array[None]), "label": data["label"]}


def plain_loader(items: Sequence[Mapping[str, Any]], parser: ConfigParser) -> DataLoader[Any]:
    """What a first script would do: read the series, cut, normalise, change; then batches."""
    read = LoadImaged("image", reader="PydicomReader", image_only=True)
    cut = PlainCrop(parser.get_parsed_content("crop"), parser.get_parsed_content("jitter"))
    steps = Compose([read, cut, parser.get_parsed_content("train#preprocessing")])
    dataset = Dataset([{**item, "image": item["series"]} for item in items], steps)
    return DataLoader(dataset, batch_size=parser.get_parsed_content("batch_size"), shuffle=True, num_workers=0)


def compare_training(config: Path, items: Sequence[Mapping[str, Any]], *, repeats: int, batch_size: int = 32) -> Comparison:
    """Train by turns from what the bundle keeps and from DICOM, on the processor; each way's first epoch is not counted.

    Args:
        config: The bundle's `train.json`.
        items: As `prepared_items` gives them.
        repeats: Counted epochs of each way.
        batch_size: Of both.
    """
    parser = ConfigParser()
    parser.read_config(str(config))
    kept = [{key: value for key, value in item.items() if key != "series"} for item in items]
    parser.update({"device": torch.device("cpu"), "batch_size": batch_size, "train#data": kept})
    started = time.perf_counter()
    examples = parser.get_parsed_content("train#dataset")
    filling_s = time.perf_counter() - started
    if not isinstance(examples, GradingCrops) or len(examples) != len(items):
        raise SystemExit(f"{len(examples)} of {len(items)} targets can be trained on: the two ways would not see the same.")
    step = _step(parser)
    loaders = {"plain": plain_loader(items, parser), "bundle": parser.get_parsed_content("train#dataloader")}
    epochs: dict[str, list[Epoch]] = {way: [] for way in loaders}
    for _ in range(1 + repeats):
        for way, loader in loaders.items():
            epochs[way].append(_epoch(loader, step, samples=len(items)))
    return Comparison(tuple(epochs["plain"][1:]), tuple(epochs["bundle"][1:]), filling_s)


def _step(parser: ConfigParser) -> Callable[[Engine, Mapping[str, torch.Tensor]], None]:
    network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss", "optimizer"))

    def step(engine: Engine, batch: Mapping[str, torch.Tensor]) -> None:
        network.train()
        optimizer.zero_grad()
        loss(network(batch["image"]), batch["label"]).backward()
        optimizer.step()

    return step


def _epoch(loader: Iterable[Any], step: Callable[..., None], *, samples: int) -> Epoch:
    engine = Engine(step)
    DataWaitShare().attach(engine)
    started, busy = time.perf_counter(), time.process_time()
    engine.run(loader, max_epochs=1)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - busy
    return Epoch(samples, seconds, cpu_seconds, float(engine.state.metrics[DataWaitShare.name]))
