"""The page in a real browser, Debian's chromium: what a visitor sees and does, at a desk and on a phone, light and dark."""

import json
import shutil
import zipfile

import pytest
from PIL import Image

from manymask.data import phantom

api = pytest.importorskip("playwright.sync_api", reason="the extra `test` is not installed: no playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed (apt-get install chromium)", allow_module_level=True)

DRAWN = "document.querySelectorAll('.mm-areas button').length == %d && !document.querySelector('.mm-download').disabled"
PATIENCE = 90_000


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, page_server):
    """Opens the page; at the end: no error in the console, nothing asked of another machine."""
    contexts, asked, errors = [], [], []

    def go(width=1280, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(page_server.url)
        page.wait_for_selector(".mm-examples button")
        return page

    go.asked = asked
    yield go
    for context in contexts:
        context.close()
    assert not [url for url in asked if not url.startswith((page_server.url, "data:", "blob:"))]
    assert not errors


@pytest.fixture
def lesion(tmp_path):
    """150 × 90 pixels: larger than the region of the crop model."""
    Image.fromarray(phantom.draw(1).image[:, :, 0]).resize((150, 90)).save(tmp_path / "lesion.png")
    return tmp_path / "lesion.png"


def upload(page, path):
    page.set_input_files("#mm-upload input[type=file]", path)
    page.wait_for_selector(".mm-stage:not([hidden])")


def draw(page, masks):
    page.click("#mm-draw")
    page.wait_for_function(DRAWN % (masks + 1), timeout=PATIENCE)


def consensus(page) -> str:
    return page.inner_text(".mm-areas [data-k=consensus] data")


def pixels(page, selector) -> str:
    """What a canvas shows, to be compared."""
    return page.eval_on_selector(selector, "canvas => canvas.toDataURL()")


def test_upload_draw_move_the_threshold_download(visit, lesion, tmp_path):
    page = visit()
    upload(page, lesion)
    draw(page, 5)
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
    page.wait_for_selector(".mm-stage:not([hidden])")
    draw(page, 5)
    shown = pixels(page, ".mm-main canvas")
    page.focus(".mm-areas [data-k='2']")
    page.keyboard.press("Enter")
    assert page.get_attribute(".mm-areas [data-k='2']", "aria-pressed") == "false"
    assert pixels(page, ".mm-main canvas") != shown


def test_click_says_where_a_model_of_regions_looks(visit, lesion):
    page = visit()
    upload(page, lesion)
    page.click("label:has-text('Model') input, input[aria-label='Model']")
    page.get_by_role("option", name="crops").click()
    page.wait_for_selector(".mm-clickable canvas")
    page.click("#mm-draw")
    page.get_by_text("say where to look").wait_for()
    box = page.locator(".mm-main canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 100.5 / 150, box["y"] + box["height"] * 45.5 / 90)
    page.wait_for_function("document.querySelector('#mm-regions textarea, #mm-regions input').value == '100,45'")
    draw(page, 5)
    page.wait_for_selector(".mm-zoom:not([hidden])")


def test_unreadable_file_is_one_message(visit, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    page = visit()
    page.set_input_files("#mm-upload input[type=file]", tmp_path / "notes.txt")
    page.get_by_text("notes.txt is not an image").wait_for()
    assert "Traceback" not in page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_shows_everything_within_its_width(visit, scheme):
    page = visit(390, 844, scheme)
    page.click(".mm-examples button >> nth=0")
    page.wait_for_selector(".mm-stage:not([hidden])")
    draw(page, 5)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in (".mm-main canvas", ".mm-confidence canvas", "#mm-threshold", ".mm-download", ".mm-warning"):
        box = page.locator(part).bounding_box()
        assert box["width"] > 40 and box["x"] >= 0 and box["x"] + box["width"] <= 390, part
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    level = sum(map(int, ground.removeprefix("rgb(").rstrip(")").split(",")[:3]))
    assert (level > 600) == (scheme == "light")
