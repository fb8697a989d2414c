"""The command line: finds the verb (tyro); what a user did wrong ends in one line and 2."""

import inspect
import os
import sys
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal

import tyro

from manymask._version import __version__
from manymask.choices import DEVICES
from manymask.cli.calibrate import calibrate
from manymask.cli.data import prepare_arguments, prepare_help, prepare_parameters
from manymask.cli.ensemble import ensemble
from manymask.cli.evaluate import curves, evaluate, publish
from manymask.cli.experiments import report, reproduce
from manymask.cli.export import export
from manymask.cli.listing import columns, models, recipes
from manymask.cli.parsing import parameters_of, parse_call
from manymask.cli.renamed import renamed
from manymask.cli.segment import demo, segment, serve
from manymask.cli.train import parameters as train_parameters
from manymask.cli.train import train, train_help
from manymask.cli.triage import triage
from manymask.cli.wording import worded
from manymask.errors import ConfigError, ManymaskError, guesses
from manymask.signals import interrupt_on_sigterm, interrupted


def completion(shell: Annotated[Literal["bash", "zsh"], tyro.conf.arg(metavar="{bash,zsh}", name="SHELL")], /) -> None:
    """Print a script that completes verbs, flags, recipes and models in a shell.

    bash: manymask completion bash > ~/.local/share/bash-completion/completions/manymask. zsh: manymask completion zsh >
    DIR/_manymask, where DIR is in $fpath.

    Args:
        shell: whose script is printed.
    """
    from manymask.cli.completion import script

    print(script(shell, VERBS, COMPUTING), end="")


VERBS: dict[str, Any] = {
    "segment": segment,
    "triage": triage,
    "serve": serve,
    "models": models,
    "recipes": recipes,
    "prepare": prepare_help,
    "train": train_help,
    "evaluate": evaluate,
    "calibrate": calibrate,
    "ensemble": ensemble,
    "curves": curves,
    "publish": publish,
    "export": export,
    "demo": demo,
    "reproduce": reproduce,
    "report": report,
    "completion": completion,
}
# verbs whose flags depend on recipes and data sets, which take torch to load: what runs them, and names their parameters
OWN_FLAGS: dict[str, tuple[Callable[[list[str]], None], Callable[[], tuple[str, ...]]]] = {
    "prepare": (prepare_arguments, prepare_parameters),
    "train": (train, train_parameters),
}
# verbs that run a model, so that `--device` is a flag of theirs
COMPUTING = {
    *("segment", "triage", "serve", "train", "evaluate", "calibrate", "curves", "publish", "export", "demo"),
    *("reproduce", "report"),
}
WITH_IMAGES = {"segment", "triage"}  # verbs whose images may follow `-i`
BROKEN_PIPE = 141


def main() -> None:
    """The entry point: 0 done, 1 a fault of the program, 2 a mistake of the user's, 130 Ctrl-C, 143 SIGTERM.

    Every error is one line; MANYMASK_DEBUG=1 shows where it came from.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # operations that Apple's GPU lacks run on the CPU
    for stream in (sys.stdout, sys.stderr):  # names of files need not be Unicode
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code: Any
    try:
        interrupt_on_sigterm()
        try:
            code = run(renamed(sys.argv[1:]))
        except SystemExit as stop:  # the help of a verb
            code = stop.code
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has gone
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        code = BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("MANYMASK_DEBUG", "0") not in ("", "0"):
            raise
        said, code = explain(interrupted(error), accepted_by(sys.argv[1:]))
        print(f"manymask: {said}", file=sys.stderr)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs the verb that `arguments` begin with; returns the exit status."""
    verb, *rest = arguments or ["help"]
    if "" in arguments:
        raise ConfigError("an argument is empty, as of a shell variable that is not set")
    if verb in ("help", "-h", "--help"):
        if rest and rest[0] in VERBS:
            return run([rest[0], "--help"])
        print(overview())
        return 0
    if verb in ("version", "--version", "-V"):
        print(version())
        return 0
    if verb in WITH_IMAGES:
        rest = [word for word in rest if word not in ("-i", "--input")]
    if verb in COMPUTING:
        rest = on_device(rest)
    if verb in OWN_FLAGS:
        OWN_FLAGS[verb][0](rest)
        return 0
    if verb.startswith("-"):
        raise ConfigError(f"the verb comes first, not {verb}: manymask VERB …; choose one of {', '.join(VERBS)}")
    if verb not in VERBS:
        raise ConfigError(f"there is no verb {verb!r}{guesses(verb, _words())}; choose one of {', '.join(VERBS)}")
    code: Any = parse_call(VERBS[verb], f"manymask {verb}", rest, verb in COMPUTING)()
    return int(code or 0)


def on_device(arguments: list[str]) -> list[str]:
    """The arguments without `--device NAME`, after the device was made that of the process."""
    found = [i for i, word in enumerate(arguments) if word.partition("=")[0] == "--device"]
    if not found or {"-h", "--help"} & set(arguments):
        return arguments
    if len(found) > 1:
        raise ConfigError("--device is given more than once")
    word, rest = arguments[found[0]], arguments[found[0] + 1 :]
    name = word.partition("=")[2] if "=" in word else "".join(rest[:1])
    if not name or name.startswith("-"):
        raise ConfigError(f"--device needs a value: one of {', '.join(DEVICES)}")
    from manymask.runtime import use_device

    use_device(name)
    return arguments[: found[0]] + (rest if "=" in word else rest[1:])


def _words() -> list[str]:
    """All that can stand first."""
    return [*VERBS, "help", "version"]


def overview() -> str:
    """The help without a verb: what each verb is for, in a sentence."""
    rows = [
        (verb, (inspect.getdoc(does) or "").partition("\n\n")[0].replace("\n", " ")) for verb, does in VERBS.items()
    ]
    rows += [("version", "The version, its git revision, and what it runs on. Also --version.")]
    lines = [
        "usage: manymask VERB …",
        "",
        "Draw many plausible masks for one medical image.",
        "",
        *columns(rows, "  "),
        "",
    ]
    return "\n".join([*lines, "manymask VERB --help describes all flags of a verb."])


def accepted_by(arguments: list[str]) -> Collection[str]:
    """The names of the parameters that the verb of these arguments accepts; none without a verb."""
    verb = arguments[0] if arguments else ""
    own = ("device",) if verb in COMPUTING else ()
    if verb in OWN_FLAGS:
        return *OWN_FLAGS[verb][1](), *own
    return (*parameters_of(VERBS[verb]), *own) if verb in VERBS else ()


def explain(error: BaseException, accepted: Collection[str] = ()) -> tuple[str, int]:
    """What is said of an error, with the flags among `accepted` parameters that it is about; and the exit status."""
    if isinstance(error, ManymaskError):
        return worded(error, accepted), 2
    said, code = _explain(error)
    return " ".join(said.splitlines()), code


def _explain(error: BaseException) -> tuple[str, int]:
    match error:
        case KeyboardInterrupt():
            return str(error) or "interrupted", getattr(error, "status", 130)
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

    from manymask.runtime import default_device, git_revision

    kind = default_device()
    device = f"cuda ({torch.cuda.get_device_name()})" if kind == "cuda" else kind
    revision = git_revision()
    own = f"{__version__} ({revision})" if revision else __version__
    return f"manymask {own}, torch {torch.__version__}, {device}, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    main()
