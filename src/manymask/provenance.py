"""Which code and which machine gave a result, and what a model has seen on its way."""

import platform
import subprocess
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch


@cache
def git_revision() -> str:
    """The revision of the code, with `+` if it was changed since; empty outside a checkout. Asked once: what a process writes
    into its checkout is no change of the code that it runs."""
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


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from: the data set's name and hash, split scheme and licence; the step of its weights, the
    minutes of the whole run, the code, the score on validation; the model that it started from, if any; and of a segmenter
    its codecs, where that is known."""

    data: str = ""
    data_hash: str = ""
    scheme: str = ""
    licence: str = ""
    steps: int = 0
    minutes: float = 0.0
    git: str = ""
    score: str = ""
    parent: "Provenance | None" = None
    image_codec: "Provenance | None" = None
    mask_codec: "Provenance | None" = None

    @property
    def line(self) -> "tuple[Provenance, ...]":
        """This one, what it started from, and so on."""
        return (self, *(self.parent.line if self.parent else ()))

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The names of all data sets that it, or a codec of its, has seen, its own first."""
        own = [each.data for each in self.line if each.data]
        codecs = [codec for each in self.line for codec in (each.image_codec, each.mask_codec) if codec is not None]
        return tuple(dict.fromkeys([*own, *(name for codec in codecs for name in codec.data_sets)]))
