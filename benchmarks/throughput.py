"""Images per second of `segment` over a folder, against an earlier revision and by engine, in turn on the same machine.

git archive REVISION src | tar -x -C /tmp/before
python benchmarks/throughput.py --images DIR --model models/isic2018 --before /tmp/before/src

Each round takes other images, and every row does each round, in a process of its own; start-up does not count. What else
runs on the machine falls on all rows alike; medians over rounds are printed with the ratio to the first row, and peak memory.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

CHILD = """
import json, resource, sys, time
from pathlib import Path
from manymask.hub.model_folder import load_model
from manymask.inference.batch import segment_all
from manymask.inference.entries import find_entries
from manymask.inference.segmenter import Segmenter
try:
    from manymask.inference.request import Request
except ImportError:  # an earlier revision
    from manymask.inference.batch import Request
model, out, settings, engine, first, *images = sys.argv[1:]
engine, settings = json.loads(engine), json.loads(settings)
segmenter = Segmenter(load_model(Path(model)), "cpu", **engine)
if settings.pop("fast", False):
    from manymask.inference.asked import one_pass
    settings |= {"samples": 1, "sampling": one_pass(segmenter.model)}
segment_all(segmenter, find_entries([first])[0], Request(Path(out) / "warm", **settings))
start, busy = time.perf_counter(), time.process_time()
done = segment_all(segmenter, find_entries(images)[0], Request(Path(out) / "out", **settings)).done
print(json.dumps({"done": done, "seconds": time.perf_counter() - start, "busy": time.process_time() - busy,
                  "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


@dataclass
class Options:
    """`before`: the `src` folder of an earlier revision, if one is to be compared, with `threads` of torch's."""

    images: Path
    model: Path = Path("models/isic2018")
    before: Path | None = None
    threads: int | None = None
    rounds: int = 4
    each: int = 50
    out: Path | None = None


def run(source: Path, options: Options, settings: dict, engine: dict, images: list[Path]) -> dict[str, float]:
    """One round of one row."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    if options.threads is not None and source == options.before:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory() as place:
        arguments = [options.model, place, json.dumps(settings), json.dumps(engine), images[-1], *images[:-1]]
        done = subprocess.run([sys.executable, "-c", CHILD, *map(str, arguments)], check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, env=environment)  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert found["done"] == len(images) - 1
    return found


def main(options: Options) -> None:
    """All rows take turns; the order turns round from round to round."""
    here = Path(__file__).parents[1] / "src"
    many = options.each
    rows: dict[str, tuple[Path, dict, dict]] = {}
    if options.before is not None:
        rows["before"] = (options.before, {}, {"engine": "torch"})
    rows["torch"] = (here, {}, {"engine": "torch", "images": many})
    rows["onnx"] = (here, {}, {"engine": "onnx", "images": many})
    rows["--fast"] = (here, {"fast": True}, {"engine": "torch", "images": many})
    images = sorted(options.images.iterdir())[: options.rounds * (options.each + 1)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for k in range(options.rounds):
        some = images[k * (options.each + 1) : (k + 1) * (options.each + 1)]
        for name in list(rows)[:: 1 if k % 2 == 0 else -1]:
            found[name].append(run(rows[name][0], options, *rows[name][1:], some))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    first = next(iter(rows))
    for name, rounds in found.items():
        speed = statistics.median(each["done"] / each["seconds"] for each in rounds)
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(found[first], rounds, strict=True))
        busy = statistics.median(each["busy"] / each["done"] for each in rounds)
        memory = max(each["megabytes"] for each in rounds)
        print(
            f"{name}: {speed:.2f} images/s, {ratio:.2f} × {first}, {busy:.3f} s of processor time each, {memory:.0f} MB"
        )
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
