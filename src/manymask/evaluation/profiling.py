"""What a model costs: memory of this process, seconds an image."""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.runtime import default_device

TIMED_CASES = 5


def clear_peak() -> None:
    """Forgets the accelerator's peak so far; that of the process cannot be forgotten, so measure in a fresh one."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Bytes: `process`, the most this process ever held; `gpu`, the most that tensors took since `clear_peak`."""
    gpu = {"gpu": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
    return {"process": _peak_of_process(), **gpu}


def _peak_of_process() -> int:
    """VmHWM where there is one: `ru_maxrss` also counts what the process had before it became this program."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def median_latency(model: Any, store: Store, ids: list[str], samples: int, sampling: SamplingConfig) -> float:
    """Median wall time for `samples` masks of one image, images one by one, after a warm-up."""
    device, times = default_device(), []
    for case in [ids[0], *ids[:TIMED_CASES]]:
        batch = store.batch([case]).to(device)
        start = time.perf_counter()
        model.sample_all(batch, samples, 0, sampling).cpu()
        times.append(time.perf_counter() - start)
    return median(times[1:])
