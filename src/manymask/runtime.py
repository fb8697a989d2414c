"""Facts about this machine and this code: device, precision, processor, git revision."""

import os
import platform
import subprocess
import time
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from manymask.errors import ConfigError


def bf16_is_faster() -> bool:
    """Whether a convolution step under bf16 autocast takes less time than in fp32 on this processor."""
    conv, x = nn.Conv2d(32, 32, 3, padding=1), torch.randn(16, 32, 32, 32)

    def seconds(enabled: bool) -> float:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                y = conv(x)
            y.float().square().mean().backward()
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(True) < 0.9 * seconds(False)


@lru_cache(maxsize=1)
def faster_precision() -> Literal["fp32", "bf16"]:
    """What `auto` means here; looked at once a process."""
    fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else bf16_is_faster()
    return "bf16" if fast else "fp32"


_chosen: list[str] = []  # the device of this process, if one was chosen


def default_device() -> str:
    """The device chosen by `use_device`; else CUDA, else Apple's MPS, else the CPU, whichever is there."""
    chosen = chosen_device()
    if chosen is not None:
        return chosen
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def chosen_device() -> str | None:
    """The device chosen by `use_device`, if any."""
    return _chosen[0] if _chosen else None


def use_device(name: str) -> None:
    """Makes a device that of the whole process, training included; `ConfigError` if torch cannot use it."""
    _chosen[:] = [usable_device(name)]
    if name == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # accelerate would take the first accelerator


def usable_device(name: str) -> str:
    """The name of a device; `ConfigError` if torch cannot use it."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError):
        message = f"{name!r} is no device that torch can use here; it has {default_device()}"
        raise ConfigError(message, parameter="device") from None
    return name


@cache
def git_revision() -> str:
    """The revision of the code: what MANYMASK_REVISION says, as in a container, else that of the checkout, with `+` if it was
    changed since; empty without either. Asked once: what a process writes into its checkout is no change of the code that
    it runs."""
    if named := os.environ.get("MANYMASK_REVISION"):
        return named
    here = Path(__file__).parent
    try:
        ask = partial(subprocess.run, cwd=here, capture_output=True, text=True, timeout=10, check=True)
        revision = ask(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        return revision + ("+" if ask(["git", "status", "--porcelain", "-uno"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    """The name that Linux has for it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def hardware() -> dict[str, Any]:
    """What the figures were made on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": _processor(), "threads": torch.get_num_threads(), "gpu": gpu, "torch": torch.__version__}
