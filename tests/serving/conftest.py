"""What the tests of the page share."""

from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture(scope="module")
def client(page_server):
    gradio_client = pytest.importorskip("gradio_client", reason="the extra `app` is not installed")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(gradio_client.Client, page_server.url, verbose=False, httpx_kwargs={"timeout": 60}).result()
    yield found
    found.close()
