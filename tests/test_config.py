"""Settings survive being written down."""

import dataclasses
import json
from typing import Any, get_args, get_type_hints

import pytest

from manymask.config import chosen, difference, from_dict, to_dict
from manymask.errors import ConfigError
from manymask.limits import limits_of
from manymask.recipes import RECIPES, Recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(RECIPES[name])))) == RECIPES[name]


@pytest.mark.parametrize("name", RECIPES)
def test_defaults_left_out_come_back(name):
    assert from_dict(Recipe, json.loads(json.dumps(chosen(RECIPES[name])))) == RECIPES[name]


def test_a_default_is_not_among_what_was_chosen():
    recipe = RECIPES["phantom"]
    usual = Recipe.__dataclass_fields__["window"].default
    assert "window" not in chosen(dataclasses.replace(recipe, window=usual))
    assert chosen(dataclasses.replace(recipe, window="lung"))["window"] == "lung"


def test_unknown_kind_and_setting_are_named():
    content = to_dict(RECIPES["phantom"])
    with pytest.raises(ConfigError, match=r"mask_codec\.loss: kind 'Magic' is none of MSE, WeightedCE"):
        from_dict(Recipe, content | {"mask_codec": content["mask_codec"] | {"loss": {"kind": "Magic"}}})
    with pytest.raises(ConfigError, match="Recipe has no setting colour"):
        from_dict(Recipe, content | {"colour": 1})


def test_difference_names_the_place():
    old, new = to_dict(RECIPES["phantom"]), to_dict(RECIPES["phantom"])
    new["training"]["batch_size"] = 99
    assert difference(old, new) == ["training.batch_size: 16 → 99"]


def settings_of(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Every dataclass that the annotation `kind` can hold, by name."""
    for inner in get_args(kind):
        settings_of(inner, found)
    if dataclasses.is_dataclass(kind) and kind.__name__ not in found:
        found[kind.__name__] = kind
        for hint in get_type_hints(kind).values():
            settings_of(hint, found)
    return found


def numeric(hint: Any) -> bool:
    return hint in (int, float) or any(
        numeric(inner) for inner in get_args(hint) if not dataclasses.is_dataclass(inner)
    )


def test_every_number_in_a_recipe_has_limits():
    for name, kind in settings_of(Recipe, {}).items():
        for field, hint in get_type_hints(kind).items():
            if numeric(hint) and field in {f.name for f in dataclasses.fields(kind)}:
                assert limits_of(name, field) is not None, f"{name}.{field} needs a line in limits.py"


@pytest.mark.parametrize("value", [0.0, -1, 4097, 10**30, "8", None, True, [8], float("inf")])
def test_number_beyond_its_limits_or_of_another_type_is_refused(value):
    with pytest.raises(ConfigError, match=r"^there: recipe\.size: "):
        from_dict(Recipe, to_dict(RECIPES["phantom"]) | {"size": value}, "there: recipe")


def test_limits_themselves_are_allowed():
    for size in (8, 4096):
        assert from_dict(Recipe, to_dict(RECIPES["phantom"]) | {"size": size}).size == size


@dataclasses.dataclass(frozen=True)
class Halved:
    """A setting that states its own limits."""

    half: float = dataclasses.field(default=0.5, metadata={"limits": (0, 1)})


def test_field_may_state_its_own_limits():
    assert from_dict(Halved, {"half": 1}) == Halved(1.0)
    with pytest.raises(ConfigError, match=r"config\.half: 2 must lie in 0 … 1"):
        from_dict(Halved, {"half": 2})
