"""What was never done on a GPU, in one call of ten minutes: `scripts/gpu_check.sh`.

python benchmarks/gpu.py --out build/gpu                          every part, nine minutes
python benchmarks/gpu.py --device cpu --quick --out build/try     the rehearsal

Each part is a process of its own with a limit of time. What it found is kept row by row, also if it fails or is cut off,
and OUT/gpu.json is written after each part. `manymask report OUT` shows it.
"""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from threading import Timer
from typing import Any

import peers
import torch
import tyro

from manymask.choices import Precision
from manymask.data.case import Batch, Source, random_scheme
from manymask.data.datasets import phantom
from manymask.data.store import Store, prepare
from manymask.evaluation.profiling import clear_peak, peak_memory
from manymask.export.convert import write_onnx
from manymask.export.folder import graph_of
from manymask.export.graph import example
from manymask.export.sessions import session_of
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.io.record import now
from manymask.metrics import overlap
from manymask.models.base import MaskSampler
from manymask.recipes import STAGES, Stage, get_recipe
from manymask.runtime import git_revision, hardware, use_device
from manymask.training.initialization import TrainConfig
from manymask.training.trainer import LOG_EVERY, Trainer

ROOT = Path(__file__).parent.parent
MASKS = peers.MASKS
LIMIT = 2e-3  # of |Δp|, device against CPU in single precision, from the same noise
COMPARED = 4  # images
Row = dict[str, float | str | None]


@dataclass(frozen=True)
class Options:
    """What runs, where and how long.

    Attributes:
        out: gets gpu.json.
        device: what torch calls it.
        minutes: for all parts together.
        quick: a rehearsal: two steps of training, one image at a time, one small entrant, one test.
        only: some of the parts; all if none is named.
        part: used by the script itself: be this part, and append rows to a file.
    """

    out: Path = ROOT / "build/gpu"
    device: str = "cuda"
    minutes: float = 9.0
    quick: bool = False
    only: tuple[str, ...] = ()
    part: tuple[str, Path] | None = None


@dataclass(frozen=True)
class Part:
    """Something to find out.

    Attributes:
        run: yields rows of figures.
        seconds: its limit.
        kind: parts of one kind share a table.
    """

    run: Callable[[Options], Iterator[Row]]
    seconds: float
    kind: str


@contextmanager
def variant(model: MaskSampler, name: str, device: str) -> Iterator[None]:
    """A way to run a model: single precision with and without TF32, bf16, another memory layout, compiled.

    Models are channels-last as they are loaded.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    if "contiguous" in name:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if "compiled" in name:
        # on the CPU the graphs are captured but not compiled, which takes minutes there
        backend = "aot_eager" if device == "cpu" else "inductor"
        for owner, call in ((model, "condition"), (model.denoiser, "forward"), (model.mask_codec, "decode")):
            setattr(owner, call, torch.compile(getattr(owner, call), backend=backend))
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled="bf16" in name):
        yield


VARIANTS = ("fp32", "tf32", "bf16", "bf16, contiguous", "bf16, compiled")


def images(count: int, channels: int, size: int) -> Batch:
    """Smooth images: noise enlarged from a sixteenth of their side, so that masks are neither empty nor full."""
    coarse = torch.rand(count, channels, size // 16, size // 16, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return Batch([f"image {k}" for k in range(count)], smooth)


def against(here: torch.Tensor, there: torch.Tensor) -> Row:
    """How far masks (B, n, H, W) of a device are from those of the CPU."""
    there = there.cpu().float()
    dice = [overlap(a.mean(0).numpy() >= 0.5, b.mean(0).numpy() >= 0.5)[0] for a, b in zip(here, there, strict=True)]
    return {"max_difference": float((here - there).abs().max()), "consensus_dice": min(dice)}


def drawn_like_the_cpu(model: MaskSampler, batch: Batch, device: str) -> Row:
    """The same noise on the CPU and on the device, in single precision."""
    model.eval()
    here = model.to("cpu").sample_all(batch, MASKS, 0)
    with variant(model.to(device), "fp32", device):
        return against(here, model.sample_all(batch.to(device), MASKS, 0))


def compare(options: Options) -> Iterator[Row]:
    """Masks of the shipped models against the CPU's."""
    for folder in sorted((ROOT / "models").glob("*/config.json"))[: 1 if options.quick else None]:
        trained = load_model(folder.parent)
        batch = images(1 if options.quick else COMPARED, trained.recipe.channels, trained.recipe.size)
        found = drawn_like_the_cpu(trained.segmenter, batch, options.device)
        yield {"model": folder.parent.name, **found, "limit": LIMIT}


def draw(name: str) -> Callable[[Options], Iterator[Row]]:
    """Images per second and memory of a shipped model, by precision, layout and batch; compiled at one batch alone."""

    def run(options: Options) -> Iterator[Row]:
        device = options.device
        recipe = load_model(ROOT / "models" / name).recipe
        few = images(1 if options.quick else COMPARED, recipe.channels, recipe.size)
        here = load_model(ROOT / "models" / name).segmenter.sample_all(few, MASKS, 0)
        for precision in VARIANTS:
            model = load_model(ROOT / "models" / name).segmenter.to(device)
            batches = (1,) if options.quick else (8,) if "compiled" in precision else (1, 8, 64)
            for size in batches:
                batch = images(size, recipe.channels, recipe.size).to(device)
                with variant(model, precision, device):
                    first, seconds, peak = timed(lambda: model.sample_all(batch, MASKS, 0), device, options)  # noqa: B023
                yield {"model": name, "precision": precision, "batch": size, "images_per_s": size / seconds,
                       "first_s": first, "peak_mb": peak}  # fmt: skip
            with variant(model, precision.partition(", compiled")[0], device):
                yield {
                    "model": name,
                    "precision": precision,
                    **against(here, model.sample_all(few.to(device), MASKS, 0)),
                }

    return run


def timed(run: Callable[[], Any], device: str, options: Options) -> tuple[float, float, float]:
    """Seconds of the first run, median seconds of later ones, peak memory in MB of them all."""
    clear_peak()
    taken = []
    for _ in range(2 if options.quick else 6):
        start = time.perf_counter()
        peers.waited(run, device)
        taken.append(time.perf_counter() - start)
    peak = peak_memory()
    return taken[0], median(taken[1:]), peak.get("gpu", peak["process"]) / 1e6


def train(recipe: str, *stages: Stage) -> Callable[[Options], Iterator[Row]]:
    """Steps of training as `manymask train` does them, the model folder that they leave, and its masks."""

    def run(options: Options) -> Iterator[Row]:
        steps = 2 if options.quick else 200
        with tempfile.TemporaryDirectory() as place:
            store = phantoms(Path(place) / "store", 24 if options.quick else 400)
            for stage in stages:
                row = get_recipe(recipe)
                short = {"steps": steps, "validate_every": steps, "validation_cases": 8, "warmup": min(50, steps)}
                if options.quick:
                    short["batch_size"] = 2
                row = replace(row, training=replace(row.training, **short),
                              codec_training=replace(row.codec_training, **short))  # fmt: skip
                precision: Precision = "auto" if options.device == "cuda" else "fp32"  # elsewhere it may not exist
                found, folder = trained(TrainConfig(row, stage, store, Path(place) / "run", precision=precision))
                if stage == Stage.SEGMENTER:
                    batch = store.batch(store.part(None, "test")[: 1 if options.quick else COMPARED])
                    found |= drawn_like_the_cpu(load_model(folder).segmenter, batch, options.device) | {"limit": LIMIT}
                yield {"recipe": recipe, "stage": stage.value, **found}

    return run


def phantoms(folder: Path, count: int) -> Store:
    """A store of simulated lesions."""
    cases = phantom.read().cases[:count]
    schemes = {"random": random_scheme({case.id: case.id for case in cases}, 0)}
    return prepare(Source("phantom", cases, schemes, "Apache-2.0"), folder, 64, 1)


def trained(job: TrainConfig) -> tuple[Row, Path]:
    """Train; the loss of the first and the last steps, speed and memory, and the model folder."""
    trainer = Trainer.start(job)
    losses: list[torch.Tensor] = []
    step = trainer.step

    def recorded() -> dict[str, torch.Tensor]:
        logs = step()
        losses.append(logs["loss"].detach())
        return logs

    trainer.step = recorded  # type: ignore[method-assign]
    clear_peak()
    folder = trainer.run()
    seconds = trainer.progress.seconds
    trainer.close()
    values, peak = [float(loss) for loss in losses], peak_memory()
    few = min(LOG_EVERY, len(values))
    return {
        "precision": trainer.precision,
        "steps": len(values),
        "images_per_s": len(values) * trainer.training.batch_size / max(seconds, 1e-9),
        "first_loss": mean(values[:few]),
        "last_loss": mean(values[-few:]),
        "peak_mb": peak.get("gpu", peak["process"]) / 1e6,
    }, folder


def beside(size: int) -> Callable[[Options], Iterator[Row]]:
    """Five masks of one image beside what others do, in turn, each in a process of its own."""

    def run(options: Options) -> Iterator[Row]:
        names = [name for name in peers.ENTRANTS if "onnx" not in name and "openvino" not in name]
        names = [peers.BASE] if options.quick else names
        found = peers.compare(size, torch.get_num_threads(), 1 if options.quick else 9, names, options.device)
        for name in names:
            row = found.get(name)
            kept = ("seconds", "ratio", "peak_mb")
            yield {"size": size, "entrant": name, "times": peers.ENTRANTS[name].times,
                   **{key: row[key] if row else None for key in kept}}  # fmt: skip

    return run


def export(options: Options) -> Iterator[Row]:
    """The exported graph on ONNX Runtime's provider for the device, against torch on the CPU."""
    trained = load_model(ROOT / "models/isic2018")
    graph = graph_of(trained, None, MASKS)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        write_onnx(graph, example(graph, trained.recipe.channels, trained.recipe.size), graph.outputs, path)
        session = session_of(path, device=options.device)
        batches = (1,) if options.quick else (1, 8, 64)
        for size in batches:
            inputs = example(graph, trained.recipe.channels, trained.recipe.size, size)
            arrays = {name: x.numpy() for name, x in inputs.items()}
            first, seconds, _ = timed(lambda: session(arrays), "cpu", options)  # noqa: B023
            found: Row = {}
            if size <= COMPARED:
                with torch.inference_mode():
                    found = against(graph(*inputs.values())[0], torch.from_numpy(session(arrays)[0]))
            yield {"provider": options.device, "batch": size, "images_per_s": size / seconds, "first_s": first, **found}


def tests(options: Options) -> Iterator[Row]:
    """The tests that train models and draw masks, which take a GPU where there is one; counted as they end."""
    paths = [f"tests/{name}" for name in ("models", "training", "evaluation", "inference")]
    chosen = ["tests/models/test_accelerator.py", "-k", "on_this_device and nnunet"] if options.quick else paths
    workers = ["-n", "8"] if importlib.util.find_spec("xdist") and not options.quick else []
    command = [sys.executable, "-m", "pytest", "-vv", "--tb=line", "-p", "no:cacheprovider", *workers, *chosen]
    environment = os.environ | {"MANYMASK_TEST_DEVICE": options.device}
    counts: Row = dict.fromkeys(("passed", "failed", "error", "skipped"), 0)
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE) as process:
        Timer(max(1.0, 60 * options.minutes - 10), process.kill).start()  # so that the count is kept
        assert process.stdout is not None
        for line in process.stdout:
            outcome = re.search(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b", line)
            if outcome and not line.startswith(("FAILED", "ERROR")):  # those of the summary
                counts[outcome[1].lower()] += 1  # type: ignore[operator]
                if outcome[1] in ("FAILED", "ERROR"):
                    yield {"test": next((word for word in line.split() if "::" in word), line.strip())}
            elif "::" in line or "rror" in line:
                print(line, end="")
    yield {"test": "all" if process.returncode in (0, 1) else f"cut off (status {process.returncode})", **counts}


LATENT, FAMILIES = "phantom", ("phantom-nnunet", "phantom-medsegdiff", "phantom-prob-unet")
PARTS = {
    "masks as on the CPU": Part(compare, 60, "compare"),
    "latent diffusion": Part(train(LATENT, *STAGES), 75, "train"),
    "paper's latent diffusion": Part(train("phantom-paper", *STAGES), 75, "train"),
    **{name.removeprefix("phantom-"): Part(train(name, Stage.SEGMENTER), 45, "train") for name in FAMILIES},
    "beside others, 256²": Part(beside(256), 90, "beside"),
    "beside others, 128²": Part(beside(128), 60, "beside"),
    "speed, 128²": Part(draw("isic2018"), 90, "speed"),
    "speed, 256²": Part(draw("polyps"), 90, "speed"),
    "export": Part(export, 60, "export"),
    "tests": Part(tests, 600, "tests"),
}


def worker(name: str, rows: Path, options: Options) -> None:
    """Be a part: a row a line in a file."""
    if options.device != "cpu":
        torch.zeros(1, device=options.device)  # torch's own words if there is none
    use_device(options.device)
    with rows.open("a", encoding="utf-8") as file:
        for row in PARTS[name].run(options):
            print(json.dumps(row), file=file, flush=True)


def ran(name: str, seconds: float, options: Options) -> dict[str, Any]:
    """Run a part in a process of its own.

    Args:
        name: of the part.
        seconds: after which it and all its children are killed.
        options: of all parts.

    Returns:
        Status (done, failed, cut off), seconds, rows, and the end of what it printed unless it is done.
    """
    with tempfile.TemporaryDirectory() as place:
        rows, log = Path(place) / "rows", Path(place) / "log"
        command = [sys.executable, __file__, "--part", name, str(rows), "--device", options.device,
                   "--minutes", str(seconds / 60), *(["--quick"] if options.quick else [])]  # fmt: skip
        start, status = time.perf_counter(), "cut off"
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                status = "failed" if process.wait(seconds) else "done"
            except subprocess.TimeoutExpired:
                pass
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
        found = {"status": status, "seconds": round(time.perf_counter() - start, 1), "limit_s": round(seconds, 1)}
        return found | {"rows": [json.loads(line) for line in lines], "end": "" if status == "done" else end}


def machine(device: str) -> dict[str, Any]:
    """What the figures are of."""
    found: dict[str, Any] = {**hardware(), "device": device, "cuda": torch.version.cuda, "cores": os.cpu_count()}
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        found |= {"memory_gib": memory / 2**30, "cudnn": torch.backends.cudnn.version()}
    return found


def main(options: Options) -> None:
    """Run the parts in turn while there is time, and write after each."""
    deadline = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {"revision": git_revision(), "created": now(), "minutes": options.minutes,
                             "quick": options.quick, "hardware": machine(options.device), "parts": {}}  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    for name, part in PARTS.items():
        if options.only and name not in options.only:
            continue
        left = min(part.seconds, deadline - time.monotonic())
        result = ran(name, left, options) if left > 5 else {"status": "not run", "seconds": 0.0, "rows": [], "end": ""}
        found["parts"][name] = {"kind": part.kind, **result}
        write_json(options.out / "gpu.json", found)
        print(f"{name}: {result['status']}, {result['seconds']:.0f} s, {len(result['rows'])} rows", flush=True)
        if result["end"]:
            print("  " + result["end"].splitlines()[-1], flush=True)


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    if chosen.part:
        worker(*chosen.part, chosen)
    else:
        main(chosen)
