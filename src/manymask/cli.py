"""The command line: finds the verb (tyro); what a user did wrong ends in one line and 2."""

import os
import sys
from typing import Any

import tyro

from manymask.errors import UserError
from manymask.verbs.data import list_recipes, prepare
from manymask.verbs.experiments import report, reproduce
from manymask.verbs.score import curves, evaluate, publish
from manymask.verbs.train import train, train_help
from manymask.verbs.use import demo, segment, serve


def main() -> None:
    """The entry point: 0 done, 2 a mistake of the user's, 130 interrupted."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    verbs: dict[str, Any] = {
        "prepare": prepare,
        "segment": segment,
        "evaluate": evaluate,
        "publish": publish,
        "curves": curves,
        "serve": serve,
        "recipes": list_recipes,
        "demo": demo,
        "reproduce": reproduce,
        "report": report,
    }
    try:
        if sys.argv[1:2] == ["train"]:
            train(sys.argv[2:])
        else:
            described: dict[str, Any] = {**verbs, "train": train_help}
            code: Any = tyro.extras.subcommand_cli_from_dict(
                described, prog="manymask", description="Draw many plausible masks for one medical image."
            )
            sys.exit(code or 0)
    except (UserError, OSError) as error:  # a full disk, a place that cannot be written: theirs to mend too
        print(f"manymask: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("manymask: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
