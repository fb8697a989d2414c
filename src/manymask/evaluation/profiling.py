"""The cost of a model: memory of this process, seconds per image."""

import sys
import time
from pathlib import Path
from statistics import median

import torch

from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.models.base import MaskSampler
from manymask.runtime import default_device

TIMED_CASES = 5


def clear_peak() -> None:
    """Reset the accelerator's peak; that of the process cannot be reset, so measure in a fresh process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Peak memory in bytes.

    Returns:
        `process`, the peak resident size of this process; with a GPU also `gpu`, the peak of tensors since `clear_peak`.
    """
    peak = {"process": _peak_of_process()}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak


def _peak_of_process() -> int:
    """VmHWM where it exists, since `ru_maxrss` also counts memory from before this program was executed."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def median_latency(model: MaskSampler, store: Store, ids: list[str], samples: int, sampling: SamplingConfig) -> float:
    """Median wall time per image, images one by one, after a warm-up.

    Args:
        model: a segmenter on the default device.
        store: the data.
        ids: the cases; the first `TIMED_CASES` are timed.
        samples: number of masks per image.
        sampling: how masks are drawn.

    Returns:
        Seconds for `samples` masks of one image.
    """
    device = default_device()
    times = []
    for case in [ids[0], *ids[:TIMED_CASES]]:
        batch = store.batch([case]).to(device)
        start = time.perf_counter()
        model.sample_all(batch, samples, 0, sampling).cpu()
        times.append(time.perf_counter() - start)
    return median(times[1:])
