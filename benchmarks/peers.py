"""How long five masks take beside what others do in their place, and how much memory.

python benchmarks/peers.py                     for the record: 1 and 2 threads, 128² and 256², minutes on a quiet machine
python benchmarks/peers.py --quick --out DIR   a rehearsal in minutes: 1 thread, 128², two rounds

Every entrant is a process of its own, so that its peak memory is its own. The processes wait while one of them runs; in
each round each runs once, and ratios are of runs in the same round. What takes too long is timed for one step and
multiplied: the tables say by what. The weights of all but ours are random, which changes no time.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from manymask.data.case import Batch
from manymask.errors import MissingExtraError
from manymask.evaluation.profiling import peak_memory
from manymask.export.compiled import compiled
from manymask.export.convert import write_onnx
from manymask.export.graph import MaskGraph, example
from manymask.export.int8 import ALL_BUT_ENCODER, PARTS, Example, quantisable, write_quantised
from manymask.export.sessions import session_of
from manymask.io.atomic import write_json
from manymask.io.record import now
from manymask.recipes import Stage, get_recipe
from manymask.runtime import git_revision, hardware

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "src/manymask/serving/static/examples/ISIC_0010249.jpg"
RECIPES = {128: "isic2018", 256: "isic2018-256"}
MASKS = 5
BASE = "DynUNet"
FLOW_STEPS = 10  # of Euler's method, for Flow-SSN
STEPS = 50  # of DDIM, for MONAI's latent diffusion
T = 1000  # of DDPM in pixels
Run = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What is compared, and how often.

    Attributes:
        out: gets REVISION.json and README.md.
        sizes: sides of the images.
        threads: numbers of threads.
        rounds: runs of each entrant.
        quick: a rehearsal: one thread, 128², two rounds.
        entrants: some of them; all if none is named.
        worker: used by the script itself: runs one entrant whenever a line comes in.
    """

    out: Path = ROOT / "docs/results/peers"
    sizes: tuple[int, ...] = (128, 256)
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 9
    quick: bool = False
    entrants: tuple[str, ...] = ()
    worker: tuple[str, int, int, str] | None = None


@dataclass(frozen=True)
class Entrant:
    """What is timed.

    Attributes:
        build: from the side of the image and the device to a function that is run once per round.
        times: by how much a run is multiplied.
        rounds: at most so many runs.
        what: in words.
    """

    build: Callable[[int, str], Run]
    times: int = 1
    rounds: int = 100
    what: str = ""


def on_device(build: Callable[[int], Run]) -> Callable[[int, str], Run]:
    """What `build` makes, made on a device."""

    def made(size: int, device: str) -> Run:
        with torch.device(device):
            return build(size)

    return made


def ours(engine: str) -> Callable[[int, str], Run]:
    """Five masks of one image by a model of the recipe, whose time does not depend on its weights, from the pixels to the
    probabilities."""

    def build(size: int, device: str) -> Run:
        torch.manual_seed(0)
        model = get_recipe(RECIPES[size]).build(Stage.SEGMENTER).eval().to(device)
        if engine != "torch":
            model = compiled(model, engine, 3, size)
        batch = Batch(["a"], torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))).to(device)
        return lambda: model.sample_all(batch, MASKS, 0)

    return build


def ours_in_8_bits(size: int, device: str) -> Run:
    """The same as one graph in 8 bits, as `manymask export --int8` writes it; the noise is drawn before."""
    assert device == "cpu"
    torch.manual_seed(0)
    model = get_recipe(RECIPES[size]).build(Stage.SEGMENTER).eval()
    graph = MaskGraph(model, model.resolve(None), MASKS)
    inputs = example(graph, 3, size, images=2)
    one = {name: x[:1].numpy() for name, x in inputs.items()}
    with tempfile.TemporaryDirectory() as place:
        path, new = Path(place) / "model.onnx", Path(place) / "int8.onnx"
        with torch.inference_mode(False):
            write_onnx(graph, inputs, graph.outputs, path)
        chosen = frozenset(filter(PARTS[ALL_BUT_ENCODER], quantisable(path)))
        write_quantised(path, new, "onnx", chosen, [Example(one, one["image"])])
        session = session_of(new)
    return lambda: session(one)


@on_device
def dynunet(size: int) -> Run:
    """The network that nnU-Net plans for 256²: seven resolutions, 33.5 million parameters, one forward pass."""
    from monai.networks.nets import DynUNet

    filters = (32, 64, 128, 256, 512, 512, 512)
    strides = [1] + [2] * (len(filters) - 1)
    network = DynUNet(2, 3, 2, [3] * len(filters), strides, strides[1:], filters=filters).eval()
    image = torch.rand(1, 3, size, size)
    return lambda: network(image)


def _denoiser(channels: int, latent: int) -> torch.nn.Module:
    from monai.networks.nets import DiffusionModelUNet

    levels = (64, 128, 256)
    return DiffusionModelUNet(2, channels, latent, [2] * 3, levels, (False, False, True), num_head_channels=32).eval()


@on_device
def latent_step(size: int) -> Run:
    """One step of MONAI's latent diffusion U-Net at f = 4, all masks in one batch."""
    network, z, t = _denoiser(4, 1), torch.randn(MASKS, 4, size // 4, size // 4), torch.full((MASKS,), 500)
    return lambda: network(z, t)


@on_device
def latent_codecs(size: int) -> Run:
    """MONAI's VQ-VAEs at f = 4: encode one image, decode all masks."""
    from monai.networks.nets import VQVAE

    def codec(channels: int, latent: int) -> Any:
        return VQVAE(2, channels, channels, (64, 128), 2, (64, 128), ((2, 4, 1, 1),) * 2, ((2, 4, 1, 1, 0),) * 2,
                     num_embeddings=512, embedding_dim=latent).eval()  # fmt: skip

    image, mask = codec(3, 3), codec(1, 1)
    x, z = torch.rand(1, 3, size, size), torch.randn(MASKS, 1, size // 4, size // 4)
    return lambda: (image.encode(x), mask.decode(z))


@on_device
def pixel_step(size: int) -> Run:
    """One step of the same U-Net on pixels, all masks in one batch."""
    network, z, t = _denoiser(4, 1), torch.randn(MASKS, 4, size, size), torch.full((MASKS,), 500)
    return lambda: network(z, t)


@on_device
def flow_ssn(size: int) -> Run:
    """Flow-SSN's division of labour at its sizes for LIDC: a large network once, a tiny flow on pixels ten times, all masks
    in one batch."""
    from monai.networks.nets import DiffusionModelUNet

    def network(channels: int, classes: int, levels: tuple[int, ...]) -> torch.nn.Module:
        plain = [False] * len(levels)
        return DiffusionModelUNet(2, channels, classes, 1, levels, plain, 16, num_head_channels=16).eval()

    base, flow = network(3, 2, (32, 64, 128, 256)), network(2, 2, (16, 16, 16))
    image, start = torch.rand(1, 3, size, size), torch.randn(MASKS, 2, size, size)
    times = torch.arange(FLOW_STEPS).float().div(FLOW_STEPS).expand(MASKS, -1).contiguous()

    def run() -> torch.Tensor:
        z = base(image, times[:1, 0]) + start
        for k in range(FLOW_STEPS):
            t = times[:, k]
            z = z + (flow(z, t).softmax(1) - z) / (1 - t[:, None, None, None]) / FLOW_STEPS
        return z

    return run


ENTRANTS = {
    BASE: Entrant(dynunet, what="nnU-Net's planned network, 33.5 M: one mask, one forward pass"),
    "ours, torch": Entrant(ours("torch"), what="five masks, 10 steps, five orientations"),
    "ours, onnx": Entrant(ours("onnx"), what="the same, `--engine onnx`"),
    "ours, openvino": Entrant(ours("openvino"), what="the same, `--engine openvino`"),
    "ours, onnx, 8 bits": Entrant(
        ours_in_8_bits, what="the same as one graph, `export --int8`; its peak is that of quantising"
    ),
    "latent diffusion, codecs": Entrant(
        latent_codecs, rounds=3, what="MONAI at the paper's sizes: encode, decode five"
    ),
    "latent diffusion, DDIM-50": Entrant(latent_step, STEPS, 3, f"its U-Net, five masks: one step × {STEPS}"),
    "Flow-SSN-like": Entrant(
        flow_ssn, rounds=3, what=f"five masks, a U-Net once and a tiny flow on pixels {FLOW_STEPS} times"
    ),
    "latent diffusion, DDPM": Entrant(latent_step, T, 3, f"its U-Net, five masks: one step × {T}, extrapolated"),
    "pixel-space DDPM": Entrant(pixel_step, T, 1, f"the same U-Net on pixels, five masks: one step × {T}"),
}


def waited(run: Run, device: str) -> Any:
    """Run, and wait until an accelerator has done its work."""
    result = run()
    if device != "cpu":
        torch.accelerator.synchronize()
    return result


def serve(name: str, size: int, threads: int, device: str) -> None:
    """Be an entrant: a line in, a run, seconds out; at the end the peak memory, the GPU's where it runs there."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        run = ENTRANTS[name].build(size, device)
        if ENTRANTS[name].rounds > 1 or device != "cpu":
            waited(run, device)
        print("ready", flush=True)
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            waited(run, device)
            print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
    peak = peak_memory()
    print(peak.get("gpu", peak["process"]) / 1e6 if device != "cpu" else peak["process"] / 1e6, flush=True)


def compare(size: int, threads: int, rounds: int, names: list[str], device: str = "cpu") -> dict[str, Any]:
    """Time entrants in turn.

    Args:
        size: side of the image.
        threads: of every entrant.
        rounds: runs of each.
        names: the entrants.
        device: that torch runs on.

    Returns:
        For each entrant its seconds (median, least, most), processor seconds, ratio to the base, and peak memory in MB.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--worker"]
    running = {}
    for name in names:
        process = subprocess.Popen([*command, name, str(size), str(threads), device], env=environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        if process.stdout.readline().strip() == "ready":
            running[name] = process
        else:
            print(f"{name} cannot run here", file=sys.stderr)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    for turn in range(rounds):
        for name, process in running.items():
            if turn < ENTRANTS[name].rounds:
                process.stdin.write("\n")
                process.stdin.flush()
                wall, cpu = (float(x) * ENTRANTS[name].times for x in process.stdout.readline().split())
                taken[name].append((wall, cpu))
    peaks = {name: float(process.communicate()[0]) for name, process in running.items()}
    return {name: summary(taken[name], taken.get(BASE, []), peaks[name]) for name in running}


def summary(taken: list[tuple[float, float]], base: list[tuple[float, float]], peak: float) -> dict[str, Any]:
    """Medians of an entrant, and of its ratio to the base in the same round.

    Args:
        taken: (wall, processor) seconds of each round.
        base: the same of the base; empty if it did not run.
        peak: memory in MB.

    Returns:
        JSON-able figures.
    """
    walls, cpus = ([pair[i] for pair in taken] for i in (0, 1))
    ratios = [mine[0] / other[0] for mine, other in zip(taken, base, strict=False)]
    return {
        "seconds": statistics.median(walls),
        "least": min(walls),
        "most": max(walls),
        "cpu_seconds": statistics.median(cpus),
        "ratio": statistics.median(ratios) if ratios else None,
        "runs": len(taken),
        "peak_mb": peak,
    }


def start_to_first_mask(rounds: int) -> dict[str, Any]:
    """Whole processes, from the start to files on disk: `manymask segment`, and the exported runners."""
    with tempfile.TemporaryDirectory() as place:
        commands = {"manymask segment": [sys.executable, "-m", "manymask", "segment", EXAMPLE, "--model",
                                         ROOT / "models/isic2018", "--out", f"{place}/out"]}  # fmt: skip
        for engine in ("onnx", "openvino"):
            folder = Path(place) / engine
            done = subprocess.run([sys.executable, "-m", "manymask", "export", str(ROOT / "models/isic2018"), "--to",
                                   engine, "--out", str(folder)])  # fmt: skip
            if not done.returncode:
                commands[f"runner, {engine}"] = [sys.executable, folder / "runner.py", EXAMPLE, "--out", f"{place}/r"]
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        peaks = dict.fromkeys(commands, 0.0)
        for _ in range(rounds + 1):  # the first reads files that are not in memory yet
            for name, command in commands.items():
                start = time.perf_counter()
                process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
                _, status, used = os.wait4(process.pid, 0)
                assert status == 0, name
                taken[name].append((time.perf_counter() - start, used.ru_utime + used.ru_stime))
                peaks[name] = max(peaks[name], used.ru_maxrss / 1000)
        return {name: summary(taken[name][1:], taken["manymask segment"][1:], peaks[name]) for name in commands}


def table(rows: dict[str, Any], first: str) -> list[str]:
    """Rows of figures as Markdown, with bars on a logarithmic scale."""
    lines = [f"| {first} | seconds | processor seconds | ratio | peak MB | |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.3g}"
        times = "×" + str(ENTRANTS[name].times) if name in ENTRANTS and ENTRANTS[name].times > 1 else ""
        lines.append(
            f"| {name} | {row['seconds']:.3g} {times} | {row['cpu_seconds']:.3g} | {ratio} | {row['peak_mb']:.0f} "
            f"| {bar(row['seconds'])} |"
        )
    return lines


def bar(seconds: float) -> str:
    """A bar whose length grows by four characters with each factor of ten, from 10 ms on."""
    import math

    return "█" * max(1, round(4 * (math.log10(seconds) + 2)))


def page(found: dict[str, Any]) -> str:
    """All tables of a comparison as Markdown."""
    machine = found["hardware"]
    lines = [
        "# Beside what others do",
        "",
        f"Revision {found['revision']}, {found['created'][:10]}, {machine['processor']}, torch {machine['torch']}; medians, "
        f"`python benchmarks/peers.py`{' --quick, a rehearsal' if found['quick'] else ''}.",
        f"Ratios are to {BASE} in the same round, below to `manymask segment`. ×: one step was timed and multiplied.",
        "",
        *(f"- {name}: {entrant.what}" for name, entrant in ENTRANTS.items()),
    ]
    for key, rows in found["inference"].items():
        lines += ["", f"## {key}", "", *table(rows, "entrant")]
    lines += ["", "## From start to files, `models/isic2018`", "", *table(found["start"], "process"), ""]
    return "\n".join(lines)


def against(last: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """How the ratios changed since an earlier comparison, a line for each entrant that is in both."""
    lines = []
    for key, rows in new["inference"].items():
        for name, row in rows.items():
            before = last["inference"].get(key, {}).get(name)
            if before and before["ratio"] and row["ratio"]:
                change = row["ratio"] / before["ratio"] - 1
                lines.append(f"{key}, {name}: ratio {before['ratio']:.3g} → {row['ratio']:.3g} ({change:+.0%})")
    return lines


def main(options: Options) -> None:
    """Compare, write after every comparison, and print what changed since the last one that lies in OUT."""
    quick = options.quick
    names = list(options.entrants or ENTRANTS)
    earlier = [json.loads(path.read_text(encoding="utf-8")) for path in options.out.glob("*.json")]
    options.out.mkdir(parents=True, exist_ok=True)
    revision = git_revision() or "unknown"
    found: dict[str, Any] = {"revision": revision, "created": now(), "hardware": hardware(), "quick": quick,
                             "masks": MASKS, "inference": {}, "start": {}}  # fmt: skip

    def write() -> None:
        write_json(options.out / f"{revision.rstrip('+')}.json", found)
        (options.out / "README.md").write_text(page(found), encoding="utf-8")

    for size in (128,) if quick else options.sizes:
        for threads in (1,) if quick else options.threads:
            key = f"{size}², {threads} thread{'s' if threads > 1 else ''}"
            found["inference"][key] = compare(size, threads, 2 if quick else options.rounds, names)
            write()
    found["start"] = start_to_first_mask(1 if quick else 5)
    write()
    print(page(found))
    if earlier:
        print("\n".join(against(max(earlier, key=lambda each: each["created"]), found)))


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    if chosen.worker:
        try:
            serve(*chosen.worker)
        except MissingExtraError as missing:
            sys.exit(str(missing))
    else:
        main(chosen)
