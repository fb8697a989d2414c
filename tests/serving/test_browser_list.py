"""The page in a real browser with several images: the strip of thumbnails, and the list of all."""

import pytest
from PIL import Image

from manymask.data.datasets import phantom
from tests.serving.visitor import WIDTHS, choose_model, download, drawn, set_to, upload

pytestmark = pytest.mark.browser


def phantoms(folder, count):
    paths = [folder / f"phantom-{k}.png" for k in range(count)]
    for k, path in enumerate(paths):
        Image.fromarray(phantom.draw(k).image[:, :, 0]).save(path)
    return paths


def names_listed(page):
    return page.locator(".mm-scroll td.mm-name button").all_inner_texts()


def test_list_of_dropped_images_is_sorted_by_headings_and_shows_a_picture_by_its_row(visit, tmp_path):
    paths = phantoms(tmp_path, 4)
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
    assert page.inner_text(".mm-promise p >> nth=0").startswith("Review this 1 of 4 images: it is expected to hold")
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
    assert page.inner_text(".mm-place") == "Image 3/4", "strip and list show the same image"
    for width in WIDTHS:
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
    paths = phantoms(tmp_path, 3)
    page = visit()
    upload(page, paths)
    drawn(page, 5, "phantom-0")
    page.click("text=More settings")
    set_to(page, "Steps", "300")
    page.click(".mm-all")
    page.wait_for_function("document.querySelectorAll('.mm-scroll tbody tr').length == 1")
    assert page.inner_text(".mm-list-status") == "Segmenting image 2 of 3 …"
    page.click(".mm-list-stop")
    page.wait_for_function("document.querySelector('.mm-list-status').textContent.startsWith('Stopped: 1 of 3 images')")
    page.click(".mm-remove")
    page.locator(".mm-list").wait_for(state="hidden")


def test_strip_shows_every_image_and_a_thumbnail_draws_its_own(visit, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    page = visit()
    upload(page, [*phantoms(tmp_path, 15), tmp_path / "notes.txt"])
    drawn(page, 5, "phantom-0 (image 1 of 15)")
    assert page.inner_text(".mm-place") == "Image 1/15" and page.is_disabled(".mm-before")
    assert page.inner_text(".mm-warnings li >> nth=0").startswith("notes.txt is not an image")
    assert not page.get_by_label("Slice", exact=True).is_visible(), "images have no slider"
    pictures = page.locator(".mm-strip li button")
    assert pictures.count() == 15
    page.wait_for_function("document.querySelectorAll('.mm-strip img[src^=data]').length >= 5")
    pictures.nth(14).scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('.mm-strip img[src^=data]').length == 15")
    assert pictures.nth(14).get_attribute("aria-label") == "Image 15: phantom-14"
    pictures.nth(2).click()
    pictures.nth(1).click()
    drawn(page, 5, "phantom-1 (image 2 of 15): 5 masks")
    assert page.inner_text(".mm-place") == "Image 2/15"
    assert page.locator(".mm-strip [aria-current]").get_attribute("aria-label") == "Image 2: phantom-1"
    page.click(".mm-after")
    drawn(page, 5, "phantom-2 (image 3 of 15): 5 masks")
    page.locator(".mm-strip [aria-current]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    drawn(page, 5, "phantom-3 (image 4 of 15): 5 masks")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for part in (".mm-before", ".mm-after", ".mm-strip ul"):
            box = page.locator(part).bounding_box()
            assert box["width"] >= 36 and box["x"] >= 0 and box["x"] + box["width"] <= width
    page.click(".mm-remove")
    page.locator(".mm-strip").wait_for(state="hidden")


def test_accepted_images_are_marked_and_edits_are_kept_while_one_looks_at_another(visit, tmp_path):
    page = visit()
    upload(page, phantoms(tmp_path, 2))
    drawn(page, 5, "phantom-0")
    page.uncheck(".mm-areas [data-row='1'] input")
    download(page, ".mm-accept", tmp_path / "accepted")
    page.wait_for_selector(".mm-strip li:nth-child(1).mm-accepted")
    page.click(".mm-after")
    drawn(page, 5, "phantom-1 (image 2 of 2): 5 masks")
    assert page.is_checked(".mm-areas [data-row='1'] input"), "another image has edits of its own"
    assert page.locator(".mm-accepted").count() == 1
    page.click(".mm-before")
    drawn(page, 5, "phantom-0 (image 1 of 2): 5 masks")
    page.wait_for_function("!document.querySelector('.mm-areas [data-row=\"1\"] input').checked")
