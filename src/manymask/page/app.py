"""The page in the browser, and the same for programs: the office joined to components by Gradio (extra `app`)."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from manymask.errors import UserError
from manymask.files.picture import Picture
from manymask.page import desk
from manymask.page.desk import Opened
from manymask.page.office import SAMPLERS, Office, order_of, plainly, thumbnails

KEPT = 3600  # seconds: what a caller without a browser leaves behind goes after that
HEAD = """<header class="mm-head"><h1>manymask</h1><p>Many plausible outlines of one lesion: see where experts might
differ.</p><p class="mm-warning"><b>Research use only.</b> Not for diagnosis or treatment.</p></header>"""
FETCH = """(file) => { const link = document.createElement("a"); link.href = file.url;
link.download = file.orig_name || "manymask.zip"; document.body.append(link); link.click(); link.remove(); }"""
ENDED = "() => { window.dispatchEvent(new Event('manymask-ended')); }"


def text_of(name: str) -> str:
    """A file of the page's own."""
    return (files("manymask.page") / name).read_text(encoding="utf-8")


class Events:
    """What happens on the page. Every method answers with the values of the components that it is wired to."""

    def __init__(self, office: Office) -> None:
        self.office = office

    def _show(self, found: Opened | Picture, place: int, window: str, name: str) -> Any:
        """The image alone; what was drawn before is gone."""
        model = self.office.segmenter(name)
        shown = self.office.shown(found, place, window)
        count = 1 if isinstance(found, Picture) else len(found)
        slider = gr.update(maximum=max(2, count), value=place, visible=count > 1)
        return found, desk.preview(model, shown).value(), None, slider

    def drop(self, paths: list[str] | None, window: str, name: str, request: gr.Request) -> Any:
        with plainly(self.office.folder):
            mine = [Path(path) for path in paths or []]
            self.office.remember(request.session_hash, mine)
            found = desk.open_files(mine, self.office.limits)
            return (*self._show(found, (len(found) + 1) // 2, window, name), "")

    def example(self, window: str, name: str, event: gr.EventData) -> Any:
        with plainly(self.office.folder):
            _, picture = self.office.examples[int(event.number) % len(self.office.examples)]
            return (*self._show(picture, 1, window, name), "")

    def change(self, found: Opened | Picture | None, place: float, window: str, name: str) -> Any:
        """Another slice, window or model."""
        with plainly(self.office.folder):
            return gr.skip() if found is None else self._show(found, int(place), window, name)

    def pick(self, text: str, event: gr.EventData) -> str:
        """One more region of interest."""
        known = [part.strip() for part in (text or "").split(";") if part.strip()]
        return "; ".join([*known, f"{int(event.x)},{int(event.y)}"])

    def draw(self, found: Any, place: float, window: str, name: str, *wanted: Any) -> Iterator[Any]:
        with plainly(self.office.folder):
            if found is None:
                raise UserError("choose an image first: drop one, or pick an example")
            order = order_of(self.office.limits, *wanted)
            for scene, share, done in self.office.draw(found, int(place), window, name, order):
                yield scene.value(share), done

    def save(self, done: desk.Drawing | None, request: gr.Request, event: gr.EventData) -> str:
        with plainly(self.office.folder):
            if done is None:
                raise UserError("there is nothing to download yet: draw some masks first")
            return str(self.office.pack(done, float(event.threshold), event.form, request.session_hash))

    def leave(self, request: gr.Request) -> None:
        self.office.forget(request.session_hash)

    def segment(self, paths: Any, model: Any, samples: Any, seed: Any, sampler: Any, steps: Any, regions: Any,
                window: Any, slice_number: Any, threshold: Any, form: Any, request: gr.Request) -> Any:  # fmt: skip
        """Draws masks of an image (a list of files: one image, or the slices of a series); returns facts and a ZIP."""
        office = self.office
        with plainly(self.office.folder):
            mine = [Path(path) for path in paths or []]
            office.remember(request.session_hash, mine)
            order = order_of(office.limits, samples, seed, sampler, steps, regions)
            threshold = desk.check_threshold(threshold)
            found = desk.open_files(mine, office.limits)
            *_, (scene, _, done) = office.draw(found, desk.check_number(slice_number), window or "", model, order)
            archive = office.pack(done, threshold, form, request.session_hash)
            at = min(99, max(1, round(threshold * 100)))
            told = {"areas": scene.areas, "area_consensus": scene.curve[at], "agreement": scene.agreement}
            return {**done.facts, **told, "threshold": threshold, "saved_as": form}, str(archive)

    def models(self) -> dict[str, Any]:
        """The models by name: input size, channels, whether they need a region of interest, what they learnt from."""
        rows = {name: model.recipe for name, model in self.office.segmenters.items()}
        return {
            n: {"size": r.size, "channels": r.channels, "regions": r.crop, "data": r.dataset} for n, r in rows.items()
        }


def _controls(office: Office) -> SimpleNamespace:
    names, limits = list(office.segmenters), office.limits
    crops = any(model.recipe.crop for model in office.segmenters.values())
    own = next(iter(SAMPLERS))
    c = SimpleNamespace()
    c.dropped = gr.File(label="Image", file_count="multiple", height=150, elem_id="mm-upload")
    c.number = gr.Slider(1, 2, 1, step=1, label="Slice", visible=False, interactive=True)
    c.model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1, interactive=True)
    c.regions = gr.Textbox("", label="Where to look", info="Click on the image, or type X,Y; X,Y … in pixels.",
                           visible=crops, interactive=True, max_length=200, elem_id="mm-regions")  # fmt: skip
    c.samples = gr.Slider(1, limits.masks, 5, step=1, label="Masks", interactive=True)
    c.go = gr.Button("Draw masks", variant="primary", elem_id="mm-draw")
    c.stop = gr.Button("Stop", elem_id="mm-stop")
    with gr.Accordion("More settings", open=False):
        c.sampler = gr.Dropdown(list(SAMPLERS), value=own, label="Sampler", interactive=True)
        c.steps = gr.Number(0, label="Steps", info="0: the model's own number", precision=0, minimum=0, maximum=1000)
        c.seed = gr.Number(0, label="Seed", info="The same seed gives the same masks.", precision=0, minimum=0)
        c.window = gr.Dropdown(list(desk.WINDOWS), value=desk.WINDOWS[0], label="CT window", interactive=True)
    return c


def build(office: Office) -> Any:
    """The page as a Gradio application, not yet served."""
    with gr.Blocks(title="manymask", analytics_enabled=False, delete_cache=(60, KEPT)) as page:
        gr.HTML(HEAD, elem_id="mm-top")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                controls = _controls(office)
            with gr.Column(scale=3, min_width=300):
                controls.viewer = gr.HTML(
                    {}, html_template=text_of("page.html").replace("EXAMPLES", thumbnails(office.examples)),
                    js_on_load=text_of("page.js"), apply_default_css=False, elem_id="mm-viewer",
                )  # fmt: skip
        _wire(controls, Events(office), page)
    return page


def _asked_by_programs(office: Office) -> list[Any]:
    """The inputs of `/segment` after the files, in its order. Plain ones: what the page's own let pass depends on what
    the page shows, and what they refuse they refuse with a stack trace in the log."""
    first = {"model": next(iter(office.segmenters)), "samples": 5, "seed": 0, "sampler": next(iter(SAMPLERS)), "steps": 0,
             "regions": "", "window": desk.WINDOWS[0], "slice_number": 1, "threshold": 0.5, "form": "PNG"}  # fmt: skip
    return [
        gr.Textbox(value, visible=False) if isinstance(value, str) else gr.Number(value, visible=False)
        for value in first.values()
    ]


def _wire(c: SimpleNamespace, events: Events, page: Any) -> None:
    """Which event changes what. Whatever decodes or draws waits in one line, one at a time."""
    heavy: dict[str, Any] = {"concurrency_id": "drawing", "concurrency_limit": 1, "show_progress": "hidden"}
    private: dict[str, Any] = {"api_visibility": "private"}
    opened, drawing = gr.State(None, time_to_live=KEPT), gr.State(None, time_to_live=KEPT)
    archive, scene = gr.File(visible=False), [opened, c.viewer, drawing, c.number]
    c.dropped.upload(events.drop, [c.dropped, c.window, c.model], [*scene, c.regions], **heavy, **private)
    c.viewer.example(events.example, [c.window, c.model], [*scene, c.regions], **heavy, **private)
    for changed in (c.number.input, c.window.change, c.model.change):
        changed(
            events.change, [opened, c.number, c.window, c.model], scene, trigger_mode="always_last", **heavy, **private
        )
    c.viewer.pick(events.pick, c.regions, c.regions, queue=False, show_progress="hidden", **private)
    wanted = [c.samples, c.seed, c.sampler, c.steps, c.regions]
    inputs = [opened, c.number, c.window, c.model, *wanted]
    working = c.go.click(events.draw, inputs, [c.viewer, drawing], **heavy, **private)
    working.then(None, None, None, js=ENDED, **private)
    c.stop.click(None, None, None, cancels=[working], js=ENDED, **private)
    saved = c.viewer.save(events.save, drawing, archive, **heavy, **private)
    saved.success(None, archive, None, js=FETCH, **private)
    page.unload(events.leave)

    asked = [c.dropped, *_asked_by_programs(events.office)]
    told = [gr.JSON(visible=False), gr.File(visible=False)]
    gr.Button(visible=False).click(events.segment, asked, told, api_name="segment", **heavy)
    gr.api(events.models, api_name="models", queue=False)
