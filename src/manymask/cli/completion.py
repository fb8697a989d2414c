"""Scripts that complete verbs, flags, recipes and models in bash and zsh."""

import shlex
from collections.abc import Collection, Mapping
from typing import Any, Literal

from manymask.choices import DEVICES
from manymask.cli.data import all_flags
from manymask.cli.parsing import flags_of

_BASH = """# completion of manymask for bash; made by `manymask completion bash`
_manymask() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} last=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}} choices=
{body}
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}}
complete -o default -F _manymask manymask
"""
_ZSH = """#compdef manymask
# completion of manymask for zsh; made by `manymask completion zsh`
_manymask() {{
    local word=${{words[CURRENT]}} last=${{words[CURRENT-1]}} verb=${{words[2]}}
    local -i COMP_CWORD=$((CURRENT - 1))
    local candidates=$(_manymask_words)
    [[ -n $candidates ]] && compadd -- ${{=candidates}} || _files
}}
_manymask_words() {{
    local choices=
{body}
    print -r -- $choices
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _manymask "$@"; else compdef _manymask manymask; fi
"""


def script(shell: Literal["bash", "zsh"], verbs: Mapping[str, Any], computing: Collection[str]) -> str:
    """The script for a shell.

    Args:
        shell: whose script it is.
        verbs: the functions of the verbs by their names.
        computing: the verbs that have `--device`.
    """
    template = _BASH if shell == "bash" else _ZSH
    return template.format(body=_body(verbs, computing))


def _body(verbs: Mapping[str, Any], computing: Collection[str]) -> str:
    """The words that may stand at a place, as statements of either shell."""
    from manymask.cli.train import planned_flags
    from manymask.hub.catalogue import list_models
    from manymask.recipes import STAGES, list_recipes
    from manymask.training.initialization import TrainOptions

    flags = {verb: flags_of(does) for verb, does in verbs.items()}
    flags |= {"prepare": flags_of(all_flags()), "train": flags_of(TrainOptions) | flags_of(planned_flags())}

    def shared(verb: str) -> list[str]:
        return ["--device", "--help"] if verb in computing else ["--help"]

    models, recipes = list_models(), list_recipes()
    after = {"--model": models, "-m": models, "--init": models, "--device": DEVICES}
    own = {(verb, flag): words for verb, each in flags.items() for flag, words in each.items() if words}
    places = {
        "$COMP_CWORD == 1": [*verbs, "help", "version"],
        **{f"$last == {flag}": words for flag, words in after.items()},
        **{f"$verb == {verb} && $last == {flag}": words for (verb, flag), words in own.items()},
        "$COMP_CWORD == 2 && ( $verb == train || $verb == prepare )": recipes,
        "$COMP_CWORD == 3 && $verb == train": list(map(str, STAGES)),
        "$COMP_CWORD == 2 && $verb == completion": ["bash", "zsh"],
        **{f"$verb == {verb} && $word == -*": [*each, *shared(verb)] for verb, each in flags.items()},
    }
    lines = [f"if [[ {place} ]]; then choices={shlex.quote(' '.join(words))}" for place, words in places.items()]
    return "    " + "\n    el".join(lines) + "\n    fi"
