"""The page in a real browser: what a visitor does with one image, from the drop to the download."""

import pytest
from PIL import Image

from manymask.data.datasets import phantom
from tests.serving.visitor import (
    WIDTHS,
    changes,
    choose_model,
    consensus,
    download,
    draw,
    draw_slowly,
    drawn,
    pixels,
    shows,
    upload,
)

pytestmark = pytest.mark.browser


def test_upload_draw_move_the_threshold_download(visit, lesion, tmp_path):
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    assert page.locator(".mm-areas button").count() == 6 and "5 masks" in page.inner_text(".mm-status")
    before, picture, sent = consensus(page), pixels(page, ".mm-main canvas"), len(visit.asked)
    assert page.inner_text("#mm-draw") == "Draw again"
    slider = page.locator("#mm-threshold")
    slider.fill("0.3")
    page.wait_for_function("text => document.querySelector('.mm-areas data').textContent != text", arg=before)
    changes(page, ".mm-main canvas", picture)  # the outline of the consensus moves
    assert not [url for url in visit.asked[sent:] if "queue" in url or "run" in url], "the slider asks nobody"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.mm-threshold output').textContent == '0.29'")  # at the next frame
    folder, result = download(page, ".mm-download", tmp_path / "all")
    names = {path.name for path in folder.iterdir()}
    assert {"mask-05.png", "confidence.png", "consensus.png", "overlay.png"} <= names and "accepted.png" not in names
    assert result["threshold"] == 0.29 and f"{result['area_consensus']:,} px" == consensus(page)
    page.click(".mm-half")
    page.wait_for_function("text => document.querySelector('.mm-areas data').textContent == text", arg=before)
    assert page.input_value("#mm-threshold") == "0.5" and consensus(page) == before


def test_outline_of_a_mask_can_be_hidden_by_keyboard(visit):
    page = visit()
    page.click(".mm-examples button >> nth=0")
    drawn(page, 5, "phantom")
    shown = pixels(page, ".mm-main canvas")
    page.focus(".mm-areas [data-k='2']")
    page.keyboard.press("Enter")
    assert page.get_attribute(".mm-areas [data-k='2']", "aria-pressed") == "false"
    changes(page, ".mm-main canvas", shown)


def test_click_says_where_a_model_of_regions_looks(visit, lesion):
    """A click leaves a square before anything is drawn; its × takes it away again."""
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    assert not page.locator("#mm-regions").is_visible(), "a model of whole images has no regions"
    choose_model(page, "crops")
    page.wait_for_selector(".mm-clickable canvas")
    page.click("#mm-draw")
    page.get_by_text("say where to look").wait_for()
    assert "--roi" not in page.content()
    plain, box = pixels(page, ".mm-main canvas"), page.locator(".mm-main canvas").bounding_box()

    def click(x, y, off=(0, 0)):
        page.mouse.click(box["x"] + box["width"] * x / 150 + off[0], box["y"] + box["height"] * y / 90 + off[1])

    def has(text):
        page.wait_for_function(
            "t => document.querySelector('#mm-regions textarea, #mm-regions input').value == t", arg=text
        )

    click(40.5, 45.5)
    has("40,45")
    marked = pixels(page, ".mm-main canvas")
    assert marked != plain, "the click leaves a mark"
    click(100.5, 45.5)
    has("40,45; 100,45")
    click(72, 13, off=(-13, 13))  # the × in the corner of the first square, 64 pixels wide
    has("100,45")
    page.keyboard.press("Escape")
    has("")
    page.wait_for_timeout(100)
    shows(page, ".mm-main canvas", plain)
    click(100.5, 45.5)
    has("100,45")
    draw(page, 5)
    assert page.is_enabled(".mm-out"), "the regions are shown from near"
    page.click(".mm-fit")
    assert page.is_disabled(".mm-out")


def test_stop_shows_while_drawing_and_stops(visit, lesion, tmp_path):
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    assert not page.locator("#mm-stop").is_visible()
    draw_slowly(page)
    page.wait_for_function("document.querySelector('.mm-status').textContent.startsWith('Drawing mask 2 of 16')")
    page.focus("#mm-stop")
    page.keyboard.press("Enter")
    page.wait_for_selector("#mm-stop", state="hidden")
    assert page.evaluate("document.activeElement.tagName") == "CANVAS", "the focus is not lost with the button"
    masks = page.locator(".mm-areas button").count() - 1
    assert 1 <= masks < 16
    assert page.inner_text(".mm-status") == f"lesion: {masks} mask{'s' if masks > 1 else ''}, then stopped"
    folder, result = download(page, ".mm-download", tmp_path / "all")
    assert result["samples"] == masks == len(list(folder.glob("mask-*.png"))), "what was drawn can be had"


def test_new_image_replaces_the_old_one_and_a_bad_file_changes_nothing(visit, lesion, tmp_path):
    page, other = visit(), tmp_path / "other.png"
    Image.fromarray(phantom.draw(3).image[:, :, 0]).save(other)
    (tmp_path / "notes.txt").write_text("hello")
    upload(page, lesion)
    drawn(page, 5, "lesion")
    upload(page, tmp_path / "notes.txt")
    page.get_by_text("notes.txt is not an image").wait_for()
    page.wait_for_function("!document.querySelector('#mm-upload').textContent.includes('notes')")
    assert page.locator(".toast-wrap .timer").count() == 0, "the message stays until something newer is shown"
    assert page.inner_text(".mm-status").startswith("lesion") and "Traceback" not in page.content()
    upload(page, other)
    drawn(page, 5, "other: 5 masks")
    page.get_by_text("notes.txt is not an image").wait_for(state="detached")
    assert not page.locator(".mm-strip").is_visible(), "one image has no strip"


def test_image_can_be_removed_and_the_examples_come_back(visit, lesion, page_server):
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    page.click(".mm-remove")
    page.wait_for_selector(".mm-examples button")
    assert not page.locator(".mm-stage").is_visible() and page.inner_text("#mm-draw") == "Draw masks"
    assert page.evaluate("document.activeElement.closest('.mm-examples') !== null"), "the focus is not lost"
    page.click("#mm-draw")
    page.get_by_text("choose an image first").wait_for()
    page.click(".mm-examples button >> nth=1")
    drawn(page, 5, "phantom")


def test_promises_stand_beside_the_result_and_hold_at_one_threshold(visit, lesion, tmp_path):
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    assert page.locator(".mm-badges button").all_inner_texts() == ["Not calibrated"]
    assert not page.locator(".mm-promised").is_visible()
    page.focus(".mm-badges button")
    page.locator(".mm-badges [role=tooltip]", has_text="The model is not calibrated").wait_for(state="visible")
    page.keyboard.press("Escape")
    page.locator(".mm-badges [role=tooltip]").wait_for(state="hidden")
    choose_model(page, "calibrated")  # draws at once
    page.locator(".mm-badges button", has_text="Predicted Dice").wait_for()
    drawn(page, 5)
    badges = page.locator(".mm-badges button")
    said = badges.all_inner_texts()
    assert said[0].startswith("Predicted Dice 0.80 (0.") and said[1:] == [
        "Lesion present: 75 %",
        "⚠ Unlike the training images",
    ]
    page.locator("#mm-threshold").fill("0.9")
    page.wait_for_function("document.querySelector('.mm-badges button').textContent.endsWith('; not for 0.90')")
    assert badges.first.inner_text().startswith("Predicted Dice at threshold 0.50: 0.80")
    plain = pixels(page, ".mm-main canvas")
    page.select_option("#mm-alpha", "0.2")
    assert "at most 20 % of the inner" in page.inner_text(".mm-promised p")
    changes(page, ".mm-main canvas", plain)  # both outlines are drawn
    promises = download(page, ".mm-download", tmp_path / "all")[1]["promises"]
    assert promises["alpha"] == 0.2 and f"{promises['outlines'][2]['outer_area']:,} px" in page.inner_text(
        ".mm-promised p"
    )
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for part in (*badges.all(), page.locator("#mm-alpha")):
            box = part.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_opening_waits_for_nobody_and_the_line_is_shown(visit, lesion):
    """While somebody else draws, an image opens at once; its drawing says how many come first, and follows."""
    first, second = visit(), visit()
    upload(first, lesion)
    drawn(first, 5, "lesion")
    draw_slowly(first)
    upload(second, lesion)
    second.wait_for_function(
        "document.querySelector('.mm-status').textContent.startsWith('Waiting: you are 2nd in line')"
    )
    assert second.locator(".mm-main canvas").is_visible() and second.locator("#mm-stop").is_visible()
    second.click("#mm-stop")
    second.wait_for_selector("#mm-stop", state="hidden")
    second.click("#mm-draw")
    second.wait_for_function(
        "document.querySelector('.mm-status').textContent.startsWith('Waiting: you are 2nd in line')"
    )
    first.click("#mm-stop")
    drawn(second, 5, "lesion")


def test_what_was_left_out_is_said_on_the_page(visit, lesion, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    page = visit()
    upload(page, [lesion, tmp_path / "notes.txt"])
    drawn(page, 5, "lesion")
    assert page.inner_text(".mm-warnings li").startswith("notes.txt is not an image")


def test_example_shows_its_model_and_where_that_looks(visit):
    """Every model has an example, drawn by one click; of two clicks in a row the last counts."""
    page = visit()
    assert page.locator(".mm-model h3").all_inner_texts() == [
        f"Lesion · {name}" for name in ("whole", "crops", "calibrated")
    ]
    for part in page.locator(".mm-model").all():
        assert part.locator("button").count() and "Licence: Apache 2.0" in part.inner_text()
        assert "Outlines the lesion of a simulated image" in part.inner_text()
    page.evaluate("for (const k of [0, 4]) document.querySelectorAll('.mm-thumbs button')[k].click()")
    drawn(page, 5, "phantom-3")
    assert page.input_value("input[aria-label='Model']") == "Lesion · crops"
    assert page.input_value("#mm-regions textarea, #mm-regions input") == "48,48"
    assert "Outlines the lesion" in page.inner_text("#mm-about")


def test_pasted_and_dropped_images_are_drawn_wherever_they_land(visit, lesion):
    page = visit()
    give = """([kind, bytes]) => {
        const carrier = new DataTransfer();
        carrier.items.add(new File([new Uint8Array(bytes)], kind + ".png", { type: "image/png" }));
        const event = kind == "paste" ? new ClipboardEvent("paste", { clipboardData: carrier, bubbles: true })
                                      : new DragEvent("drop", { dataTransfer: carrier, bubbles: true, cancelable: true });
        document.querySelector("#mm-view").dispatchEvent(event);
    }"""
    for kind in ("paste", "drop"):
        page.evaluate(give, [kind, list(lesion.read_bytes())])
        drawn(page, 5, kind)


def test_page_has_a_name_and_an_icon_of_its_own(visit, page_server):
    page = visit()
    assert page.title() == "manymask"
    assert (
        "gradio" not in " ".join(page.locator("head meta").evaluate_all("all => all.map((one) => one.content)")).lower()
    )
    answer = page.request.get(page_server.url + "/favicon.ico")
    assert answer.headers["content-type"].startswith("image/svg") and "ellipse" in answer.text()


def test_transparent_pixels_are_white_for_people_and_model(visit, tmp_path):
    """What hides behind transparency is neither shown nor segmented."""
    seen = Image.fromarray(phantom.draw(1).image[:, :, 0])
    hidden = Image.merge("RGBA", [*[Image.new("L", seen.size, 0)] * 3, Image.new("L", seen.size, 0)])
    hidden.paste(seen.convert("RGBA").crop((16, 16, 48, 48)), (16, 16))
    hidden.save(tmp_path / "clear.png")
    page = visit()
    upload(page, tmp_path / "clear.png")
    drawn(page, 5, "clear")
    corner = "canvas => [...canvas.getContext('2d').getImageData(6, 6, 1, 1).data]"
    for row in page.locator(".mm-areas button").all():
        row.click()
    assert page.eval_on_selector(".mm-main canvas", corner) == [255, 255, 255, 255]
