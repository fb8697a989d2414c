"""What is asked of one run of `manymask train FOLDER`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manymask.choices import Precision, TrackerName
from manymask.io.masks import MaskReading


@dataclass(frozen=True)
class Request:
    """What is asked of one run; see `planning.run.train_folder`. plan_only: stop when the plan is written; reading, options and
    skip_bad are those of `prepare folder`."""

    data: Path
    run: Path
    minutes: float | None = None
    init: str | None = None
    folds: int | None = None
    scheme: str | None = None
    precision: Precision = "auto"
    track: tuple[TrackerName, ...] = ()
    plan_only: bool = False
    reading: MaskReading = MaskReading()
    options: Mapping[str, Any] = field(default_factory=dict)
    skip_bad: bool = False
