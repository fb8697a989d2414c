"""The page in a real browser, Debian's chromium: what a visitor sees and does, at a desk and on a phone, light and dark."""

import json
import shutil
import zipfile

import pytest
from PIL import Image

from manymask.data.datasets import phantom

api = pytest.importorskip("playwright.sync_api", reason="the extra `test` is not installed: no playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed (apt-get install chromium)", allow_module_level=True)

pytestmark = pytest.mark.browser

DRAWN = "document.querySelectorAll('.mm-areas button').length == %d && !document.querySelector('.mm-download').disabled"
PATIENCE = 90_000


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def context(browser):
    """One for all visits: Gradio's own files are fetched and compiled once."""
    found = browser.new_context(viewport={"width": 1280, "height": 900})
    found.set_default_timeout(PATIENCE)
    yield found
    found.close()


@pytest.fixture
def visit(browser, context, page_server):
    """Opens the page; at the end: no error in the console, nothing asked of another machine. A second visit in a test
    is that of another browser: one browser has six connections to a server, and each page holds some."""
    pages, others, asked, errors = [], [], [], []

    def go(width=1280, height=900, scheme="light"):
        if pages:
            others.append(browser.new_context())
            others[-1].set_default_timeout(PATIENCE)
        page = (others[-1] if others else context).new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(page_server.url)
        page.wait_for_selector(".mm-examples button")
        return page

    go.asked = asked
    yield go
    for opened in (*pages, *others):
        opened.close()
    assert not [url for url in asked if not url.startswith((page_server.url, "data:", "blob:"))]
    assert not errors


@pytest.fixture(scope="module")
def visit_drawn(context, page_server):
    """One page with a finished drawing, for tests that only look."""
    page = context.new_page()
    page.goto(page_server.url)
    page.click(".mm-examples button >> nth=0")
    drawn(page, 5, "phantom")
    yield page
    page.close()


@pytest.fixture
def lesion(tmp_path):
    """150 × 90 pixels: larger than the region of the crop model."""
    Image.fromarray(phantom.draw(1).image[:, :, 0]).resize((150, 90)).save(tmp_path / "lesion.png")
    return tmp_path / "lesion.png"


def upload(page, path):
    page.set_input_files("#mm-upload input[type=file]", path)


def drawn(page, masks, name=""):
    """Waits for a finished drawing of `name`: an image is drawn as soon as it is there."""
    page.wait_for_function(f"document.querySelector('.mm-status').textContent.startsWith({name!r})", timeout=PATIENCE)
    page.wait_for_function(DRAWN % (masks + 1), timeout=PATIENCE)


def draw(page, masks):
    page.click("#mm-draw")
    drawn(page, masks)


def choose_model(page, name):
    page.click("label:has-text('Model') input, input[aria-label='Model']")
    page.get_by_role("option", name=name).click()


def draw_slowly(page):
    """Begins a drawing that nobody would wait for."""
    page.locator("input[type=number][aria-label*='Masks']").fill("16")
    page.click("text=More settings")
    page.get_by_label("Steps").fill("1000")
    page.click("#mm-draw")
    page.wait_for_selector("#mm-stop", state="visible")


def consensus(page) -> str:
    return page.inner_text(".mm-areas [data-k=consensus] data")


def pixels(page, selector) -> str:
    """What a canvas shows, to be compared."""
    return page.eval_on_selector(selector, "canvas => canvas.toDataURL()")


def test_upload_draw_move_the_threshold_download(visit, lesion, tmp_path):
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    assert page.locator(".mm-areas button").count() == 6 and "5 masks" in page.inner_text(".mm-status")
    before, picture, sent = consensus(page), pixels(page, ".mm-main canvas"), len(visit.asked)
    slider = page.locator("#mm-threshold")
    slider.fill("0.9")
    page.wait_for_function("text => document.querySelector('.mm-areas data').textContent != text", arg=before)
    assert pixels(page, ".mm-main canvas") != picture, "the outline of the consensus moves"
    assert not [url for url in visit.asked[sent:] if "queue" in url or "run" in url], "the slider asks nobody"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.mm-threshold output').textContent == '0.89'")  # at the next frame
    with page.expect_download() as waiting:
        page.click(".mm-download")
    waiting.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as file:
        names, result = set(file.namelist()), json.loads(file.read("lesion/result.json"))
    assert {"lesion/mask-05.png", "lesion/confidence.png", "lesion/consensus.png", "lesion/overlay.png"} <= names
    assert result["threshold"] == 0.89 and f"{result['area_consensus']:,} px" == consensus(page)


def test_outline_of_a_mask_can_be_hidden_by_keyboard(visit):
    page = visit()
    page.click(".mm-examples button >> nth=0")
    drawn(page, 5, "phantom")
    shown = pixels(page, ".mm-main canvas")
    page.focus(".mm-areas [data-k='2']")
    page.keyboard.press("Enter")
    assert page.get_attribute(".mm-areas [data-k='2']", "aria-pressed") == "false"
    assert pixels(page, ".mm-main canvas") != shown


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
    click(72, 13, off=(-10, 10))  # the × in the corner of the first square, 64 pixels wide
    has("100,45")
    page.keyboard.press("Escape")
    has("")
    page.wait_for_timeout(100)
    assert pixels(page, ".mm-main canvas") == plain
    click(100.5, 45.5)
    has("100,45")
    draw(page, 5)
    page.wait_for_selector(".mm-zoom:not([hidden])")


def test_stop_shows_while_drawing_and_stops(visit, lesion):
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    assert not page.locator("#mm-stop").is_visible()
    draw_slowly(page)
    page.wait_for_function("document.querySelector('.mm-status').textContent.startsWith('Drawing mask 2 of 16')")
    page.click("#mm-stop")
    page.wait_for_selector("#mm-stop", state="hidden")
    masks = page.locator(".mm-areas button").count() - 1
    assert 1 <= masks < 16
    assert page.inner_text(".mm-status") == f"lesion: {masks} mask{'s' if masks > 1 else ''}, then stopped"
    assert page.is_enabled(".mm-download"), "what was drawn can be had"


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
    assert not page.get_by_label("Image", exact=True).is_visible(), "one image has no slider"
    upload(page, [lesion, other])
    drawn(page, 5, "lesion (image 1 of 2): 5 masks")
    page.locator("input[type=number][aria-label*='Image']").fill("2")
    page.wait_for_function("document.querySelector('.mm-status').textContent.startsWith('other (image 2 of 2)')")


def test_image_can_be_removed_and_the_examples_come_back(visit, lesion, page_server):
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    page.click(".mm-remove")
    page.wait_for_selector(".mm-examples button")
    assert not page.locator(".mm-stage").is_visible()
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
    choose_model(page, "calibrated")
    page.wait_for_function("!document.querySelector('.mm-badges').children.length")
    draw(page, 5)
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
    assert pixels(page, ".mm-main canvas") != plain, "both outlines are drawn"
    with page.expect_download() as waiting:
        page.click(".mm-download")
    waiting.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as file:
        promises = json.loads(file.read("lesion/result.json"))["promises"]
    assert promises["alpha"] == 0.2 and f"{promises['outlines'][2]['outer_area']:,} px" in page.inner_text(
        ".mm-promised p"
    )
    for width in (390, 820, 1024, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        for part in (*badges.all(), page.locator("#mm-alpha")):
            box = part.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def names_listed(page):
    return page.locator(".mm-scroll td.mm-name button").all_inner_texts()


def test_list_of_dropped_images_is_sorted_by_headings_and_shows_a_picture_by_its_row(visit, tmp_path):
    paths = [tmp_path / f"phantom-{k}.png" for k in range(4)]
    for k, path in enumerate(paths):
        Image.fromarray(phantom.draw(k).image[:, :, 0]).save(path)
    page = visit()
    choose_model(page, "calibrated")
    upload(page, paths)
    drawn(page, 5, "phantom-0 (image 1 of 4)")
    assert page.inner_text(".mm-all") == "Segment all 4 images" and not page.locator(".mm-table").is_visible()
    page.click(".mm-all")
    page.wait_for_function(
        "document.querySelector('.mm-list-status').textContent.startsWith('4 of 4 images segmented')"
    )
    assert not page.locator(".mm-list-stop").is_visible()
    assert page.inner_text(".mm-promise p >> nth=0").startswith("Review these 1 of 4 images: they are expected to hold")
    failures = [float(text.split()[0]) for text in page.locator(".mm-scroll td.mm-failure").all_inner_texts()]
    assert failures == sorted(failures, reverse=True)
    assert page.locator(".mm-scroll td.mm-order").all_inner_texts() == ["1 · review", "2", "3", "4"]
    assert page.locator("td.mm-like_training", has_text="⚠ unlike").count() == 4
    first_order, heading = names_listed(page), page.get_by_role("columnheader", name="Image")
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending" and names_listed(page) == [p.stem for p in paths]
    assert page.locator("th[aria-sort]").count() == 1
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending" and names_listed(page) == [p.stem for p in paths][::-1]
    page.get_by_role("columnheader", name="Order").get_by_role("button").click()
    assert names_listed(page) == first_order
    row = page.get_by_role("row", name="phantom-2")
    row.get_by_role("button").focus()
    page.keyboard.press("Enter")
    drawn(page, 5, "phantom-2 (image 3 of 4): 5 masks")
    assert row.get_attribute("aria-current") == "true" and page.locator("tr[aria-current]").count() == 1
    predicted = row.locator("td.mm-dice").inner_text()
    assert page.locator(".mm-badges button").first.inner_text().removeprefix("⚠ ") == "Predicted Dice " + predicted
    assert page.input_value("input[type=number][aria-label*='Image']") == "3"
    for width in (390, 820, 1024, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.mm-scroll'))") <= 0
        for part in (*page.locator("th button").all(), *page.locator("td.mm-name button").all()):
            box = part.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
    choose_model(page, "whole")
    page.locator(".mm-table").wait_for(state="hidden")
    page.click(".mm-all")
    page.wait_for_function(
        "document.querySelector('.mm-list-status').textContent.startsWith('4 of 4 images segmented')"
    )
    assert page.inner_text(".mm-promise p").startswith("Nothing is promised. The model is not calibrated")
    agreements = [float(text) for text in page.locator("td.mm-agreement").all_inner_texts()]
    assert agreements == sorted(agreements) and page.locator("td.mm-dice").count() == 0
    choose_model(page, "crops")
    page.locator(".mm-list").wait_for(state="hidden")


def test_list_is_filled_row_by_row_and_stops_with_what_is_there(visit, tmp_path):
    paths = [tmp_path / f"phantom-{k}.png" for k in range(3)]
    for k, path in enumerate(paths):
        Image.fromarray(phantom.draw(k).image[:, :, 0]).save(path)
    page = visit()
    upload(page, paths)
    drawn(page, 5, "phantom-0")
    page.click("text=More settings")
    page.get_by_label("Steps").fill("300")
    page.click(".mm-all")
    page.wait_for_function("document.querySelectorAll('.mm-scroll tbody tr').length == 1")
    assert page.inner_text(".mm-list-status") == "Segmenting image 2 of 3 …"
    page.click(".mm-list-stop")
    page.wait_for_function("document.querySelector('.mm-list-status').textContent.startsWith('Stopped: 1 of 3 images')")
    page.click(".mm-remove")
    page.locator(".mm-list").wait_for(state="hidden")


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


def test_opening_waits_for_nobody_and_the_line_is_shown(visit, lesion):
    """While somebody else draws, an image opens at once; its drawing says how many come first, and follows."""
    first, second = visit(), visit()
    upload(first, lesion)
    drawn(first, 5, "lesion")
    draw_slowly(first)
    upload(second, lesion)
    second.wait_for_function("document.querySelector('.mm-status').textContent.startsWith('Waiting: one drawing')")
    assert second.locator(".mm-main canvas").is_visible() and second.locator("#mm-stop").is_visible()
    second.click("#mm-stop")
    second.wait_for_selector("#mm-stop", state="hidden")
    second.click("#mm-draw")
    second.wait_for_function("document.querySelector('.mm-status').textContent.startsWith('Waiting: one drawing')")
    first.click("#mm-stop")
    drawn(second, 5, "lesion")


def test_what_was_left_out_is_said_on_the_page(visit, lesion, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    page = visit()
    upload(page, [lesion, tmp_path / "notes.txt"])
    drawn(page, 5, "lesion")
    assert page.inner_text(".mm-warnings li").startswith("notes.txt is not an image")


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
