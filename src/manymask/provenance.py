"""Which code gave a result."""

import subprocess
from functools import partial
from pathlib import Path


def git_revision() -> str:
    """The revision of the code, with `+` if it was changed since; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        ask = partial(subprocess.run, cwd=here, capture_output=True, text=True, timeout=10, check=True)
        revision = ask(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        return revision + ("+" if ask(["git", "status", "--porcelain", "-uno"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return ""
