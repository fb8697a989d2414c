"""The page in a real browser: zoom, masks left out, corrections with the brush, the accepted mask."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.serving.visitor import (
    area_shown,
    changes,
    choose_model,
    counted,
    download,
    drawn,
    on_picture,
    pixels,
    shows,
    upload,
)

pytestmark = pytest.mark.browser

gradio_client = pytest.importorskip("gradio_client", reason="the extra `app` is not installed")


@pytest.fixture
def page(visit, lesion):
    """A finished drawing."""
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    return page


def frame(page) -> list[tuple[int, int]]:
    """The place near the upper left corner, which is round, and that under the middle, as the page says of the pointer."""
    return [place_at(page, share) for share in (0.01, 0.5)]


def place_at(page, share: float) -> tuple[int, int]:
    """What the page says of one place, once it says the same twice: the layout may still move under the pointer."""
    before = None
    for _ in range(30):
        page.mouse.move(*on_picture(page, share, share))
        page.wait_for_timeout(80)
        said = page.text_content(".mm-readout")
        if said and said == before:
            return tuple(map(int, said.split(" · ")[0].split(", ")))
        before = said
    raise AssertionError(f"the page does not say what is at {share} of the picture, but {said!r}")


def test_wheel_drag_and_keys_move_picture_and_maps_and_a_double_click_shows_all(page):
    whole, maps = frame(page), pixels(page, ".mm-confidence canvas")
    assert max(whole[0]) <= 1 and page.is_disabled(".mm-out")
    page.wait_for_timeout(400)  # a page that scrolls is not zoomed
    page.mouse.move(*on_picture(page, 0.5, 0.5))
    page.mouse.wheel(0, -400)
    page.wait_for_function("!document.querySelector('.mm-out').disabled")
    page.wait_for_timeout(100)
    near = frame(page)
    assert near[0][0] > 20 and near[0][1] > 10, "the corner has left the picture"
    assert abs(near[1][0] - 75) <= 1 and abs(near[1][1] - 45) <= 1, "what lies under the pointer stays"
    changes(page, ".mm-confidence canvas", maps)  # the maps follow
    page.mouse.move(*on_picture(page, 0.5, 0.5))
    page.mouse.down()
    page.mouse.move(*on_picture(page, 0.7, 0.5), steps=4)
    page.mouse.up()
    page.wait_for_timeout(100)
    moved = frame(page)
    assert moved[1][0] < near[1][0] and moved[1][1] == near[1][1]
    page.focus(".mm-main canvas")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert frame(page)[1][0] > moved[1][0]
    page.keyboard.press("+")
    page.keyboard.press("-")
    page.mouse.dblclick(*on_picture(page, 0.5, 0.5))
    page.wait_for_function("document.querySelector('.mm-out').disabled")
    page.wait_for_timeout(100)
    shows(page, ".mm-confidence canvas", maps)
    assert frame(page) == whole
    page.click(".mm-in")
    page.focus(".mm-main canvas")
    page.keyboard.press("0")
    page.wait_for_function("document.querySelector('.mm-out').disabled")


def test_two_fingers_zoom_and_the_wheel_lets_the_page_scroll_when_all_is_shown(page):
    pinch = """canvas => {
        const box = canvas.getBoundingClientRect();
        const send = (kind, id, x) => canvas.dispatchEvent(new PointerEvent(kind, { pointerId: id, pointerType: "touch",
            bubbles: true, clientX: box.left + x * box.width, clientY: box.top + box.height / 2, isPrimary: id == 1 }));
        canvas.setPointerCapture = () => {};
        send("pointerdown", 1, 0.45); send("pointerdown", 2, 0.55);
        for (let k = 1; k <= 5; k++) { send("pointermove", 1, 0.45 - 0.03 * k); send("pointermove", 2, 0.55 + 0.03 * k); }
        send("pointerup", 1, 0.3); send("pointerup", 2, 0.7);
    }"""
    page.eval_on_selector(".mm-main canvas", pinch)
    page.wait_for_function("!document.querySelector('.mm-out').disabled")
    page.wait_for_timeout(100)
    (left, _), (middle, _) = frame(page)
    assert 40 <= left <= 65 and abs(middle - 75) <= 5, "four times as near, about the middle"
    page.click(".mm-fit")
    page.set_viewport_size({"width": 1280, "height": 500})
    page.mouse.move(*on_picture(page, 0.5, 0.2))
    page.mouse.wheel(0, 200)
    page.wait_for_function("window.scrollY > 0")
    assert page.is_disabled(".mm-out")


def test_mask_left_out_counts_nowhere_and_the_saved_numbers_are_those_of_the_program(page, client, lesion, tmp_path):
    before, outlines = area_shown(page), pixels(page, ".mm-main canvas")
    confidence = pixels(page, ".mm-confidence canvas")
    page.uncheck(".mm-areas [data-row='1'] input")
    counted(page)
    page.uncheck(".mm-areas [data-row='4'] input")
    counted(page)
    changes(page, ".mm-confidence canvas", confidence)
    changes(page, ".mm-main canvas", outlines)
    assert "3 of 5 masks" in page.inner_text(".mm-summary")
    folder, result = download(page, ".mm-download", tmp_path / "page")
    assert result["left_out"] == [2, 5] and result["samples"] == 5 and len(result["areas"]) == 3
    assert {p.name for p in folder.glob("mask-*.png")} == {"mask-01.png", "mask-03.png", "mask-04.png"}
    masks = [np.asarray(Image.open(folder / f"mask-{k:02}.png")) > 0 for k in (1, 3, 4)]
    assert result["areas"] == [int(mask.sum()) for mask in masks]
    assert (
        result["area_consensus"]
        == area_shown(page)
        == int((np.asarray(Image.open(folder / "consensus.png")) > 0).sum())
    )
    facts, _ = client.predict(
        paths=[gradio_client.handle_file(str(lesion))], model="whole", left_out="2; 5", api_name="/segment"
    )
    assert {k: facts[k] for k in ("area_consensus", "areas", "pairwise_iou", "left_out")} == {
        k: result[k] for k in ("area_consensus", "areas", "pairwise_iou", "left_out")
    }
    for k in (0, 2):
        page.uncheck(f".mm-areas [data-row='{k}'] input")
    assert page.is_disabled(".mm-areas [data-row='3'] input"), "one mask counts at least"
    for k in (0, 1, 2, 4):
        page.check(f".mm-areas [data-row='{k}'] input")
    counted(page)
    shows(page, ".mm-main canvas", outlines)
    assert area_shown(page) == before


def stroke(page, *shares):
    page.mouse.move(*on_picture(page, *shares[0]))
    page.mouse.down()
    for share in shares[1:]:
        page.mouse.move(*on_picture(page, *share), steps=6)
    page.mouse.up()


def test_brush_adds_and_erases_and_undo_takes_back(page, tmp_path):
    before, plain = area_shown(page), pixels(page, ".mm-confidence canvas")
    assert not page.locator(".mm-tools").is_visible()
    page.click(".mm-mode[data-mode=add]")
    page.locator("#mm-size").fill("70")
    stroke(page, (0.05, 0.1), (0.3, 0.1))
    counted(page)
    added = area_shown(page)
    assert added > before and page.inner_text(".mm-areas [data-k=consensus] span") == "Corrected"
    assert "corrected with 1 stroke" in page.inner_text(".mm-accepting")
    page.click(".mm-mode[data-mode=erase]")
    stroke(page, (0.1, 0.1), (0.2, 0.1))
    counted(page)
    both = area_shown(page)
    assert both < added
    page.click(".mm-undo")
    counted(page)
    assert area_shown(page) == added
    page.keyboard.press("Tab")
    page.focus(".mm-main canvas")
    page.keyboard.press("Control+z")
    counted(page)
    shows(page, ".mm-confidence canvas", plain)
    assert area_shown(page) == before
    page.click(".mm-mode[data-mode=add]")
    page.focus(".mm-main canvas")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press(" ")
    counted(page)
    assert area_shown(page) != before, "the space bar dabs"
    page.click(".mm-undo-all")
    counted(page)
    assert area_shown(page) == before


def test_accepted_mask_is_saved_as_the_server_computes_it(page, client, lesion, tmp_path):
    page.uncheck(".mm-areas [data-row='2'] input")
    page.click(".mm-mode[data-mode=add]")
    stroke(page, (0.05, 0.1), (0.3, 0.15), (0.3, 0.3))
    page.click(".mm-mode[data-mode=erase]")
    stroke(page, (0.1, 0.1), (0.2, 0.1))
    counted(page)
    assert page.inner_text(".mm-download") == "Download without corrections"
    folder, result = download(page, ".mm-download", tmp_path / "without")
    assert "accepted" not in result and not (folder / "accepted.png").exists()
    folder, result = download(page, ".mm-accept", tmp_path / "with")
    accepted, consensus = (np.asarray(Image.open(folder / f"{name}.png")) > 0 for name in ("accepted", "consensus"))
    told = result["accepted"]
    assert told["area"] == int(accepted.sum()) == area_shown(page) and told["corrected"]
    assert (told["pixels_added"], told["pixels_erased"]) == (
        int((accepted & ~consensus).sum()), int((consensus & ~accepted).sum()),
    )  # fmt: skip
    assert told["pixels_added"] > 50 and result["left_out"] == [3] and len(told["strokes"]) == 2
    asked = {"model": "whole", "left_out": "3", "accepted": json.dumps(told["strokes"])}
    facts, _ = client.predict(paths=[gradio_client.handle_file(str(lesion))], **asked, api_name="/segment")
    assert facts["accepted"] == told and facts["area_consensus"] == result["area_consensus"]


def test_tab_past_the_menu_of_models_keeps_the_drawing(page):
    """Gradio reports a choice when the menu is only left."""
    page.focus("input[aria-label='Model']")
    page.keyboard.press("Tab")
    page.wait_for_timeout(2000)
    drawn(page, 5, "lesion")
    assert page.inner_text("#mm-draw") == "Draw again"


def test_consensus_is_accepted_as_it_is_and_a_calibrated_promise_ends_with_a_mask_left_out(page, tmp_path):
    choose_model(page, "calibrated")  # draws at once
    page.locator(".mm-badges button", has_text="Predicted Dice").wait_for()
    drawn(page, 5)
    _, result = download(page, ".mm-accept", tmp_path / "all")
    assert result["accepted"]["area"] == result["area_consensus"] and not result["accepted"]["corrected"]
    assert page.inner_text(".mm-badges button >> nth=0").startswith("Predicted Dice")
    page.uncheck(".mm-areas [data-row='0'] input")
    counted(page)
    assert page.locator(".mm-badges button").all_inner_texts() == ["Not calibrated"]
    assert not page.locator(".mm-promised").is_visible()
    page.check(".mm-areas [data-row='0'] input")
    counted(page)
    assert page.inner_text(".mm-badges button >> nth=0").startswith("Predicted Dice")
