"""Results as rows of Parquet files: what is kept of millions of images, on any file system that fsspec knows (extra `ray`).

OUT/job.json              the settings, which all runs into OUT share
OUT/part-RUN-NUMBER.parquet     a row for each image: its input, the columns of summary.csv, result.json, masks and maps as PNG
OUT/failed-RUN-NUMBER.parquet   a row for each image that could not be segmented: its input and the error
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyarrow.dataset import dataset

from manymask.errors import ConfigError
from manymask.inference.outputs import Output, sixteen_bits
from manymask.inference.request import Request
from manymask.inference.segmentation import Segmentation
from manymask.inference.summary import COLUMNS, row
from manymask.io.atomic import atomic_file
from manymask.io.raster import png_bytes
from manymask.io.remote import open_system

_TEXT = ("unit", "foreign", "warnings")
SCHEMA = pa.schema(
    [
        ("input", pa.string()),
        ("error", pa.string()),
        ("pixels_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        *((name, pa.string() if name in _TEXT else pa.float64()) for name in COLUMNS[2:]),
        ("result", pa.string()),
        ("masks", pa.list_(pa.binary())),
        ("confidence", pa.binary()),
        ("consensus", pa.binary()),
    ]
)


def result_row(name: str, result: Segmentation, request: Request, engine: str) -> dict[str, Any]:
    """The row of an image.

    Args:
        name: the address of the image.
        result: what was drawn.
        request: how it was drawn.
        engine: what ran the networks.

    Returns:
        Values of `SCHEMA`.
    """
    assert result.record is not None
    source = replace(result.record.source, file=name.rpartition("/")[2])
    record = replace(result.record, source=source)
    height, width = result.image.shape[:2]
    facts = {
        "input": name, **record.facts(), "output": request.output(), "warnings": list(result.warnings), "width": width,
        "height": height, "mean_entropy_bits": float(result.entropy.mean()), "seconds": result.seconds,
        "engine": engine,
    }  # fmt: skip
    output = Output(result, result.image, facts, result.spacing, request.alpha, show=False)
    content = output.content()
    numbers = {key: None if value == "" else value for key, value in row(name, content).items() if key in SCHEMA.names}
    return {
        **numbers, "input": name, "pixels_sha256": source.pixels_sha256, "width": width, "height": height,
        "result": json.dumps(content), "masks": [png_bytes(mask) for mask in output.drawn],
        "confidence": png_bytes(sixteen_bits(result.confidence.numpy())),
        "consensus": png_bytes(result.consensus.numpy()),
    }  # fmt: skip


def write_rows(out: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of the table, completely or not at all; no file without rows.

    Args:
        out: OUT.
        name: of the file.
        rows: values of `SCHEMA`.
    """
    if rows:
        content = BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), content, compression="zstd")
        _put(out, name, content.getvalue())


def _put(out: str, name: str, content: bytes) -> None:
    system, folder = open_system(out)
    if isinstance(system, LocalFileSystem):
        with atomic_file(Path(folder) / name) as beside:
            beside.write_bytes(content)
    else:  # an object appears when all of it has come
        system.pipe_file(f"{folder}/{name}", content)


def open_table(out: str, settings: Mapping[str, Any]) -> set[str]:
    """Make a table, or open that of an earlier run; its failures are forgotten, so that they are tried again.

    Args:
        out: OUT.
        settings: JSON-able; what tells one job from another.

    Returns:
        The inputs that have a row with masks.

    Raises:
        ConfigError: the table was made with other settings.
    """
    system, folder = open_system(out)
    wanted = json.loads(json.dumps(settings))
    if system.exists(f"{folder}/job.json"):
        found = json.loads(system.cat_file(f"{folder}/job.json"))
        differ = [key for key in wanted if found.get(key) != wanted[key]]
        if differ:
            raise ConfigError(f"{out} holds results of another job ({', '.join(differ)} differ): name another place")
    else:
        _put(out, "job.json", json.dumps(wanted, indent=2).encode())
    for old in system.glob(f"{folder}/failed-*.parquet"):
        system.rm_file(old)
    parts = system.glob(f"{folder}/part-*.parquet")
    if not parts:
        return set()
    return set(dataset(parts, SCHEMA, filesystem=system).to_table(columns=["input"])["input"].to_pylist())
