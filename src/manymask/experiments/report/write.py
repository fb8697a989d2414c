"""`manymask report`: results → report.md with its tables (CSV beside) and figures (PNG)."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.errors import ConfigError, InputError
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.experiments.figures import FIGURES, draw_figures
from manymask.experiments.matrix import SHARES
from manymask.experiments.report import paper
from manymask.experiments.report.collect import Experiment, collect
from manymask.experiments.report.gpu import FILE as GPU_FILE
from manymask.experiments.report.gpu import gpu_section
from manymask.experiments.report.plots import all_plots
from manymask.experiments.report.promises import draw_promises
from manymask.experiments.report.tables import all_tables
from manymask.extras import require_figures
from manymask.hub.model_folder import load_model
from manymask.io.atomic import atomic_file, check_place
from manymask.io.text import read_text
from manymask.models.latent_diffusion import DiffusionSegmenter

TITLE = "# Report"
FILES = "<!-- files: "  # a line of report.md that nobody sees; it names the files beside it
CAPTIONS = (
    "Figure 1: the forward process in latent space. Above, the mask's latent under more and more noise; below, decoded",
    "Figure 2: the pipeline. Image, latent, noises, latents, masks, confidence, consensus",
    "Figure 4: image, truth, two masks, the mean of five at 0.5, confidence",
)


def write_report(runs: Sequence[Path], out: Path, model: Path | str | None = None, data: Path | None = None) -> Path:
    """Fills `out` from what `reproduce` left in `runs` and returns report.md. Figures 1, 2 and 4 are drawn from `model` on
    `data` where given, else taken from the runs; never from data whose licence forbids it. A folder that holds the check
    of a GPU adds its section."""
    require_figures()
    experiments = collect(runs, lambda line: print(f"manymask: {line}", file=sys.stderr))
    checks = [line for run in runs if (run / GPU_FILE).exists() for line in gpu_section(run / GPU_FILE)]
    check_place(out, {})
    before = _files_of_before(out)
    parts, files = _experiments(experiments, out, model, data) if experiments else ([], [])
    named = [f"{FILES}{', '.join(files)} -->", ""] if files else []
    _write(out / "report.md", "\n".join([TITLE, "", *named, *parts, *checks]))
    for name in set(before) - set(files):
        (out / name).unlink(missing_ok=True)  # its table or figure is not in the report any more
    return out / "report.md"


def _files_of_before(out: Path) -> list[str]:
    """The tables and figures of an earlier report in this folder; `InputError` where report.md is none of ours."""
    path = out / "report.md"
    text = read_text(path) if path.exists() else TITLE
    if text.partition("\n")[0] != TITLE:
        raise InputError(f"{path} exists already: remove it or name another place", path=path)
    names = text.partition(FILES)[2].partition(" -->")[0].split(", ")
    return [name for name in names if name == Path(name).name and Path(name).suffix in (".csv", ".png")]


def _experiments(
    experiments: list[Experiment], out: Path, model: Path | str | None, data: Path | None
) -> tuple[list[str], list[str]]:
    """Settings, failures, tables, figures and notes; and the names of the files beside them."""
    parts = [*[line for e in experiments for line in _setting(e)], *_failures(experiments)]
    tables, files = all_tables(experiments), list[str]()
    for table in tables:
        if not table.blank:
            _write(out / f"{table.name}.csv", table.csv())
            files.append(f"{table.name}.csv")
            parts.append(table.markdown())
    blank = [f"- {table.title}" for table in tables if table.blank]
    parts += ["### Not run", "", *blank, ""] if blank else []
    parts += ["## Figures", ""]
    if model is not None and data is not None:
        drawn = _from_model(model, Store(data), out)
    else:
        drawn = {name: title for e in experiments for name, title in _from_run(e, out).items()}
    if not drawn:
        parts += ["Figures 1, 2 and 4: not run (or of data whose licence forbids passing pictures on).", ""]
    for name, title in {**drawn, **all_plots(experiments, out), **_promises(experiments, out)}.items():
        files.append(name)
        parts += [f"![{title}]({name})", "", f"*{title}.*", ""]
    return [*parts, "## Notes", "", *[f"- {note}" for note in paper.NOTES], ""], files


def _write(path: Path, content: str) -> None:
    with atomic_file(path) as beside:
        beside.write_text(content, encoding="utf-8")


def _setting(e: Experiment) -> list[str]:
    """What the figures of an experiment were made with."""
    data, budget = e.facts["data"], e.facts["budget"]
    time = "all steps of its recipe" if budget["minutes"] is None else f"{budget['minutes']:g} minutes of wall time"
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in SHARES.items())
    done = next((found for found in e.tasks() if found.status == "done"), None)
    machine = done.result["hardware"] if done else {}
    where = f"{machine.get('gpu') or machine.get('processor')}, {machine.get('threads')} threads, torch {machine.get('torch')}"
    cases = len(done.result["cases"]) if done else 0
    return [
        f"## {e.name}", "",
        f"- data: {data['name']} at {data['size']}², split `{data['scheme']}`, {data['hash']}. {data['remark']}".rstrip(),
        f"- every model gets {time}, its codecs included ({shares}; what it does not train falls to the rest); a codec that "
        "several share is trained once and charged to each",
        f"- scored on {cases} test cases, {budget['samples']} masks, DDIM with {budget['steps']} steps (flow: Euler), seed 0; "
        "95 % intervals from 2,000 bootstrap draws of whole groups",
        f"- {where if done else 'nothing was run'}; {e.facts['precision']} in training, "
        f"{_revisions(e)}",
        "- `failed`, `damaged`: see below; `–`: there is no such figure; what was not run is named below its table", "",
    ]  # fmt: skip


def _revisions(e: Experiment) -> str:
    """The code that trained and scored: one revision each, or all that had a part in it."""
    found = [task.result for task in e.tasks() if task.status == "done"]

    def named(revisions: set[str | None]) -> str:
        return ", ".join(sorted(revision or "outside a checkout" for revision in revisions)) or "nothing yet"

    return f"trained by {named({r['training']['git'] for r in found})}, scored by {named({r['git'] for r in found})}"


def _failures(experiments: Sequence[Experiment]) -> list[str]:
    failed = [task for e in experiments for task in e.tasks() if task.status in ("failed", "damaged")]
    lines = [f"- `{task.folder.parent.parent.name}/{task.folder.name}`: {task.error}" for task in failed]
    return ["## Failed", "", *lines, ""] if lines else []


def _promises(experiments: Sequence[Experiment], out: Path) -> dict[str, str]:
    """A figure of each main model that was calibrated."""
    found = {}
    for e in experiments:
        promises = e.main().get("promises")
        if isinstance(promises, dict) and "why_not" not in promises:
            name = f"promises-{e.name}.png"
            draw_promises(promises, out / name)
            found[name] = (
                f"What the main model, calibrated on validation, promises against what happened on test, {e.name}"
            )
    return found


def _from_run(e: Experiment, out: Path) -> dict[str, str]:
    """Figures 1, 2 and 4 as the main model's process drew them."""
    found = {}
    for name, caption in zip(FIGURES, CAPTIONS, strict=True):
        path = e.main().folder / "figures" / name
        if path.exists():
            target = f"{Path(name).stem}-{e.name}.png"
            shutil.copyfile(path, out / target)
            found[target] = f"{caption} ({e.name})"
    return found


def _from_model(model: Path | str, store: Store, out: Path) -> dict[str, str]:
    trained = load_model(model)
    store = matched_store(trained.recipe, store)
    ids = held_out_cases(trained, store, "test")
    if not isinstance(trained.model, DiffusionSegmenter):
        raise ConfigError(f"{model} is no diffusion model: Figures 1, 2 and 4 show how one draws", path=model)
    drawn = draw_figures(trained.model, store, evenly_spaced(ids, 4), out)
    whose = f"{store.name}, by the model {trained.name}, which is none of the above"
    return {path.name: f"{caption} ({whose})" for path, caption in zip(drawn, CAPTIONS, strict=False)}
