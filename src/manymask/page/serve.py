"""`manymask serve`: loads the models, keeps the visitors' files in a folder that goes with the server."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from manymask.errors import UserError
from manymask.hub import Segmenter
from manymask.page.desk import Limits
from manymask.page.office import Office


def serve(models: Sequence[Path], host: str, port: int, limits: Limits) -> None:
    """Serves until interrupted; what visitors left is removed at the end."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    loaded = {_name(folder): Segmenter.from_pretrained(str(folder)) for folder in models}
    with tempfile.TemporaryDirectory(prefix="manymask-") as work:
        os.environ["GRADIO_TEMP_DIR"] = work
        try:
            import gradio as gr

            from manymask.page.app import build, text_of
        except ImportError:
            raise UserError("the page needs Gradio: pip install 'manymask[app]'") from None
        with suppress(ValueError):  # only the main thread may
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        page = build(Office(loaded, limits, Path(work).resolve()))
        page.queue(max_size=limits.waiting, default_concurrency_limit=1, api_open=False)
        font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
        theme = gr.themes.Base(
            primary_hue="blue",
            neutral_hue="slate",
            radius_size="md",
            font=font,
            font_mono=["ui-monospace", "monospace"],
        )
        print(f"manymask: http://{host}:{port} ({', '.join(loaded)}); end with Ctrl+C", flush=True)
        try:
            page.launch(
                server_name=host, server_port=port, share=False, quiet=True, show_error=False, inbrowser=False,
                allowed_paths=[], max_file_size=f"{limits.upload}mb", state_session_capacity=200, enable_monitoring=False,
                ssr_mode=False, mcp_server=False, strict_cors=True, footer_links=["api"], css=text_of("page.css"), theme=theme,
                prevent_thread_lock=True,
            )  # fmt: skip
            threading.Event().wait()
        except OSError as error:
            raise UserError(f"{host}:{port} cannot be served ({error}): choose another --port") from None
        finally:
            page.close(verbose=False)


def _name(folder: Path) -> str:
    """What a model is called on the page."""
    return folder.resolve().name
