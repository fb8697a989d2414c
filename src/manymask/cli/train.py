"""`train`, whose flags depend on the recipe."""

from dataclasses import fields

import tyro

from manymask.cli.parsing import parse
from manymask.errors import ConfigError, guesses


def train(arguments: list[str]) -> None:
    """`manymask train RECIPE STAGE --data DIR --run DIR …`: the flags depend on the recipe's own settings."""
    from manymask import recipes
    from manymask.training.initialization import TrainOptions
    from manymask.training.trainer import fit

    usage = f"usage: manymask train RECIPE {{{'|'.join(recipes.STAGES)}}} --data DIR --run DIR"
    usage += " (add --help after the stage for every setting)"
    if {"-h", "--help"} & set(arguments[:2]):
        print(usage)
        return
    if len(arguments) < 2:
        raise ConfigError(usage)
    name, stage, *rest = arguments
    if stage not in recipes.STAGES:
        raise ConfigError(f"{stage!r} is no stage{guesses(stage, recipes.STAGES)}; {usage}")
    row = recipes.get_recipe(name)
    options = parse(
        TrainOptions,
        f"manymask train {name} {stage}",
        rest,
        config=(tyro.conf.CascadeSubcommandArgs,),
        default=TrainOptions(data=tyro.MISSING, run=tyro.MISSING, recipe=row),
    )
    print(f"model → {fit(options.job(recipes.Stage(stage)), options.max_minutes)}")


def parameters() -> tuple[str, ...]:
    """The names of the flags that every recipe has."""
    from manymask.training.initialization import TrainOptions

    return tuple(field.name for field in fields(TrainOptions))


def train_help() -> None:
    """Train a stage: RECIPE {image-codec|mask-codec|segmenter} --data DIR --run DIR; resumes by itself."""
