"""`segment`, `serve` and `demo`: what a trained model is for."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from manymask.choices import Engine, Form, Place, SamplerName
from manymask.cli import flags
from manymask.cli.inputs import chosen_model, found_entries, tally_of
from manymask.cli.wording import at_least_one, in_range
from manymask.errors import ConfigError

if TYPE_CHECKING:
    from manymask.inference.request import Request


def segment(
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, flags.IMAGES],
    /,
    *,
    model: Annotated[str | None, flags.MODEL] = None,
    out: Annotated[str, flags.OUT] = "out",
    samples: Annotated[int, flags.SAMPLES] = 5,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    fast: bool = False,
    seed: int = 0,
    threshold: float = 0.5,
    roi: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="X,Y")] = (),
    tile: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None,
    window: Annotated[str | None, tyro.conf.arg(metavar="WINDOW")] = None,
    anonymise: bool = False,
    store: bool = False,
    fractional: bool = False,
    alpha: float | None = None,
    engine: Engine = "auto",
    form: tyro.conf.UseAppendAction[tuple[Form, ...]] = (),
    slices: Annotated[str | None, tyro.conf.arg(metavar="FIRST-LAST")] = None,
    resume: Annotated[bool, tyro.conf.arg(name="continue")] = False,
    on: Place = "here",
) -> int:
    """Draw several masks for each image; write them with confidence, consensus and overlay, for DICOM as DICOM too.

    Args:
        inputs: PNG, JPEG, TIFF, WebP, HEIC …, DICOM or NIfTI files, folders (s3://… too), or a series of DICOMweb (https://…).
        model: a name of `manymask models`, a model or run folder, or hf://ORG/NAME. Needed unless one model alone fits.
        out: gets one folder for each image, and one for each series or volume; s3://… too.
        samples: how many masks are drawn.
        sampler: the model's own if not given.
        steps: of the sampler, 1 … 1000; the model's own number if not given.
        fast: one mask in one step: about the same consensus, but nothing of where masks differ, and uncalibrated.
        seed: the same seed gives the same masks.
        threshold: where the confidence map is cut into the consensus.
        roi: X,Y, the centre of a region in pixels from the top left, for a model of crops; repeat it for several.
        tile: side of the windows, in pixels of the image, that larger images are drawn in; off the calibration.
        window: lung, mediastinum, bone, header, full or CENTRE,WIDTH: the grey values for people, and for a model without.
        anonymise: leave out of all that is written what tells who the patient is.
        store: put the DICOM objects of a DICOMweb series into its study; without it the archive is only read.
        fractional: write the confidence map of DICOM as a FRACTIONAL SEG too, which some viewers refuse or hang on.
        alpha: share of the inner and outer outline, one that the model is calibrated for; 0.1 if not given.
        engine: what runs the networks; auto is onnx where it is faster, and is kept for this model or built for many images.
        form: what is written, for each image (png) or series (nifti, dicom); repeat it. Without it png and that of the input.
        slices: FIRST-LAST, the slices of series and volumes that are segmented, by the numbers in the names of results.
        resume: keep the results in OUT that would be drawn again in the same way, and draw the others.
        on: ray takes a Ray cluster for folders and buckets (s3://…) of single images, and writes OUT as a table.
    """
    from manymask.diffusion.sampling import SamplingConfig
    from manymask.inference.request import Request
    from manymask.io.dicom.deidentify import Anonymiser
    from manymask.io.window import parse_window

    _check_segment(model, None if on == "ray" else out, samples, threshold)
    request = Request(Path(out), _one_mask(samples, sampler, steps, alpha) if fast else samples, seed,
        SamplingConfig(sampler, steps), threshold, [parse_roi(text) for text in roi], parse_window(window) if window else None,
        Anonymiser() if anonymise else None, store, fractional, alpha, form, resume, tile=tile)  # fmt: skip
    if on == "ray":
        return _on_ray(inputs, model, request, out, engine, {"--slices": slices, "--fast": fast})
    return _segmented(inputs, model, request, out, engine, parse_slices(slices) if slices else None, fast)


def _segmented(
    inputs: tuple[str, ...],
    model: str | None,
    request: "Request",
    out: str,
    engine: Engine,
    numbers: tuple[int, int] | None,
    fast: bool,
) -> int:
    """Carries out a request on the slices of these numbers, all if None; returns the exit status."""
    from manymask.hub.model_folder import load_model
    from manymask.inference.asked import one_pass
    from manymask.inference.batch import segment_all
    from manymask.inference.entries import between
    from manymask.inference.jobs import count_of
    from manymask.inference.segmenter import Segmenter
    from manymask.inference.staging import staged

    tally = tally_of(segment)
    with staged(inputs, out, tally) as here:
        request = replace(request, out=here.out, publish=here.publish)
        entries = found_entries(here.inputs, tally) if here.inputs or not inputs else []
        if request.anonymiser is not None and request.store:
            _check_no_archive(entries)
        if numbers is not None and entries:
            entries = between(entries, *numbers, tally)
        if not entries:
            return 2
        segmenter = Segmenter(load_model(chosen_model(model, entries)), engine=engine, images=count_of(entries) or 1)
        if fast:
            request = replace(request, sampling=one_pass(segmenter.model))
        segmenter.model.resolve(request.sampling)
        segment_all(segmenter, entries, request, tally)
    print("\n".join(tally.lines(out)))
    return 0 if tally.whole else 2


def _one_mask(samples: int, sampler: str | None, steps: int | None, alpha: float | None) -> int:
    """One; `ConfigError` for flags beside `--fast` that say how several are drawn, or what only those have."""
    given = {"--samples": samples != 5, "--sampler": sampler, "--steps": steps, "--alpha": alpha}
    for flag, value in given.items():
        if value:
            raise ConfigError(f"--fast draws one mask in one step: give it without {flag}")
    return 1


def _on_ray(
    inputs: tuple[str, ...],
    model: str | None,
    request: "Request",
    out: str,
    engine: Engine,
    other: Mapping[str, object],
) -> int:
    """Carries out a request on a Ray cluster; returns the exit status."""
    from manymask.extras import require

    flags = {"--window": request.window, "--anonymise": request.anonymiser, "--store": request.store,
             "--fractional": request.fractional, "--form": request.forms, "--tile": request.tile, **other}  # fmt: skip
    refused = [flag for flag, value in flags.items() if value]
    if refused:
        raise ConfigError(f"on Ray there is no {', no '.join(refused)}: each file is one image, and a row of a table")
    if model is None:
        raise ConfigError("on Ray the model must be named", parameter="model")
    require("ray", "a Ray cluster", "ray.data")
    from manymask.inference.cluster import segment_on_ray

    tally = segment_on_ray(inputs, model, request, out, engine, cores=cores_of_each())
    print("\n".join(tally.lines(out)))
    return 2 if tally.failed else 0


def cores_of_each() -> int:
    """Cores of each actor on Ray: OMP_NUM_THREADS, or 1."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(threads)) if threads.isdigit() else 1


def _check_no_archive(entries: Sequence[object]) -> None:
    from manymask.io.dicom.web import ArchiveSeries

    if any(isinstance(entry, ArchiveSeries) for entry in entries):
        raise ConfigError("an anonymous SEG belongs to no study of the archive: give --anonymise or --store, not both")


def parse_roi(text: str) -> tuple[int, int]:
    """`X,Y`: column and row of a centre, in pixels from the top left."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    if not found:
        raise ConfigError(f"--roi wants X,Y in whole pixels from the top left, as in --roi 210,145, not {text!r}")
    return int(found[1]), int(found[2])


def parse_slices(text: str) -> tuple[int, int]:
    """`FIRST-LAST`: the numbers of the first and the last slice; one number stands for both."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if first > last:
        raise ConfigError(f"--slices wants FIRST-LAST, as in --slices 40-62, not {text!r}")
    return first, last


def _check_segment(model: str | None, out: str | None, samples: int, threshold: float) -> None:
    from manymask.hub.catalogue import find_model
    from manymask.io.remote import is_bucket

    at_least_one("--samples", samples)
    if not 0 < threshold < 1:
        raise ConfigError(f"--threshold must lie between 0 and 1, not {threshold}")
    if model is not None:
        find_model(model)
    if out is not None and not is_bucket(out) and Path(out).exists() and not Path(out).is_dir():
        raise ConfigError(f"{out} is a file; --out names a folder")


def serve(
    *,
    model: Annotated[tuple[str, ...], flags.MODELS] = (),
    host: str = "127.0.0.1",
    port: int = 7860,
    max_megabytes: int = 200,
    max_megabytes_at_once: int = 1000,
    max_megapixels: float = 25,
    max_waiting: int = 20,
    max_waiting_each: int = 8,
    max_megabytes_kept: int = 4000,
    max_files_each: int = 3000,
    grace_seconds: int = 20,
    allow_host: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    replicas: int | None = None,
) -> None:
    """The web page, and the same over HTTP: drop an image, watch the masks come, move the threshold, download.

    Args:
        model: one model or more, each by name or folder; all that have a name if not given.
        host: who can reach it: 127.0.0.1 is this computer alone, 0.0.0.0 the network. There is no password.
        port: the page's.
        max_megabytes: of one uploaded file.
        max_megabytes_at_once: of all that is uploaded at a time.
        max_megapixels: million pixels of one image.
        max_waiting: how many may wait in line; who comes after them is asked to come again.
        max_waiting_each: how many of these may be of one address.
        max_megabytes_kept: of all uploads and results together that lie on the disk.
        max_files_each: how many uploaded files of one address may lie on the disk.
        grace_seconds: that the drawing in progress may still take when the server is to end.
        allow_host: a further name that browsers may call this server by, such as the one of a proxy before it; give it
            several times for several names.
        replicas: so many servers behind the one address, on the Ray cluster that RAY_ADDRESS names or on this computer.
    """
    from manymask.extras import require
    from manymask.hub.catalogue import find_model, list_models
    from manymask.serving.server import serve as serve_page
    from manymask.serving.service import Limits

    in_range("--port", port, 1, 65535)
    for flag, value in (("--max-megabytes", max_megabytes), ("--max-waiting", max_waiting),
                        ("--grace-seconds", grace_seconds), ("--replicas", 1 if replicas is None else replicas)):  # fmt: skip
        at_least_one(flag, value)
    models = model or tuple(list_models())
    if not models:
        raise ConfigError("no model is installed: name a model folder", parameter="model")
    for each in models:
        find_model(each)
    limits = Limits(
        max_megabytes, max_megabytes_at_once, megapixels=max_megapixels, waiting=max_waiting,
        waiting_each=max_waiting_each, kept=max_megabytes_kept, kept_files=max_files_each,
    )  # fmt: skip
    if replicas is None:
        return serve_page(models, host, port, limits, allow_host, grace_seconds)
    require("ray", "a server of several replicas", "ray.serve")
    from manymask.serving.replicas import serve_replicas

    serve_replicas(models, replicas, host, port, limits, allow_host, grace_seconds, cores_of_each())


def demo(*, out: Annotated[Path, flags.OUT] = Path("demo"), minutes: float = 4.0, seed: int = 0) -> None:
    """The whole way on the built-in phantom set: prepare, train, segment, evaluate. Minutes on a CPU.

    Args:
        out: gets figure.png, results.json and model/.
        minutes: of training, for all models together.
        seed: of the drawn masks.
    """
    from manymask.experiments.demo import run_demo

    in_range("--minutes", minutes, 0.01, 10**4)
    run_demo(out, minutes, seed)
