"""What a visitor of the page does, in the tests in a browser."""

import json
import zipfile
from pathlib import Path

DRAWN = "document.querySelectorAll('.mm-areas button').length == %d && !document.querySelector('.mm-download').disabled"
PATIENCE = 90_000
WIDTHS = (390, 820, 1024, 1440)


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
    set_to(page, "Steps", "1000")
    page.click("#mm-draw")
    page.wait_for_selector("#mm-stop", state="visible")


def set_to(page, label, value):
    """Fills a field until it stays so: while the settings open, Gradio may set it back to what it was."""
    field = page.get_by_label(label)
    while True:
        field.fill(value)
        page.wait_for_timeout(200)
        if field.input_value() == value:
            return


def consensus(page) -> str:
    return page.inner_text(".mm-areas [data-k=consensus] data")


def pixels(page, selector) -> str:
    """What a canvas shows, to be compared."""
    return page.eval_on_selector(selector, "canvas => canvas.toDataURL()")


def shows(page, selector, picture) -> None:
    """Waits until a canvas shows this picture again: it is painted at the next frame."""
    arguments = [selector, picture]
    page.wait_for_function("([place, shown]) => document.querySelector(place).toDataURL() == shown", arg=arguments)


def changes(page, selector, picture) -> None:
    """Waits until a canvas shows another picture than this."""
    arguments = [selector, picture]
    page.wait_for_function("([place, shown]) => document.querySelector(place).toDataURL() != shown", arg=arguments)


def download(page, button, folder: Path) -> tuple[Path, dict]:
    """Saves and unpacks; the folder of the files, and what is in result.json."""
    with page.expect_download() as waiting:
        page.click(button)
    folder.mkdir()
    waiting.value.save_as(folder / "all.zip")
    with zipfile.ZipFile(folder / "all.zip") as file:
        file.extractall(folder)
    (result,) = folder.glob("*/result.json")
    return result.parent, json.loads(result.read_text())


def area_shown(page, row="consensus") -> int:
    """The number in a row of the list of areas."""
    return int(page.inner_text(f".mm-areas [data-k='{row}'] data").split()[0].replace(",", ""))


def on_picture(page, x: float, y: float) -> tuple[float, float]:
    """A place on the picture, in shares of its sides, as the mouse knows it."""
    box = page.locator(".mm-main canvas").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def counted(page) -> None:
    """Waits for the server's count after an edit."""
    page.wait_for_function("document.querySelector('.mm-areas').getAttribute('aria-busy') == 'false'", timeout=PATIENCE)
