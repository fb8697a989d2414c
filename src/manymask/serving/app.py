"""The page in the browser, and the same for programs: the sessions joined to components by Gradio (extra `app`)."""

from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from manymask.serving import service
from manymask.serving.events import Events, detail_choices
from manymask.serving.examples import about, cards, first_model, label
from manymask.serving.session import OWN_SAMPLER, SessionManager, sampler_labels
from manymask.serving.uploads import KEPT

DESCRIPTION = "Many plausible outlines of one lesion: see where experts might differ."
HEAD = f"""<header class="mm-head"><h1>manymask</h1><p>{DESCRIPTION}</p>
<p class="mm-warning"><b>Research use only.</b> Not for diagnosis or treatment.</p></header>"""
FETCH = """(file) => { const link = document.createElement("a"); link.href = file.url;
link.download = file.orig_name || "manymask.zip"; document.body.append(link); link.click(); link.remove();
window.dispatchEvent(new Event("manymask-saved")); }"""
ENDED = "() => { window.dispatchEvent(new Event('manymask-ended')); }"
STYLES = ("layout.css", "viewer.css", "result.css", "strip.css", "list.css")
VIEWER = ("ink.js", "state.js", "camera.js", "paint.js", "regions.js", "brush.js", "promises.js", "areas.js", "edits.js",
          "save.js", "page.js", "files.js")  # fmt: skip
CAUTION = "Windows show small things. But the model may find a lesion in each, and nothing is promised."
NOT_CHOSEN = "Choose what the image shows."
LIST_ENDED = ENDED.replace("ended", "list-ended")


def text_of(*names: str) -> str:
    """Files of the page's own, one after the other."""
    return "".join(path_of(name).read_text(encoding="utf-8") for name in names)


def path_of(name: str) -> Path:
    """Where a file of the page's own lies."""
    return Path(str(files("manymask.serving") / "static" / name))


def _html(name: str, template: str, *scripts: str) -> Any:
    """A part of the page with markup and scripts of its own."""
    return gr.HTML({}, html_template=template, js_on_load=text_of(*scripts), apply_default_css=False, elem_id=name)


def _controls(sessions: SessionManager) -> SimpleNamespace:
    models, limits = sessions.segmenters, sessions.limits
    first = first_model(models)
    names = [(label(name, model), name) for name, model in models.items()]
    c = SimpleNamespace()
    c.dropped = gr.File(label="Image, or the files of a series", file_count="multiple", height=150, elem_id="mm-upload")
    with gr.Group(elem_id="mm-choice"):
        c.model = gr.Dropdown(names, value=first, label="Model", visible=len(names) > 1, interactive=True)
        c.number = gr.Slider(1, 2, 1, step=1, label="Slice", visible=False, interactive=True)
    c.about = gr.HTML(about(models[first]) if first else f"<p>{NOT_CHOSEN}</p>", elem_id="mm-about")
    c.regions = gr.Textbox("", label="Where to look", info="Click on the image, × removes; or type X,Y; X,Y … in pixels.",
                           visible=bool(first and models[first].recipe.crop), interactive=True, max_length=200,
                           elem_id="mm-regions")  # fmt: skip
    c.tile = gr.Dropdown(
        detail_choices(), value=0, label="Detail", visible=False, interactive=True, elem_id="mm-detail", info=CAUTION
    )
    c.samples = gr.Slider(1, limits.masks, 5, step=1, label="Masks", info=f"At most {limits.masks}.", interactive=True)
    c.go = gr.Button("Draw masks", variant="primary", elem_id="mm-draw")
    with gr.Accordion("More settings", open=False):
        c.sampler = gr.Dropdown(sampler_labels(models), value=OWN_SAMPLER, label="Sampler", interactive=True)
        c.steps = gr.Number(0, label="Steps", info="0: the model's own number", precision=0, minimum=0, maximum=1000)
        c.seed = gr.Number(0, label="Seed", info="The same seed gives the same masks.", precision=0, minimum=0)
        c.window = gr.Dropdown(list(service.WINDOWS), value=service.WINDOWS[0], label="CT window", interactive=True)
    return c


def build(sessions: SessionManager) -> Any:
    """The page as a Gradio application, not yet served."""
    with gr.Blocks(title="manymask", fill_width=True, analytics_enabled=False, delete_cache=(60, KEPT)) as page:
        gr.HTML(HEAD, elem_id="mm-top")
        with gr.Row(elem_id="mm-page"):
            with gr.Column(elem_id="mm-controls"):
                controls = _controls(sessions)
            with gr.Column(elem_id="mm-view"):
                controls.strip = _html("mm-strip", text_of("strip.html"), "strip.js")
                controls.list = _html("mm-list", text_of("list.html"), "list.js")
                template = text_of("viewer.html").replace("EXAMPLES", cards(sessions.segmenters, sessions.examples))
                controls.viewer = _html("mm-viewer", template, *VIEWER)
        _wire(controls, Events(sessions), page)
    return page


def _asked_by_programs(sessions: SessionManager) -> list[Any]:
    """The inputs of `/segment` after the files, in its order. Plain ones: what the page's own let pass depends on what
    the page shows, and what they refuse they refuse with a stack trace in the log."""
    first = {"model": next(iter(sessions.segmenters)), "samples": 5, "seed": 0, "sampler": OWN_SAMPLER, "steps": 0,
             "regions": "", "window": service.WINDOWS[0], "slice_number": 1, "threshold": 0.5, "form": "PNG",
             "left_out": "", "accepted": "", "tile": 0}  # fmt: skip
    return [
        gr.Textbox(value, visible=False) if isinstance(value, str) else gr.Number(value, visible=False)
        for value in first.values()
    ]


def _wire(c: SimpleNamespace, events: Events, page: Any) -> None:
    """Which event changes what. Drawings wait in the sessions's own line; opening and saving never wait for them."""
    light: dict[str, Any] = {"concurrency_id": "opening", "concurrency_limit": 2, "show_progress": "hidden"}
    heavy: dict[str, Any] = {"concurrency_id": "drawing", "concurrency_limit": None, "show_progress": "hidden"}
    private: dict[str, Any] = {"api_visibility": "private"}
    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", **private}
    opened, drawing = gr.State(None, time_to_live=KEPT), gr.State(None, time_to_live=KEPT)
    counts: dict[str, Any] = {**light, "concurrency_id": "counting", "trigger_mode": "always_last"}
    archive, scene = gr.File(visible=False), [opened, c.viewer, drawing, c.number, c.regions, c.tile]
    everything = [*scene, c.list, c.strip]
    inputs = [opened, c.number, c.window, c.model, c.samples, c.seed, c.sampler, c.steps, c.regions, c.tile]

    dropped = c.dropped.upload(events.drop, [c.dropped, c.window, c.model], everything, **light, **private)
    for ended in (dropped.success, dropped.failure):  # refused or not: the next drop replaces
        ended(None, None, c.dropped, js="() => null", **private)
    chosen = c.viewer.example(events.example, c.window, [*everything, c.model], **light, **private)
    one_of = (
        {"inputs": [opened, c.window, c.model, c.tile], "outputs": scene, "trigger_mode": "always_last"}
        | light
        | private
    )
    changed = {"inputs": inputs[:4], "outputs": [*scene, c.list], "trigger_mode": "always_last"} | light | private
    c.window.input(events.change, **changed)
    picked = c.model.input(events.change, **changed)
    rows, thumbnails = c.list.choose(events.choose, **one_of), c.strip.choose(events.choose, **one_of)
    c.strip.thumbnails(events.thumbnails, [opened, c.window], c.strip, **light, **private)
    for begun in (dropped.success, chosen.success, rows.success, thumbnails.success):
        begun(events.draw_at_once, inputs, [c.viewer, drawing], **heavy, **private).then(None, js=ENDED, **private)
    picked.success(events.draw_chosen, inputs, [c.viewer, drawing], **heavy, **private).then(None, js=ENDED, **private)
    c.number.input(events.turn, [*inputs[:4], c.tile], scene, trigger_mode="always_last", **light, **private)
    c.model.change(events.about, c.model, c.about, **at_once)
    c.viewer.remove(events.remove, c.model, everything, **at_once)
    settings = [opened, c.window, c.model, c.samples, c.seed, c.sampler, c.steps, c.tile]
    c.list.all(events.draw_all, settings, c.list, **heavy, **private).then(None, js=LIST_ENDED, **private)
    c.list.stop(events.stop_all, None, None, **at_once)
    c.viewer.pick(events.pick, None, c.regions, trigger_mode="multiple", **at_once)
    c.go.click(events.draw, inputs, [c.viewer, drawing], **heavy, **private).then(None, js=ENDED, **private)
    c.viewer.stop(events.stop, None, None, **at_once)
    c.viewer.recount(events.recount, drawing, c.viewer, **counts, **private)
    saved = c.viewer.save(events.save, drawing, archive, **light, **private)
    saved.success(None, archive, None, js=FETCH, **private)
    page.unload(events.leave)

    asked = [c.dropped, *_asked_by_programs(events.sessions)]
    told = [gr.JSON(visible=False), gr.File(visible=False)]
    gr.Button(visible=False).click(events.segment, asked, told, api_name="segment", **heavy)
    gr.Button(visible=False).click(
        events.triage, [*asked[:6], asked[7], asked[-1]], gr.JSON(visible=False), api_name="triage", **heavy
    )
    gr.api(events.models, api_name="models", queue=False)
