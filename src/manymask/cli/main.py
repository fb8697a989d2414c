"""The command line: finds the verb (tyro); what a user did wrong ends in one line and 2."""

import inspect
import os
import sys
from collections.abc import Callable, Collection
from typing import Any

import tyro

from manymask._version import __version__
from manymask.cli.calibrate import calibrate
from manymask.cli.data import list_recipes, prepare_arguments, prepare_help, prepare_parameters
from manymask.cli.evaluate import curves, evaluate, publish
from manymask.cli.experiments import report, reproduce
from manymask.cli.renamed import renamed
from manymask.cli.segment import demo, segment, serve
from manymask.cli.train import parameters as train_parameters
from manymask.cli.train import train, train_help
from manymask.cli.triage import triage
from manymask.cli.wording import worded
from manymask.errors import ConfigError, ManymaskError, guesses
from manymask.signals import interrupt_on_sigterm

VERBS: dict[str, Any] = {
    "prepare": prepare_help,
    "segment": segment,
    "triage": triage,
    "evaluate": evaluate,
    "calibrate": calibrate,
    "publish": publish,
    "curves": curves,
    "serve": serve,
    "recipes": list_recipes,
    "demo": demo,
    "reproduce": reproduce,
    "report": report,
    "train": train_help,
}
# verbs whose flags depend on recipes and data sets, which take torch to load: what runs them, and names their parameters
OWN_FLAGS: dict[str, tuple[Callable[[list[str]], None], Callable[[], tuple[str, ...]]]] = {
    "prepare": (prepare_arguments, prepare_parameters),
    "train": (train, train_parameters),
}
BROKEN_PIPE = 141


def main() -> None:
    """The entry point: 0 done, 1 a fault of the program, 2 a mistake of the user's, 130 Ctrl-C, 143 SIGTERM.

    Every error is one line; MANYMASK_DEBUG=1 shows where it came from.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for stream in (sys.stdout, sys.stderr):  # names of files need not be Unicode
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        interrupt_on_sigterm()
        code = run(renamed(sys.argv[1:]))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has gone
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        code = BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("MANYMASK_DEBUG", "0") not in ("", "0"):
            raise
        said, code = explain(error, parameters_of(sys.argv[1:]))
        print(f"manymask: {' '.join(said.splitlines())}", file=sys.stderr)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs the verb that `arguments` begin with; returns the exit status."""
    verb, *rest = arguments or ["--help"]
    if verb == "help":
        verb, arguments = "--help", ["--help"]
    if verb in ("--version", "-V"):
        print(version())
        return 0
    if verb in OWN_FLAGS:
        OWN_FLAGS[verb][0](rest)
        return 0
    if not verb.startswith("-") and verb not in VERBS:
        raise ConfigError(f"there is no verb {verb!r}{guesses(verb, VERBS)}; choose one of {', '.join(VERBS)}")
    description = "Draw many plausible masks for one medical image."
    code: Any = tyro.extras.subcommand_cli_from_dict(VERBS, prog="manymask", description=description, args=arguments)
    return int(code or 0)


def parameters_of(arguments: list[str]) -> Collection[str]:
    """The names of the parameters that the verb of these arguments accepts; none without a verb."""
    verb = arguments[0] if arguments else ""
    if verb in OWN_FLAGS:
        return OWN_FLAGS[verb][1]()
    return tuple(inspect.signature(VERBS[verb]).parameters) if verb in VERBS else ()


def explain(error: BaseException, accepted: Collection[str] = ()) -> tuple[str, int]:
    """What is said of an error, with the flags among `accepted` parameters that it is about; and the exit status."""
    match error:
        case KeyboardInterrupt():
            return str(error) or "interrupted", getattr(error, "status", 130)
        case ManymaskError():
            return worded(error, accepted), 2
        case OSError() if error.filename is not None:  # a full disk, a place that cannot be written: theirs to mend too
            return f"{os.fsdecode(error.filename)}: {error.strerror}", 2
        case OSError():
            return str(error), 2
        case MemoryError():
            return "not enough memory: try smaller images, fewer samples or a smaller batch", 2
        case RecursionError():
            return "a file is nested too deeply to be read", 2
    kind = type(error).__name__
    return f"{kind}: {error} (a fault of the program; MANYMASK_DEBUG=1 shows where, please report it)", 1


def version() -> str:
    """Of the program, with its git revision, and of what it runs on."""
    import torch

    from manymask.runtime import git_revision

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    revision = git_revision()
    own = f"{__version__} ({revision})" if revision else __version__
    return f"manymask {own}, torch {torch.__version__}, {device}, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    main()
