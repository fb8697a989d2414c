"""Settings survive being written down."""

import json

import pytest

from manymask.errors import UserError
from manymask.recipes import RECIPES, Recipe
from manymask.settings import difference, from_dict, to_dict


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(RECIPES[name])))) == RECIPES[name]


def test_unknown_kind_and_setting_are_named():
    content = to_dict(RECIPES["phantom"])
    with pytest.raises(UserError, match=r"mask_codec\.loss: kind 'Magic' is none of MSE, WeightedCE"):
        from_dict(Recipe, content | {"mask_codec": content["mask_codec"] | {"loss": {"kind": "Magic"}}})
    with pytest.raises(UserError, match="Recipe has no setting colour"):
        from_dict(Recipe, content | {"colour": 1})


def test_difference_names_the_place():
    old, new = to_dict(RECIPES["phantom"]), to_dict(RECIPES["phantom"])
    new["training"]["batch"] = 99
    assert difference(old, new) == ["training.batch: 16 → 99"]
