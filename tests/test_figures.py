"""The pages say nothing that docs/results does not hold."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "check_figures.py"
CARDS = sorted(folder.parent.name for folder in (ROOT / "models").glob("*/config.json"))


@pytest.fixture
def check():
    """The names of the script."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def page(check, tmp_path):
    """A page of one table, a file that holds 0.90094 among others, and what is said of them."""

    def faults(table, *rows):
        (tmp_path / "page.md").write_text(f"| | Dice |\n|---|---|\n{table}\n", encoding="utf-8")
        (tmp_path / "scores.json").write_text('{"runs": [{"seed": 0, "dice": 0.90094}, {"seed": 1, "dice": 0.8}]}')
        lines = ["page,line,printed,file,key", *rows]
        (tmp_path / "figures.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        names = check["faults"].__globals__
        names.update(ROOT=tmp_path, TABLE=tmp_path / "figures.csv")
        names["contents"].cache_clear()
        return check["faults"]()

    return faults


def test_every_figure_of_the_tables_is_as_in_its_file(check):
    assert check["faults"]() == []
    pages = {figure.page for figure in check["mapped"]()}
    assert {"README.md", "docs/results/README.md", "docs/results/lidc_idri_readers/README.md"} <= pages


def test_figure_agrees_to_its_own_digits(page):
    assert page("| ours | 0.901 |", "page.md,ours,0.901,scores.json,runs/0/dice") == []
    assert page("| ours | 0.9009 |", "page.md,ours,0.9009,scores.json,runs/seed=0/dice") == []
    assert page("| ours | 0.850 |", "page.md,ours,0.850,scores.json,runs/*/dice") == []  # the mean of both


def test_figure_of_another_value_is_found(page):
    assert "is 0.90094" in page("| ours | 0.902 |", "page.md,ours,0.902,scores.json,runs/0/dice")[0]


def test_figure_without_a_file_is_found(page):
    known = "page.md,ours,0.901,scores.json,runs/0/dice"
    assert "0.95 has no file" in page("| ours | 0.901 | 0.95 |", known)[0]
    assert "has no runs/seed=2/dice" in page("| ours | 0.901 |", "page.md,ours,0.901,scores.json,runs/seed=2/dice")[0]


def test_line_of_the_table_that_fits_no_place_is_found(page):
    assert page("| ours | – |", "page.md,ours,0.901,scores.json,runs/0/dice") == [
        "page.md: 0.901 is not in the line of 'ours'"
    ]
    assert "stands in 0 lines" in page("| ours | – |", "page.md,theirs,0.901,scores.json,runs/0/dice")[0]


def test_new_results_are_put_into_page_and_table(page, check, tmp_path):
    known = ["page.md,ours 0.95,0.95,scores.json,runs/0/dice", "page.md,theirs,0.901,scores.json,runs/0/dice"]
    assert len(page("| ours 0.95 (0.95) |\n| theirs | 0.901 |", *known)) == 1
    assert check["update"]() == ["page.md: | ours 0.90 (0.90) |"]
    assert check["faults"]() == []
    assert "page.md,ours 0.90,0.90,scores.json" in (tmp_path / "figures.csv").read_text()


def test_text_that_comes_to_mean_two_values_is_left_to_a_person(page, check):
    known = ["page.md,ours,0.95,scores.json,runs/0/dice", "page.md,ours,0.95,scores.json,runs/1/dice"]
    page("| ours | 0.95 | 0.95 |", *known)
    assert check["update"]() == [] and len(check["faults"]()) == 2


def test_numbers_that_measure_nothing_are_left_out(page, check):
    known = "page.md,ours,0.901,scores.json,runs/0/dice"
    assert page("| ours, `0.5`, [a](https://arxiv.org/abs/2303.08888), 127.0.0.1 | 0.901 |", known) == []


@pytest.mark.parametrize("name", CARDS)
def test_card_of_a_shipped_model_is_what_was_measured(name):
    cards = runpy.run_path(str(ROOT / "scripts" / "write_cards.py"))
    wanted = cards["text"](ROOT / "models" / name)
    assert (ROOT / "models" / name / "README.md").read_text(encoding="utf-8") == wanted, "run scripts/write_cards.py"


def test_every_frame_of_pranets_test_part_is_of_a_video_in_training():
    """What README and card say of the split."""
    from manymask.data.datasets.cvc_clinicdb import PRANET_TEST, sequence_of

    train = {int(name) for name in (ROOT / "models/cvc_clinicdb/training_ids.txt").read_text().split()}
    videos = {sequence_of(frame) for frame in train}
    near = [{frame - 1, frame + 1} & train for frame in PRANET_TEST]
    beside = [
        any(sequence_of(other) == sequence_of(frame) for other in some)
        for frame, some in zip(PRANET_TEST, near, strict=True)
    ]
    assert sum(sequence_of(frame) in videos for frame in PRANET_TEST) == 62
    assert sum(beside) == 60
