"""OHIF in a browser: its files and an archive behind one address, as a hospital's proxy puts them."""

import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from requests import Session

from tests.archive import Archive

_SOURCE = {
    "friendlyName": "archive", "name": "archive", "qidoRoot": "/dicom-web", "wadoRoot": "/dicom-web",
    "wadoUriRoot": "/dicom-web", "qidoSupportsIncludeField": False, "imageRendering": "wadors",
    "thumbnailRendering": "wadors", "enableStudyLazyLoad": True, "supportsFuzzyMatching": False,
    "supportsWildcard": True, "omitQuotationForMultipartRequest": True,
    "bulkDataURI": {"enabled": True},
}  # fmt: skip
_CONFIG: dict[str, Any] = {
    "routerBasename": None, "extensions": [], "modes": [], "showStudyList": True, "showCPUFallbackMessage": False,
    "investigationalUseDialog": {"option": "never"}, "maxNumberOfWebWorkers": 1, "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb", "sourceName": "archive",
            "configuration": _SOURCE,
        }
    ],
}  # fmt: skip


@contextmanager
def hosting(dist: Path, archive: Archive) -> Iterator[str]:
    """Serves OHIF's prebuilt files, and the archive under /dicom-web; the address."""
    session = Session()
    session.auth, session.trust_env = (archive.user, archive.password), False

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(dist))

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/dicom-web"):
                self._forward()
            elif path == "/app-config.js":
                self._answer(200, "text/javascript", f"window.config = {json.dumps(_CONFIG)};".encode())
            else:
                if not Path(self.translate_path(path)).is_file():
                    self.path = "/index.html"  # one page, which reads the rest of the address
                super().do_GET()

        def _forward(self) -> None:
            accept = {"Accept": self.headers.get("Accept", "*/*")}
            got = session.get(archive.root + self.path.removeprefix("/dicom-web"), headers=accept, timeout=60)
            self._answer(got.status_code, got.headers.get("Content-Type", "application/json"), got.content)

        def _answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


_LOADED = "/I:\\s*\\d/.test(document.body.innerText)"  # the corner of the viewport has the number of an image
_CENTRE = """() => {
    const camera = cornerstone.getRenderingEngines()[0]?.getViewports()[0]?.getCamera()
    return camera && [...camera.focalPoint]
}"""
_CORNERS = """places => {
    const viewport = cornerstone.getRenderingEngines()[0].getViewports()[0]
    return places.map(place => [...viewport.worldToCanvas(place)])
}"""


class Viewer:
    """OHIF's page of one study: what a reader does on it, and what is then on the screen."""

    def __init__(self, page: Any, address: str, images: Sequence[Any]) -> None:
        self._page, self._images = page, images
        page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        page.goto(f"{address}/viewer?StudyInstanceUIDs={images[0].StudyInstanceUID}")
        page.wait_for_function(_LOADED)

    def open(self, series: str) -> None:
        """Double-clicks a series in the list."""
        self._page.get_by_text(series).dblclick()

    def agree(self) -> None:
        """Says yes to the question whether a segmentation is to be opened."""
        button = self._page.get_by_role("button", name="Yes")
        button.click()
        button.wait_for(state="detached")

    def wait_for_map(self) -> None:
        """Waits until a map is loaded: the corner of the viewport then has its window."""
        self._page.wait_for_function("/W:\\s*100\\b/.test(document.body.innerText)")

    def turn_to(self, k: int) -> None:
        """Turns the wheel until image k is shown. Segmentations begin at the head, maps at the feet."""
        page, box, step = self._page, self._canvas(), 100
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for _ in range(10 * len(self._images)):
            before = self.shown()
            if before == k:
                return
            page.mouse.wheel(0, step)
            page.wait_for_timeout(300)
            if abs(self.shown() - k) >= abs(before - k):  # the wrong way, or at an end
                step = -step
        raise AssertionError(f"image {k} is not reached by the wheel")

    def shown(self) -> int:
        """The place, in the series, of the image on the screen. The number in the corner is wrong of maps (3.13.2)."""
        centre = np.array(self._page.wait_for_function(_CENTRE).json_value())
        turned = np.array(self._images[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
        heights = [(np.array(i.ImagePositionPatient, dtype=float) - centre) @ np.cross(*turned) for i in self._images]
        return int(np.abs(heights).argmin())

    def settle(self) -> None:
        """Waits until the picture stays as it is: images come in more and more detail."""
        before = None
        while before is None or (before != (now := self.pixels())).any():
            before = self.pixels() if before is None else now
            self._page.wait_for_timeout(500)

    def pixels(self) -> np.ndarray:
        """What is on the screen where the pixels of the image lie, int (H, W, 3), by the image's own header."""
        image, box = self._images[self.shown()], self._canvas()
        start = np.array(image.ImagePositionPatient, dtype=float)
        along, down = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
        right, below = start + along * image.PixelSpacing[1], start + down * image.PixelSpacing[0]
        zero, right, below = map(np.array, self._page.evaluate(_CORNERS, [p.tolist() for p in (start, right, below)]))
        rows, columns = np.mgrid[: image.Rows, : image.Columns][..., None]
        places = zero + columns * (right - zero) + rows * (below - zero)
        screen = np.asarray(Image.open(io.BytesIO(self._page.screenshot(clip=box))).convert("RGB")).astype(int)
        x, y = np.moveaxis(places.round().astype(int), -1, 0)
        return screen[y.clip(0, screen.shape[0] - 1), x.clip(0, screen.shape[1] - 1)]

    def _canvas(self) -> Any:
        """The place of the viewport's canvas, which is taken away for a moment whenever a series is opened. Thumbnails are
        drawn on such a canvas too."""
        canvas = self._page.locator("#viewerLayoutResizableViewportGridPanel canvas.cornerstone-canvas")
        while (box := canvas.bounding_box()) is None:
            canvas.wait_for()  # until it is visible
        return box
