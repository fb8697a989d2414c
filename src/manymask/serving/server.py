"""`manymask serve`: loads the models, keeps the visitors' files in a folder that goes with the server."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from manymask.errors import ConfigError, MissingExtraError
from manymask.inference.segmenter import Segmenter
from manymask.serving.service import Limits
from manymask.serving.session import SessionManager
from manymask.serving.uploads import UploadStore

DRAIN = 10.0  # seconds at most in which the last answers go out


def serve(
    models: Sequence[Path | str], host: str, port: int, limits: Limits, hosts: Sequence[str] = (), grace: float = 20
) -> None:
    """Serves until interrupted; what visitors left is removed at the end. `ConfigError` if Gradio is not installed, or
    the place is taken. hosts: further names that the page is served under. grace: seconds that the drawing in progress
    may take after the first SIGTERM or Ctrl-C; a second one ends it."""
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port must lie in 1 … 65535, not {port}")
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    _end_on_signals(lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="manymask-") as work:
        folder = Path(work).resolve()
        os.environ["GRADIO_TEMP_DIR"] = str(folder)  # before Gradio is imported
        try:
            from manymask.serving import app, monitoring, patches
        except ImportError:
            raise MissingExtraError(
                "the page needs Gradio: pip install 'manymask[app]'", extra="app", package="gradio"
            ) from None
        patches.apply()
        sessions = SessionManager(load_segmenters(models), limits, folder)
        store = UploadStore(folder, limits.kept * 1_000_000, limits.kept_files)
        monitor = monitoring.Monitor(sessions.line, limits.seconds, store.held)
        page = app.build(sessions)
        # many may wait for their turn; `RequestQueue` says who draws, this queue only bounds what comes in one rush
        page.queue(max_size=4 * limits.waiting + 20, default_concurrency_limit=1, api_open=False)
        ended = threading.Event()
        try:
            _launch(page, sessions, store, monitor, host, port, hosts)
        except OSError:
            raise ConfigError(f"{host}:{port} cannot be served: it is taken, choose another --port") from None
        _end_on_signals(lambda *_: ended.set())
        print(f"manymask: http://{host}:{port} ({', '.join(sessions.segmenters)}); end with Ctrl+C", flush=True)
        ended.wait()
        _end_on_signals(lambda *_: threading.Thread(target=sessions.line.end_all).start())
        idle = sessions.line.close(grace)
        monitor.drain(DRAIN)
        page.close(verbose=False)
    if not idle:
        os._exit(0)  # a thread that is deep in a library would end the interpreter with an abort


def _end_on_signals(handler: Any) -> None:
    with suppress(ValueError):  # only the main thread may
        for kind in (signal.SIGTERM, signal.SIGINT):
            signal.signal(kind, handler)


def load_segmenters(models: Sequence[Path | str]) -> dict[str, Segmenter]:
    """The models, by their names or those of their folders."""
    loaded = dict[str, Segmenter]()
    for model in models:
        name = Path(model).resolve().name
        name = next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(models) + 2))) if n not in loaded)
        loaded[name] = Segmenter.from_pretrained(model)
    return loaded


def _launch(
    page: Any, sessions: SessionManager, store: UploadStore, monitor: Any, host: str, port: int, hosts: Sequence[str]
) -> None:
    """Nothing shared, nothing measured, no file but the visitor's own; fonts of the visitor's system."""
    import gradio as gr
    from starlette.middleware import Middleware

    from manymask.serving.app import DESCRIPTION, STYLES, path_of, text_of
    from manymask.serving.guard import Departures, RequestGuard
    from manymask.serving.monitoring import Monitoring
    from manymask.serving.uploads import Uploads

    limits = sessions.limits
    threading.Thread(target=store.keep_sweeping, daemon=True).start()
    guards = [
        Middleware(RequestGuard, hosts=[host, *hosts]),
        Middleware(Monitoring, monitor=monitor),
        Middleware(Uploads, limit=limits.at_once * 1_000_000, store=store),
        Middleware(Departures, came=sessions.line.listen, left=sessions.line.leave),
    ]
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    theme = gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", radius_size="md", font=font, font_mono=["monospace"]
    ).set(body_text_color_subdued="#64748b", button_primary_background_fill="#0072b2",
          button_primary_background_fill_hover="#005a8e", button_primary_background_fill_dark="#0072b2",
          button_primary_background_fill_hover_dark="#005a8e", slider_color="#0072b2")  # fmt: skip
    page.launch(
        server_name=host, server_port=port, share=False, quiet=True, show_error=False, inbrowser=False,
        allowed_paths=[], max_file_size=f"{limits.upload}mb", state_session_capacity=20, enable_monitoring=False,
        ssr_mode=False, mcp_server=False, strict_cors=True, footer_links=["api"], theme=theme,
        favicon_path=path_of("favicon.svg"),
        head=f'<meta name="description" content="{DESCRIPTION}"><style>{text_of(*STYLES)}</style>',
        prevent_thread_lock=True, max_threads=limits.waiting + 24, app_kwargs={"middleware": guards},
    )  # fmt: skip
