"""Flags of the last release still work, and say what they are called now."""

import pytest

from manymask.cli.renamed import renamed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--turns", "--orientations"),
        ("--turns=3", "--orientations=3"),
        ("--recipe.segmenter.drop-condition", "--recipe.segmenter.condition-dropout"),
        ("--recipe.segmenter.noise-levels=2", "--recipe.segmenter.noise-levels-per-image=2"),
        ("--recipe.training.batch", "--recipe.training.batch-size"),
        ("--recipe.mask-codec.stem", "--recipe.mask-codec.patch-size"),
        ("--recipe.augment.turn", "--recipe.augment.dihedral"),
        ("recipe.segmenter.process:flow", "recipe.segmenter.process:rectified-flow"),
    ],
)
def test_old_flag_is_replaced_and_named_in_one_line(old, new, capsys):
    verb = "evaluate" if old.startswith("--turns") else "train"
    assert renamed([verb, old, "0.1"]) == [verb, new, "0.1"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{old.partition('=')[0]} is now {new.partition('=')[0]}" in said[0]


def test_what_is_current_passes_in_silence(capsys):
    arguments = [
        "segment",
        "turns.png",
        "--model",
        "flow",
        "--recipe.mask-codec.channels",
        "8",
        "--out=x",
        "--threshold",
    ]
    assert renamed(arguments) == arguments
    assert capsys.readouterr().err == ""


def test_a_verb_that_never_had_the_flag_does_not_get_its_new_name(capsys):
    assert renamed(["segment", "--turns", "3"]) == ["segment", "--turns", "3"]
    assert renamed([]) == []
    assert capsys.readouterr().err == ""
