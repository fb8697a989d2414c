"""A real `manymask serve` in a process of its own, with tiny models: of whole images, of regions, and a calibrated one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from manymask.hub.model_folder import TrainedModel, save_model
from manymask.hub.provenance import Provenance
from tests.factories import perturb, save_calibrated, tiny_recipe


@dataclass(frozen=True)
class Server:
    url: str
    port: int
    models: Path  # whole/, crops/ and calibrated/
    folder: Path  # where the server keeps its temporary files
    log: Path
    process: subprocess.Popen

    def held(self) -> dict[Path, int]:
        """What lies on the server's disk, with sizes; files and folders may go while one looks."""
        found = {}
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder, name) for name in names):
                with suppress(FileNotFoundError):
                    found[path] = path.stat().st_size
        return found


def save_tiny_models(folder: Path) -> None:
    row = tiny_recipe()
    torch.manual_seed(0)
    model = perturb(row.build("segmenter"))
    for name, recipe in (("whole", row), ("crops", replace(row, crop=True, stretch=True, window="full"))):
        save_model(TrainedModel(model, recipe, "segmenter", Provenance(), ["a"]), folder / name)
    torch.manual_seed(0)
    drawing = perturb(row.build("segmenter"), scale=0.2)  # its outlines lie inside of the image
    save_model(TrainedModel(drawing, row, "segmenter", Provenance(), ["a"]), folder / "calibrated")
    save_calibrated(folder / "calibrated", folder / "calibrated", foreign=True)


@contextmanager
def serving(place: Path, *flags: str) -> Iterator[Server]:
    """Ends with a SIGTERM, as a service manager would send; what the server leaves behind then is a failure, and so is
    any end but a quiet one."""
    save_tiny_models(place / "models")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "temporary").mkdir()
    models = [str(place / "models" / name) for name in ("whole", "crops", "calibrated")]
    command = [sys.executable, "-m", "manymask.cli.main", "serve", "--model", *models, "--port", str(port), *flags]
    environment = {**os.environ, "TMPDIR": str(place / "temporary"), "OMP_NUM_THREADS": "1"}
    with (place / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    server = Server(f"http://127.0.0.1:{port}", port, place / "models", place / "temporary", place / "log", process)
    try:
        for _ in range(1800):
            if "end with Ctrl+C" in server.log.read_text() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None, server.log.read_text()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert status == 0 and "terminate" not in server.log.read_text()
    assert not list(server.folder.glob("manymask-*")), "the server left files behind"
