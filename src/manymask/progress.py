"""Progress on stderr: a bar on a terminal; elsewhere a line for every tenth of the work, which logs and pipes can hold."""

import io
import sys
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    Bar = tqdm[Any]
else:
    Bar = tqdm


def watched() -> bool:
    """Whether a person may be looking at stderr."""
    return bool(sys.stderr and sys.stderr.isatty())


def say(line: str) -> None:
    """One line on stderr beside the bars."""
    tqdm.write(line, file=sys.stderr)


class Progress(Bar):
    """tqdm with its arguments; where stderr is no terminal, what it shows are lines such as `segment: 40 % (12 of 30, 0:09,
    0:14 left)`, and nothing if the total is not known."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._lines, self._tenths = not watched(), 0
        if self._lines:
            options |= {"file": io.StringIO(), "mininterval": 0, "dynamic_ncols": False}
            self._tenths = self._done(options.get("initial", 0), options.get("total"))
        super().__init__(*arguments, **options)

    @staticmethod
    def _done(n: float, total: float | None) -> int:
        """Whole tenths of the work."""
        return int(10 * n // total) if total else 0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Shows what is done."""
        if not self._lines:
            super().display(msg, pos)
        elif (tenths := self._done(self.n, self.total)) > self._tenths:
            self._tenths = tenths
            print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        total, elapsed = self.total or self.n, float(self.format_dict["elapsed"])
        times = tqdm.format_interval(elapsed)
        if 0 < self.n < total:
            times += f", {tqdm.format_interval(elapsed / (self.n - self.initial) * (total - self.n))} left"
        name = f"{self.desc}: " if self.desc else ""
        return f"{name}{100 * self.n // total:.0f} % ({self.n:.0f} of {total:.0f}, {times})".replace(": :", ":")
