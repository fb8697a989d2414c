"""`manymask serve`: loads the models, keeps the visitors' files in a folder that goes with the server."""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from manymask.errors import UserError
from manymask.hub import Segmenter
from manymask.page.desk import Limits
from manymask.page.office import Office


def serve(models: Sequence[Path], host: str, port: int, limits: Limits) -> None:
    """Serves until interrupted; what visitors left is removed at the end. `UserError` if Gradio is not installed, or
    the place is taken."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    with suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="manymask-") as work:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(work).resolve())  # before Gradio is imported
        try:
            from manymask.page.app import KEPT, build
        except ImportError:
            raise UserError("the page needs Gradio: pip install 'manymask[app]'") from None
        _fetch_nothing()
        threading.Thread(target=_sweep, args=(Path(work).resolve(), KEPT), daemon=True).start()
        loaded = load(models)
        page = build(Office(loaded, limits, Path(work).resolve()))
        # one drawing at a time; a line of bounded length, and no way around it
        page.queue(max_size=limits.waiting, default_concurrency_limit=1, api_open=False)
        try:
            _launch(page, host, port, limits)
            print(f"manymask: http://{host}:{port} ({', '.join(loaded)}); end with Ctrl+C", flush=True)
            threading.Event().wait()
        except OSError:
            raise UserError(f"{host}:{port} cannot be served: it is taken, choose another --port") from None
        finally:
            page.close(verbose=False)


def load(models: Sequence[Path]) -> dict[str, Segmenter]:
    """The models by the names of their folders."""
    loaded = dict[str, Segmenter]()
    for folder in models:
        name = folder.resolve().name
        name = next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(models) + 2))) if n not in loaded)
        loaded[name] = Segmenter.from_pretrained(str(folder))
    return loaded


def _sweep(work: Path, kept: float) -> None:
    """Removes what has lain longer than `kept` seconds, every minute: uploads that broke off belong to no visit."""
    while work.exists():
        for path in work.rglob("*"):
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > kept:
                    path.unlink()
        time.sleep(60)


class Ceiling:
    """Ends a request as soon as more than `limit` bytes of it are announced or have come; an ASGI middleware."""

    def __init__(self, app: Any, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        from starlette.requests import ClientDisconnect
        from starlette.responses import PlainTextResponse

        refusal = PlainTextResponse(f"at most {self.limit // 1_000_000} MB at once", status_code=413)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.limit:
            return await refusal(scope, receive, send)
        come = 0

        async def counted() -> Any:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            return message if come <= self.limit else {"type": "http.disconnect"}

        try:
            await self.app(scope, counted, send)
        except ClientDisconnect:
            if come <= self.limit:
                raise
            await refusal(scope, receive, send)


def _fetch_nothing() -> None:
    """Gradio would fetch a file that a caller names by an address; here one uploads the file itself."""
    import gradio as gr
    from gradio import processing_utils

    async def refuse(*_: Any, **__: Any) -> str:
        raise gr.Error("upload the file itself, not its address", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


def _launch(page: Any, host: str, port: int, limits: Limits) -> None:
    """Nothing shared, nothing measured, no file but the visitor's own; fonts of the visitor's system."""
    import gradio as gr
    from starlette.middleware import Middleware

    from manymask.page.app import text_of

    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    theme = gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", radius_size="md", font=font, font_mono=["monospace"]
    )
    page.launch(
        server_name=host, server_port=port, share=False, quiet=True, show_error=False, inbrowser=False,
        allowed_paths=[], max_file_size=f"{limits.upload}mb", state_session_capacity=20, enable_monitoring=False,
        ssr_mode=False, mcp_server=False, strict_cors=True, footer_links=["api"], css=text_of("page.css"), theme=theme,
        prevent_thread_lock=True, app_kwargs={"middleware": [Middleware(Ceiling, limit=limits.at_once * 1_000_000)]},
    )  # fmt: skip
