"""The budget of a call in minutes: what is left of it, and when to validate."""

import time

VALIDATIONS = 10  # in a budget
LOG_LINES = 200
VALIDATION_SHARE = 0.2  # of the time, at most


class Clock:
    """Runs from its making. `minutes` is the budget; None for no limit, then steps decide when to validate."""

    def __init__(self, minutes: float | None) -> None:
        self.budget = None if minutes is None else 60 * minutes
        self.start = time.monotonic()
        self.logged = self.validated = self.start
        self.cost = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def left(self) -> str:
        """Time that is left, as `m:ss`."""
        seconds = int(max(0.0, (self.budget or 0.0) - self.elapsed))
        return f"{seconds // 60}:{seconds % 60:02}"

    @property
    def used(self) -> bool:
        """Whether the budget is used up, but for one more validation."""
        return self.budget is not None and self.elapsed + self.cost >= self.budget

    @property
    def log_due(self) -> bool:
        """Whether a budget calls for a line of the log."""
        return self.budget is not None and time.monotonic() - self.logged >= self.budget / LOG_LINES

    @property
    def validation_due(self) -> bool:
        """Whether a budget calls for a validation: every tenth of it, less often where validations take long."""
        if self.budget is None:
            return False
        wait = max(self.budget / VALIDATIONS, self.cost / VALIDATION_SHARE)
        return time.monotonic() - self.validated >= wait

    def log(self) -> None:
        """Notes that a line was logged."""
        self.logged = time.monotonic()

    def validation(self, seconds: float) -> None:
        """Notes that a validation has ended, which took so long."""
        self.validated = time.monotonic()
        self.cost = seconds
