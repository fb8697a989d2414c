"""Large images in windows: offered where they help, drawn for programs as `segment --tile` draws them."""

import re

import numpy as np
import pytest
from PIL import Image

from manymask import Segmenter
from manymask.data.datasets import phantom
from manymask.errors import ConfigError, InputError
from manymask.io.image import Picture
from manymask.serving.listing import Listing
from manymask.serving.service import Limits, SegmentRequest, Subject, check_number, check_request, open_files, tiles
from manymask.serving.session import segment_request_of
from tests.serving.visitor import WIDTHS, choose_model, download, draw, drawn, upload

gradio_client = pytest.importorskip("gradio_client", reason="the extra `app` is not installed")


@pytest.fixture
def large(tmp_path):
    """Sixteen phantoms in one image of 256 × 256 pixels, four times the side of the model."""
    image = np.block([[phantom.draw(4 * r + c).image[:, :, 0] for c in range(4)] for r in range(4)])
    Image.fromarray(image).save(tmp_path / "large.png")
    return tmp_path / "large.png"


@pytest.fixture(scope="module")
def segmenter(drawing_model):
    return Segmenter.from_pretrained(str(drawing_model))


@pytest.mark.parametrize(
    ("shape", "offered"),
    [((255, 100), ()), ((256, 256), (128, 64)), ((100, 700), (256, 128)), ((3000, 4000), (1024, 512))],
)
def test_windows_are_offered_for_images_much_larger_than_the_model(segmenter, shape, offered):
    assert tiles(segmenter, Picture(np.zeros(shape, np.uint8), "p")) == offered


def test_programs_get_the_masks_that_segment_draws_in_windows(client, page_server, large):
    paths = [gradio_client.handle_file(str(large))]
    facts, _ = client.predict(paths=paths, model="calibrated", samples=2, tile=64, api_name="/segment")
    expected = Segmenter.from_pretrained(str(page_server.models / "calibrated")).segment(large, 2, tile=64)
    assert facts["tile"] == 64 and facts["areas"] == pytest.approx(expected.areas().tolist(), abs=5)
    assert any("drawn in windows of 64 pixels" in line for line in facts["warnings"])
    whole, _ = client.predict(paths=paths, model="calibrated", samples=2, api_name="/segment")
    assert "tile" not in whole and whole["areas"] != facts["areas"]


def test_list_is_drawn_in_windows_too_and_promises_nothing(client, large):
    paths = [gradio_client.handle_file(str(large))]
    found = client.predict(paths=paths, model="calibrated", samples=2, tile=128, api_name="/triage")
    assert not found["calibrated"] and "windows of 128 pixels" in found["drawn_with"]
    assert [row["dice"] for row in found["rows"]] == [None]


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (8, "tile must lie in"),
        (50_000, "tile must lie in"),
        ("wide", "must be whole numbers"),
        (0.6, "must be whole numbers"),
    ],
)
def test_sides_out_of_range_are_refused(segmenter, large, tile, message):
    opened = open_files([large], Limits())
    with pytest.raises((ConfigError, InputError), match=message):
        order = segment_request_of(Limits(), 2, 0, None, 0, "", tile)
        Listing(segmenter, order, Limits(), opened, lambda number: Subject(*2 * [opened.picture(number, "")]))


def test_windows_that_would_enlarge_an_image_beyond_memory_are_refused(segmenter):
    picture = Picture(np.zeros((5000, 5000), np.uint8), "p")
    check_request(SegmentRequest(5, tile=64), picture, segmenter, Limits())
    with pytest.raises(InputError, match="do not fit into memory"):
        check_request(SegmentRequest(5, tile=32), picture, segmenter, Limits())


@pytest.mark.browser
def test_page_offers_windows_of_a_large_image_alone(visit, large, lesion, tmp_path):
    page = visit()
    upload(page, lesion)
    drawn(page, 5, "lesion")
    assert not page.is_visible("#mm-detail")
    upload(page, large)
    drawn(page, 5, "large")
    whole = page.inner_text(".mm-areas [data-k='0'] data")
    assert page.input_value("#mm-detail input") == "Whole image, 4 times smaller"
    page.click("#mm-detail input")
    options = page.locator("[role=option]").all_inner_texts()
    assert [each.strip("✓ \n") for each in options][1:] == [
        "Windows of 128 px, 2 times smaller",
        "Windows of 64 px, at full size",
    ]
    page.get_by_role("option", name="Windows of 64 px").click()
    draw(page, 5)
    mask = "document.querySelector(\".mm-areas [data-k='0'] data\")?.textContent"  # rows are made anew
    page.wait_for_function(f"(whole) => ![undefined, whole].includes({mask})", arg=whole)
    page.wait_for_selector(".mm-warnings >> text=windows of 64 pixels")
    _, facts = download(page, ".mm-download", tmp_path / "zip")
    assert facts["tile"] == 64
    page.click(".mm-remove")
    page.wait_for_selector("#mm-detail", state="hidden")


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_choice_and_its_caution_fit_every_width(visit, large, width):
    page = visit(width, 900)
    upload(page, large)
    drawn(page, 5, "large")
    box = page.locator("#mm-detail").bounding_box()
    assert box["width"] >= 250 and box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.is_visible("text=nothing is promised")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_areas_of_millions_of_pixels_are_readable_and_their_share_is_said(visit, tmp_path):
    Image.fromarray(phantom.draw(1).image[:, :, 0]).resize((4200, 4200)).save(tmp_path / "wide.png")
    page = visit(390, 844)
    choose_model(page, "calibrated")
    upload(page, tmp_path / "wide.png")
    drawn(page, 5, "wide")
    shown = page.locator(".mm-areas data").all_inner_texts()
    assert all(re.fullmatch(r"\d+\.\d\d Mpx", text) for text in shown), shown
    exact = page.get_attribute(".mm-areas [data-k=consensus] data", "title")
    share = int(exact.removesuffix(" px").replace(",", "")) / 4200**2
    assert f"The consensus covers {share * 100:.0f} % of the image" in page.inner_text(".mm-summary")


@pytest.mark.parametrize("given", [(2.9, 0, 0), (2, 0.5, 0), (2, 0, 0.4), ("2.9", 0, 0), (float("nan"), 0, 0)])
def test_numbers_that_are_not_whole_are_refused_not_cut_off(given):
    samples, seed, steps = given
    with pytest.raises(InputError, match="must be whole numbers"):
        segment_request_of(Limits(), samples, seed, None, steps, "")


@pytest.mark.parametrize(("number", "found"), [(None, 1), ("", 1), (3, 3), (3.0, 3), ("4", 4)])
def test_slices_count_from_one(number, found):
    assert check_number(number) == found


@pytest.mark.parametrize("number", [0, -1, 1.5, "x", float("inf")])
def test_a_slice_that_there_cannot_be_is_refused(number):
    with pytest.raises(InputError, match="a whole number from 1 on"):
        check_number(number)
