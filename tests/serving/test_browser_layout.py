"""The page in a real browser at every width, light and dark: nothing is cut off, too small, or too pale."""

import numpy as np
import pytest
from PIL import Image

from tests.serving.visitor import WIDTHS, drawn, upload

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [390, 640, 700, 820, 960, 1024, 1180, 1250, 1440])
def test_threshold_can_be_moved_at_every_width(visit_drawn, width):
    page = visit_drawn
    page.set_viewport_size({"width": width, "height": 900})
    page.locator("#mm-threshold").scroll_into_view_if_needed()
    slider = page.locator("#mm-threshold").bounding_box()
    assert slider["width"] >= 200 and slider["x"] >= 0 and slider["x"] + slider["width"] <= width
    assert page.locator(".mm-main canvas").bounding_box()["width"] >= 250
    page.mouse.click(slider["x"] + 0.75 * slider["width"], slider["y"] + slider["height"] / 2)
    assert 0.7 <= float(page.input_value("#mm-threshold")) <= 0.8
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_shows_everything_within_its_width(visit, scheme):
    page = visit(390, 844, scheme)
    page.click(".mm-examples button >> nth=0")
    drawn(page, 5, "phantom")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in (".mm-main canvas", ".mm-confidence canvas", "#mm-threshold", ".mm-download", ".mm-warning"):
        box = page.locator(part).bounding_box()
        assert box["width"] > 40 and box["x"] >= 0 and box["x"] + box["width"] <= 390, part
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    level = sum(map(int, ground.removeprefix("rgb(").rstrip(")").split(",")[:3]))
    assert (level > 600) == (scheme == "light")


CONTROLS = {
    "#mm-upload": (200, 60), "#mm-draw": (200, 40), ".mm-remove": (36, 36), ".mm-mode": (50, 32), ".mm-in": (36, 32),
    ".mm-fit": (36, 32), "#mm-threshold": (200, 24), "#mm-size": (110, 20), ".mm-undo": (50, 32), ".mm-areas button": (200, 28),
    ".mm-areas input": (17, 17), "#mm-form": (60, 36), ".mm-accept": (140, 36), ".mm-download": (90, 36),
    ".mm-main canvas": (250, 200), ".mm-confidence canvas": (120, 120), ".mm-badges button": (60, 24),
    "input[type=number][aria-label*='Masks']": (40, 20), "input[type=range][aria-label*='Masks']": (120, 4),
}  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_every_control_is_large_enough_and_within_the_page(visit_drawn, width):
    page = visit_drawn
    page.set_viewport_size({"width": width, "height": 900})
    page.click(".mm-mode[data-mode=add]")
    for part, (wide, high) in CONTROLS.items():
        for found in page.locator(part).all():
            box = found.bounding_box()
            assert box, part
            assert box["width"] >= wide and box["height"] >= high, (part, box)
            assert box["x"] >= 0 and box["x"] + box["width"] <= width, (part, box)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click(".mm-mode[data-mode=move]")


def test_wide_screen_is_used_and_a_portrait_leaves_the_numbers_in_sight(visit, tmp_path):
    ramp = np.add.outer(np.arange(300), np.arange(100)).astype(np.float32)
    Image.fromarray((ramp / ramp.max() * 255).astype(np.uint8)).save(tmp_path / "portrait.png")
    for width, height in ((2560, 1440), (1440, 900)):
        page = visit(width, height)
        upload(page, tmp_path / "portrait.png")
        drawn(page, 5, "portrait")
        boxes = [page.locator(part).bounding_box() for part in ("#mm-upload", ".mm-side")]
        assert boxes[1]["x"] + boxes[1]["width"] - boxes[0]["x"] >= 0.8 * width
        for part in (".mm-confidence canvas", ".mm-disagreement canvas", ".mm-areas [data-k=consensus]"):
            box = page.locator(part).bounding_box()
            assert box["y"] + box["height"] <= height, (width, part)
        assert page.locator(".mm-main canvas").bounding_box()["height"] >= 0.6 * height


def test_result_is_in_sight_on_a_phone(visit):
    page = visit(390, 844)
    page.click(".mm-examples button >> nth=0")
    drawn(page, 5, "phantom")
    page.wait_for_function("document.querySelector('.mm-main canvas').getBoundingClientRect().top < 500")
    box = page.locator(".mm-main canvas").bounding_box()
    assert box["y"] >= 0 and box["y"] + 0.75 * box["height"] <= 844


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, scheme):
    """WCAG as far as a program can tell, contrast of 4.5 : 1 included: before and after drawing, with all settings open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    def violations():
        page.wait_for_timeout(500)  # colours fade in
        found = axe.Axe().run(page).response["violations"]
        return [(each["id"], [node["target"] for node in each["nodes"]]) for each in found]

    page = visit(1280, 900, scheme)
    assert not violations()
    page.click(".mm-examples button >> nth=0")
    drawn(page, 5, "phantom")
    page.click("text=More settings")
    page.click(".mm-mode[data-mode=erase]")
    page.uncheck(".mm-areas [data-row='1'] input")
    assert not violations()


def test_focus_goes_to_the_picture_when_an_example_is_chosen_by_keyboard(visit):
    page = visit()
    page.focus(".mm-examples button >> nth=0")
    page.keyboard.press("Enter")
    drawn(page, 5, "phantom")
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
