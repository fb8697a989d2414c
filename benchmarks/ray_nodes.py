"""Small images on one node against two: `segment --on ray` on local Ray clusters, each node of which is bound to a core.

python benchmarks/ray_nodes.py --out ray_nodes.json                     # 10,000 images, about 10 minutes; two free cores
python benchmarks/ray_nodes.py --images 40 --nodes                      # one core without Ray: CPU seconds for each image

All runs draw the same images. The driver and what else Ray runs share the core of the first node. The rate counts from the time
when as many files of the table are written as there are nodes: starting the nodes does not count, and waiting at the end does.
"""

import argparse
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import ray
import torch
from PIL import Image
from ray.cluster_utils import Cluster

from manymask.data.datasets import phantom
from manymask.diffusion.sampling import SamplingConfig
from manymask.inference.cluster import segment_on_ray
from manymask.inference.request import Request
from manymask.inference.segmentation import Segmentation
from manymask.inference.segmenter import Segmenter
from manymask.inference.table import result_row, write_rows

MOST_ALONE = 40  # images without Ray
PHANTOMS = 250


def draw(images: Path, model: str, request: Request, cores: Sequence[int], out: Path) -> dict[str, float]:
    """Seconds of a run with a node on each of these cores, in all, and while all nodes drew with the images of that time."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's own is 15: whatever else runs would go first
    allowed, nodes = os.sched_getaffinity(0), len(cores)
    settings = {"num_cpus": 1, "object_store_memory": 200_000_000}
    os.sched_setaffinity(0, {cores[0]})  # what is started takes over the cores of this process
    cluster = Cluster(initialize_head=True, head_node_args={**settings, "include_dashboard": False})
    for core in cores[1:]:
        os.sched_setaffinity(0, {core})
        cluster.add_node(**settings)
    os.sched_setaffinity(0, {cores[0]})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    start = time.perf_counter()
    tally = segment_on_ray([str(images)], model, request, str(out))
    seconds = time.perf_counter() - start
    ray.shutdown()
    cluster.shutdown()
    os.sched_setaffinity(0, allowed)
    written = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in out.glob("part-*.parquet"))
    size = sum(path.stat().st_size for path in out.iterdir())
    drawing = written[-1][0] - written[nodes - 1][0]
    return {
        "nodes": nodes,
        "images": tally.done,
        "seconds": round(seconds, 1),
        "drawing_seconds": round(drawing, 1),
        "images_per_second": round(sum(rows for _, rows in written[nodes:]) / drawing, 2),
        "bytes_per_image": round(size / tally.done),
    }


def write_images(folder: Path, count: int, size: int) -> None:
    """Phantoms, each a little brighter than those before: to draw all of them anew would take longer than their masks."""
    phantoms = [Image.fromarray(phantom.draw(number).image[:, :, 0]) for number in range(min(count, PHANTOMS))]
    for number in range(count):
        brighter, place = divmod(number, PHANTOMS)
        picture = phantoms[place].point(lambda value, more=brighter: min(value + more, 255))
        picture.resize((size, size)).save(folder / f"{number:06}.png")


def alone(paths: Sequence[Path], model: str, request: Request, out: Path) -> dict[str, float]:
    """CPU seconds of reading an image, drawing its masks and writing its row, on one thread; bytes of a row."""
    torch.set_num_threads(1)
    segmenter = Segmenter.from_pretrained(model, engine="torch")

    def drawn(path: Path) -> Segmentation:
        return segmenter.segment(path.read_bytes(), request.samples, sampling=request.sampling)

    drawn(paths[0])
    start = time.process_time()
    rows = [result_row(str(path), drawn(path), request, segmenter.engine) for path in paths]
    write_rows(str(out), "part-0.parquet", rows)
    seconds = time.process_time() - start
    size = (out / "part-0.parquet").stat().st_size
    return {
        "images": len(paths),
        "cpu_seconds_per_image": round(seconds / len(paths), 4),
        "bytes_per_image": round(size / len(paths)),
    }


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=96, help="side of the images")
    parser.add_argument("--model", default="lidc_idri")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1, help="0: the model's own")
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--cores", type=int, nargs="*", default=sorted(os.sched_getaffinity(0)), help="of the nodes")
    parser.add_argument("--out", type=Path, default=Path("ray_nodes.json"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        images.mkdir()
        write_images(images, asked.images, asked.size)
        sampling = SamplingConfig(steps=asked.steps, orientations=1) if asked.steps else None
        request = Request(Path(), asked.samples, sampling=sampling)
        one = alone(sorted(images.iterdir())[:MOST_ALONE], asked.model, request, Path(place) / "alone")
        runs = [draw(images, asked.model, request, asked.cores[:n], Path(place) / f"out-{n}") for n in asked.nodes]
    rates = [run["images_per_second"] for run in runs]
    ratio = round(rates[-1] / rates[0], 2) if rates else None
    found = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "model": asked.model,
             "samples": asked.samples, "steps": asked.steps, "size": asked.size,
             "alone": one, "runs": runs, "ratio": ratio}  # fmt: skip
    asked.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
