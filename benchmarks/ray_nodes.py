"""Small images on one node against two: `segment --on ray` on local Ray clusters whose nodes have one core each.

python benchmarks/ray_nodes.py --images 10000 --out ray_nodes.json      # needs a free core for each node
python benchmarks/ray_nodes.py --images 40 --nodes                      # one core without Ray: CPU seconds for each image

All runs draw the same images. Drawing takes from the first file of a table to its last: starting the nodes does not count.
"""

import argparse
import json
import logging
import os
import platform
import tempfile
import time
from pathlib import Path

import ray
import torch
from PIL import Image
from ray.cluster_utils import Cluster

from manymask.data.datasets import phantom
from manymask.inference.cluster import segment_on_ray
from manymask.inference.request import Request
from manymask.inference.segmenter import Segmenter
from manymask.inference.table import result_row, write_rows


def draw(images: Path, model: str, nodes: int, samples: int, out: Path) -> dict[str, float]:
    """Seconds of a run in all, and seconds from its first file to its last with the images of these."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    start = time.perf_counter()
    tally = segment_on_ray([str(images)], model, Request(Path(), samples), str(out))
    seconds = time.perf_counter() - start
    ray.shutdown()
    cluster.shutdown()
    written = sorted(path.stat().st_mtime for path in out.glob("part-*.parquet"))
    part = tally.done / len(written)
    size = sum(path.stat().st_size for path in out.iterdir())
    drawing = written[-1] - written[0]
    return {
        "nodes": nodes,
        "images": tally.done,
        "seconds": round(seconds, 1),
        "drawing_seconds": round(drawing, 1),
        "images_per_second": round(part * (len(written) - 1) / drawing, 2),
        "bytes_per_image": round(size / tally.done),
    }


def alone(images: Path, model: str, samples: int, out: Path) -> dict[str, float]:
    """CPU seconds of reading an image, drawing its masks and writing its row, on one thread; bytes of a row."""
    torch.set_num_threads(1)
    segmenter, request = Segmenter.from_pretrained(model, engine="torch"), Request(Path(), samples)
    paths = sorted(images.iterdir())
    segmenter.segment(paths[0].read_bytes(), samples)
    start = time.process_time()
    rows = [
        result_row(str(path), segmenter.segment(path.read_bytes(), samples), request, segmenter.engine)
        for path in paths
    ]
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
    parser.add_argument("--size", type=int, default=128, help="side of the images")
    parser.add_argument("--model", default="cvc_clinicdb")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("ray_nodes.json"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        images.mkdir()
        for number in range(asked.images):
            picture = Image.fromarray(phantom.draw(number).image[:, :, 0]).resize((asked.size, asked.size))
            picture.convert("RGB").save(images / f"{number:06}.png")
        one = alone(images, asked.model, asked.samples, Path(place) / "alone")
        runs = [draw(images, asked.model, n, asked.samples, Path(place) / f"out-{n}") for n in asked.nodes]
    rates = [run["images_per_second"] for run in runs]
    ratio = round(rates[-1] / rates[0], 2) if rates else None
    found = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "model": asked.model,
             "samples": asked.samples, "size": asked.size, "alone": one, "runs": runs, "ratio": ratio}  # fmt: skip
    asked.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
