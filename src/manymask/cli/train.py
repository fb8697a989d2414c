"""`train`: a folder with a plan of its own, or a stage of a recipe, whose flags depend on that recipe."""

import inspect
import sys
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import tyro

from manymask.choices import Precision, TrackerName
from manymask.cli import flags as shared
from manymask.cli.data import labels_of, shown
from manymask.cli.parsing import BRIEF, NO_DEFAULT, parse
from manymask.cli.wording import in_range
from manymask.errors import ConfigError, guesses

if TYPE_CHECKING:
    from manymask.data.datasets.base import Option
    from manymask.io.masks import MaskReading

TRACKERS = f"{{{','.join(get_args(TrackerName))}}}…"
USAGE = (
    "usage: manymask train FOLDER [--minutes 30]   or, for each stage by itself, "
    "manymask train RECIPE {image-codec|mask-codec|segmenter} --data DIR --run DIR (add --help to either for every setting)"
)


@dataclass(frozen=True, kw_only=True)
class PlannedFlags:
    """Plan, prepare, train and score a folder of images and masks, and say what the model is worth.

    Everything lies in the run folder: plan.yaml can be edited, and the same command goes on where it stopped.

    Args:
        folder: images/ and masks/ (see `prepare folder`), or a prepared store.
        run: the run folder; runs/NAME of the folder if not given.
        minutes: of training in all (30); more of them later go on from where it stopped.
        init: the model folder that training starts from; `auto` takes the nearest shipped one, `none` starts from zero.
        folds: train so many models on group-disjoint folds, and make one model of them.
        scheme: the split of a prepared store; its default if not given.
        precision: of training; auto takes what is faster here.
        track: also follow the run with wandb or mlflow (extra `track`); TensorBoard always does.
        plan_only: stop when plan.yaml is written.
        mask_threshold: foreground is what reaches this value, in masks that are not black and white.
        mask_labels: foreground is what holds one of these values or names, in masks of several things.
        invert: foreground and background are exchanged in the mask files.
        skip_bad: leave out what cannot be read or has no partner, and name it.
        device: taken out of the arguments before, as the device of the process.
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
    run: Annotated[Path | None, NO_DEFAULT] = None
    minutes: Annotated[float | None, NO_DEFAULT] = None
    init: Annotated[str | None, NO_DEFAULT] = None
    folds: Annotated[int | None, NO_DEFAULT] = None
    scheme: Annotated[str | None, NO_DEFAULT] = None
    precision: Precision = "auto"
    track: Annotated[tuple[TrackerName, ...], tyro.conf.arg(metavar=TRACKERS, help_behavior_hint="")] = ()
    plan_only: Annotated[bool, NO_DEFAULT] = False
    mask_threshold: Annotated[float | None, NO_DEFAULT] = None
    mask_labels: Annotated[tuple[str, ...], shared.LABELS] = ()
    invert: Annotated[bool, NO_DEFAULT] = False
    skip_bad: Annotated[bool, NO_DEFAULT] = False
    device: Annotated[str | None, shared.DEVICE] = None


def planned_flags() -> type[PlannedFlags]:
    """`PlannedFlags` and a flag for each option that folders have in `prepare`."""
    extra = [
        (
            option.name,
            Annotated[option.kind, shown(option, option.help)],
            field(default=option.default),
        )
        for option in _folder_options()
    ]
    return make_dataclass("Flags", extra, bases=(PlannedFlags,), frozen=True, kw_only=True)


def _description() -> str:
    """What stands above the flags in the help."""
    return (inspect.getdoc(PlannedFlags) or "").partition("\n\nArgs:")[0]


def _folder_options() -> "tuple[Option, ...]":
    from manymask.data.datasets import DATASETS

    return DATASETS["folder"].options


def train(arguments: list[str]) -> None:
    """`manymask train FOLDER …` or `manymask train RECIPE STAGE --data DIR --run DIR …`."""
    if {"-h", "--help"} & set(arguments[:1]):
        print(USAGE, end="\n\n")
        parse(planned_flags(), "manymask train", ["--help"], BRIEF, description=_description())
    if not arguments:
        raise ConfigError(USAGE)
    if _names_stage(arguments):
        _train_stage(arguments)
    else:
        _train_folder(arguments)


def _names_stage(arguments: list[str]) -> bool:
    """Whether the arguments begin with RECIPE STAGE rather than with a folder."""
    return len(arguments) > 1 and not any(word.startswith("-") for word in arguments[:2])


def _train_folder(arguments: list[str]) -> None:
    from manymask import recipes
    from manymask.planning.request import Request
    from manymask.planning.run import train_planned

    first = next((word for word in arguments if not word.startswith("-")), "")
    if first in recipes.RECIPES and not Path(first).is_dir():
        raise ConfigError(f"{first} is a recipe: name its stage too; {USAGE}")
    flags = parse(planned_flags(), "manymask train", arguments, BRIEF, description=_description())
    in_range("--minutes", flags.minutes, 0.01, 10**6)
    run = flags.run or Path("runs") / flags.folder.resolve().name
    given = {each.name: getattr(flags, each.name) for each in fields(PlannedFlags)}
    reading = _reading(flags)
    for name in ("folder", "mask_threshold", "mask_labels", "invert", "device"):
        del given[name]
    options = {
        option.name: value for option in _folder_options() if (value := getattr(flags, option.name)) != option.default
    }
    train_planned(Request(**given | {"data": flags.folder, "run": run, "reading": reading, "options": options}))


def _reading(flags: PlannedFlags) -> "MaskReading":
    from manymask.io.masks import MaskReading

    return MaskReading(flags.mask_threshold, labels_of(flags.mask_labels), flags.invert)


def _train_stage(arguments: list[str]) -> None:
    """The flags depend on the recipe's own settings."""
    from manymask import recipes
    from manymask.training.initialization import TrainOptions
    from manymask.training.trainer import fit

    name, stage, *rest = arguments
    if stage not in recipes.STAGES:
        raise ConfigError(f"{stage!r} is no stage{guesses(stage, recipes.STAGES)}; {USAGE}")
    row = recipes.get_recipe(name)
    options = parse(
        TrainOptions,
        f"manymask train {name} {stage}",
        rest,
        config=(tyro.conf.CascadeSubcommandArgs,),
        default=TrainOptions(data=tyro.MISSING, run=tyro.MISSING, recipe=row),
    )
    job = options.job(recipes.Stage(stage))
    for caution in job.cautions:
        print(f"manymask: {caution}", file=sys.stderr)
    print(f"model → {fit(job, options.max_minutes)}")


def parameters() -> tuple[str, ...]:
    """The names of the flags that every recipe has, and of those of a folder."""
    from manymask.training.initialization import TrainOptions

    names = [each.name for kind in (TrainOptions, planned_flags()) for each in fields(kind)]
    return tuple(dict.fromkeys(names))


def train_help() -> None:
    """Train on a folder of images and masks: FOLDER [--minutes 30]; or a stage of a recipe: RECIPE STAGE …; resumes."""
