"""DIR/triage.html: one file that loads nothing, shows names as they are, and sorts by mouse and by keyboard."""

import re

import pytest

from manymask.inference.triage import COLUMNS
from manymask.inference.triage_page import MOST_ROWS, write_page

FACTS = {
    "images": 3, "failed": 0, "complete": True, "samples": 5, "created": "2026-01-01T00:00:00Z",
    "model": {"name": "<model>", "weights_sha256": "0" * 64}, "promise": ["Review these & those.", "No guarantee."],
    "curve": [(0, 0), (0.5, 0.9), (1, 1)], "budget": {"images": 1, "expected_found": 0.5, "expected_share": 0.7},
}  # fmt: skip


def row(rank, name, failure, dice, warnings=""):
    return dict.fromkeys(COLUMNS, "") | {
        "rank": rank, "name": name, "input": f"{name}.png", "review": "yes" if rank == 1 else "no", "failure": failure,
        "predicted_dice": dice, "dice_low": dice - 0.1, "dice_high": dice + 0.1, "presence": 0.5, "foreign": "yes",
        "like_training": 0.01, "agreement": 0.5, "warnings": warnings,
    }  # fmt: skip


ROWS = [row(1, 'a<b>"&', 0.5, 0.6, "Two sentences. Here."), row(2, "b #?%", 0.3, 0.9), row(3, "c", 0.2, 0.7)]


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "triage.html"
    write_page(path, FACTS, ROWS)
    return path


def test_page_loads_nothing_from_elsewhere(page):
    text = page.read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|srcset", text)
    assert re.findall(r'src="([^"]*)"', text) == [
        f"{name}/thumbnail.jpg" for name in ("a%3Cb%3E%22%26", "b%20%23%3F%25", "c")
    ]
    assert text.count('loading="lazy"') == 3


def test_names_and_sentences_are_shown_as_they_are(page):
    text = page.read_text()
    assert "<b>" not in text and "a&lt;b&gt;&quot;&amp;" in text and "&lt;model&gt;" in text
    assert "Review these &amp; those." in text and "Two sentences. Here." in text
    assert "70 % of the failures" in text and "0.60 <span class=small>(0.50 – 0.70)" in text


def test_long_tables_show_the_most_doubtful_and_say_so(tmp_path):
    path = tmp_path / "triage.html"
    write_page(path, FACTS | {"images": MOST_ROWS + 5}, (row(k, f"n{k}", 0.1, 0.9) for k in range(1, MOST_ROWS + 6)))
    text = path.read_text()
    assert text.count("<img") == MOST_ROWS and f"all {MOST_ROWS + 5} are in triage.csv" in text


def order(tab):
    return tab.eval_on_selector_all("tbody tr", "rows => rows.map(row => row.cells[0].dataset.value).join('')")


@pytest.mark.browser
def test_headings_sort_by_mouse_and_by_keyboard(page, browser):
    tab = browser.new_page()
    problems = []
    tab.on("pageerror", lambda error: problems.append(error))
    tab.goto(page.as_uri())
    assert order(tab) == "123"
    tab.click("th:has-text('Predicted Dice') button")
    assert order(tab) == "132"  # the lowest first
    assert tab.get_attribute("th:has-text('Predicted Dice')", "aria-sort") == "ascending"
    tab.focus("th:has-text('Predicted Dice') button")
    tab.keyboard.press("Enter")
    assert order(tab) == "231"
    tab.focus("th:has-text('Failure') button")
    tab.keyboard.press("Space")
    assert order(tab) == "123" and tab.locator("th[aria-sort]").count() == 1
    assert not problems
    tab.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 820, 1024, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_every_width(page, browser, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    cells = tab.eval_on_selector_all("td, th button", "e => e.map(x => x.getBoundingClientRect().right)")
    assert max(cells) <= width
    ink, paper = tab.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (light[0] < light[1]) == (scheme == "light") and abs(light[0] - light[1]) > 400
    context.close()
