"""`manymask segment --on ray`: the images of folders and buckets on all machines of a Ray cluster (extra `ray`).

Ray Data gives parts of the list of images to actors, each of which holds the model on a GPU or on some cores, and takes the
next part when it is free. An actor writes the rows of a part as a file, and returns their number alone: what is in flight
does not grow with the number of images. If a machine is lost, its parts are drawn again elsewhere, into the same files.
"""

import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
from ray.data import ActorPoolStrategy, DataContext

from manymask.choices import Engine
from manymask.errors import InputError, ManymaskError
from manymask.hub.catalogue import find_model
from manymask.hub.model_folder import load_model, read_files, write_files
from manymask.inference.failures import FullError, reported
from manymask.inference.request import Request
from manymask.inference.segmenter import Segmenter
from manymask.inference.table import open_table, result_row, write_rows
from manymask.inference.tally import RunSummary, say
from manymask.io.raster import SUFFIXES
from manymask.io.record import SourceRecord
from manymask.io.remote import files_below, open_system, why
from manymask.progress import Progress

PART = 256  # images at most of a file of the table, and of what a lost machine draws again
SHOWN = 10  # failures that are printed; all of them are in the table
READERS = 4  # threads of an actor that fetch images


@dataclass(frozen=True)
class Job:
    """What every actor needs.

    Attributes:
        model: the files of the model folder by their names in it: other machines need not have it.
        name: of the model folder.
        engine: what runs the networks.
        request: how masks are drawn.
        out: where the table is, for fsspec.
        cores: threads of each actor.
    """

    model: Mapping[str, bytes]
    name: str
    engine: Engine
    request: Request
    out: str
    cores: int


class PartDrawer:
    """An actor: draws the masks of the images of a part, and writes its rows.

    Args:
        job: an object reference to a `Job`.
    """

    def __init__(self, job: Any) -> None:
        self.job: Job = ray.get(job)
        torch.set_num_threads(self.job.cores)
        with TemporaryDirectory(prefix="manymask-") as place:
            folder = write_files(self.job.model, Path(place) / self.job.name)
            self.segmenter = Segmenter(load_model(folder), engine=self.job.engine)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Draw one part.

        Args:
            batch: of a single row: `name` of the part, and its `inputs`.

        Returns:
            A row: how many images were `drawn` and have `failed`, the first `errors`, and why nothing can be written, if so.
        """
        name, inputs = str(batch["name"][0]), [str(address) for address in batch["inputs"][0]]
        rows, failed, full = list[dict[str, Any]](), list[dict[str, Any]](), ""
        try:
            with ThreadPoolExecutor(READERS) as pool:
                for address, content in zip(inputs, _ahead(pool, inputs), strict=True):
                    errors = list[ManymaskError]()
                    with reported(errors.append, None):
                        found = self._drawn(content.result())
                        rows.append(result_row(address, found, self.job.request, self.segmenter.engine))
                    failed += [{"input": address, "error": str(error)} for error in errors]
            write_rows(self.job.out, f"failed-{name}.parquet", failed)
            write_rows(self.job.out, f"part-{name}.parquet", rows)
        except (FullError, OSError) as error:
            full = f"{self.job.out}: {error}"
        told = [f"{row['input']}: {row['error']}" for row in failed[:SHOWN]]
        return {"drawn": [len(rows)], "failed": [len(failed)], "errors": ["\n".join(told)], "full": [full]}

    def _drawn(self, content: bytes) -> Any:
        ask = self.job.request
        return self.segmenter.segment(
            content, ask.samples, ask.seed, sampling=ask.sampling, threshold=ask.threshold, rois=ask.rois
        )


def _ahead(pool: ThreadPoolExecutor, inputs: Sequence[str]) -> Iterator[Any]:
    """The contents of files, a few of which are fetched before they are needed."""
    waiting = iter(inputs)
    fetched = [pool.submit(_content, address) for address in islice(waiting, 2 * READERS)]
    while fetched:
        yield fetched.pop(0)
        fetched += [pool.submit(_content, address) for address in islice(waiting, 1)]


def _content(address: str) -> bytes:
    system, path = open_system(address)
    content: bytes = system.cat_file(path)
    return content


def list_images(inputs: Sequence[str]) -> tuple[list[str], int]:
    """The addresses of images.

    Args:
        inputs: addresses for fsspec of files and folders, or local paths.

    Returns:
        The addresses in order, each once, and how many other files were passed over.

    Raises:
        InputError: there is nothing at an address, or no image at all.
    """
    found, others = set[str](), 0
    for address in inputs:
        system, path = open_system(address)
        try:
            files = files_below(system, path)
        except OSError as error:
            raise InputError(f"{address}: {why(error)}") from None
        if not files:
            raise InputError(f"{address}: no such file or folder")
        named = {system.unstrip_protocol(file) for file in files if _is_image(file) or file == path}
        others += len(files) - len(named)
        found |= named
    if not found:
        raise InputError(f"none of {others} file(s) has the name of an image ({', '.join(_ENDINGS)})")
    return sorted(found), others


_ENDINGS = (*SUFFIXES, ".dcm")


def _is_image(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return name.endswith(_ENDINGS) and not name.startswith(".")


def segment_on_ray(
    inputs: Sequence[str],
    model: str,
    request: Request,
    out: str,
    engine: Engine = "torch",
    cores: int = 1,
) -> RunSummary:
    """Segment the images of files and folders on a Ray cluster: a running one, or this machine.

    Images that have a row in OUT stay as they are; those that failed before are tried again.

    Args:
        inputs: as `list_images` takes them.
        model: as `find_model` takes it.
        request: how masks are drawn; its `out` does not count.
        out: the place of the table, for fsspec.
        engine: what runs the networks; "auto" is torch, since machines that choose by themselves might differ.
        cores: cores of each actor; on a cluster with GPUs each has a GPU.

    Returns:
        The counts.

    Raises:
        InputError: there is nothing to segment.
        ConfigError: OUT holds results of other settings.
    """
    tally = RunSummary()
    engine = "torch" if engine == "auto" else engine
    images, others = list_images(inputs)
    if others:
        say(f"{others} file(s) passed over, which have no name of an image")
    folder = find_model(model)
    segmenter = Segmenter(load_model(folder))
    record = segmenter.record(
        SourceRecord(), request.samples, request.seed, request.sampling, request.threshold, request.rois
    )
    alpha = segmenter.outline_alpha(request.alpha, record)
    facts = {key: value for key, value in record.facts().items() if key not in ("source", "created")}
    out = out.rstrip("/")
    done = open_table(out, {**facts, "alpha": alpha, "engine": engine, "model": record.model.weights_sha256})
    waiting = [image for image in images if image not in done]
    tally.reused += len(images) - len(waiting)
    tally.done += tally.reused
    if waiting:
        asked = Request(
            Path(), request.samples, request.seed, request.sampling, request.threshold, request.rois, alpha=alpha
        )
        _draw(waiting, Job(read_files(folder), folder.resolve().name, engine, asked, out, cores), tally)
    return tally


def join_cluster() -> None:
    """Join the Ray cluster that `RAY_ADDRESS` names, or start one on this machine, unless that was done before."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)


def room_for_actors(cores: int) -> tuple[int, dict[str, float]]:
    """How many actors the cluster has room for, and what each needs: a GPU where there are some, else cores.

    Args:
        cores: of each actor.

    Returns:
        The number, at least 1, and the options of Ray.
    """
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    needed: dict[str, float] = {"num_gpus": 1} if gpus else {"num_cpus": cores}
    return max(1, gpus or int(resources.get("CPU", 1)) // cores), needed


def _draw(images: Sequence[str], job: Job, tally: RunSummary) -> None:
    """Runs the job on the cluster."""
    join_cluster()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    actors, needed = room_for_actors(job.cores)
    size = max(1, min(PART, len(images) // (4 * actors)))
    run = uuid.uuid4().hex[:8]
    parts = [
        {"name": f"{run}-{number:07}", "inputs": images[start : start + size]}
        for number, start in enumerate(range(0, len(images), size))
    ]
    shared = ray.put(job)  # held here, where it outlives the other machines
    # idle actors go, so that those of a lost machine find room elsewhere
    pool = ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors)
    drawn = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
        PartDrawer, batch_size=1, compute=pool, fn_constructor_args=(shared,), **needed
    )
    shown = 0
    with Progress(desc="segment", unit="image", total=len(images)) as bar:
        for part in drawn.iter_rows():
            if part["full"]:
                raise InputError(f"{part['full']}: stopped, {tally.done} of {len(images)} image(s) written")
            tally.done += part["drawn"]
            tally.failed += part["failed"]
            bar.update(part["drawn"] + part["failed"])
            for line in part["errors"].splitlines()[: SHOWN - shown]:
                shown += 1
                say(line)
    if tally.failed > shown:
        say(f"… and {tally.failed - shown} more, in failed-*.parquet")
