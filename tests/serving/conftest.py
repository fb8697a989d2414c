"""What the tests of the page share."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from manymask.data.datasets import phantom
from tests.serving.visitor import PATIENCE, drawn


@pytest.fixture(scope="module")
def client(page_server):
    gradio_client = pytest.importorskip("gradio_client", reason="the extra `app` is not installed")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(gradio_client.Client, page_server.url, verbose=False, httpx_kwargs={"timeout": 60}).result()
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
