"""`triage`: which results of a folder to look at first."""

from pathlib import Path
from typing import Annotated

import tyro

from manymask.choices import SamplerName
from manymask.cli import flags
from manymask.cli.inputs import chosen_model, found_entries, tally_of
from manymask.cli.wording import at_least_one
from manymask.errors import ConfigError


def triage(
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, flags.IMAGES],
    /,
    *,
    model: Annotated[str | None, flags.MODEL] = None,
    out: Annotated[Path, flags.OUT] = Path("review"),
    budget: str | None = None,
    find: float | None = None,
    export: int = 0,
    samples: Annotated[int, flags.SAMPLES] = 5,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> int:
    """Segment a folder of images and list the results, the most doubtful first, with what a review is expected to find.

    The promise needs a calibrated model (`manymask calibrate`); without one, images are sorted by how little their masks
    agree. Results that are there already are not drawn again, so the same command resumes.

    Args:
        inputs: a folder of images, or what else `segment` takes.
        model: as `segment` takes it.
        out: gets triage.html, triage.csv and triage.json, and one folder for each image.
        budget: how many images can be reviewed: a number (12), or a share of all (0.1); a tenth unless `find` says more.
        find: the share of the failures to find, such as 0.9: says how many images must be reviewed for it.
        export: write so many of the most doubtful images with proposed masks to OUT/labelling, which `prepare folder` reads
            once the masks are corrected.
        samples: how many masks are drawn; a calibration holds for one number alone.
        sampler: the model's own if not given.
        steps: of the sampler; the model's own number if not given.
        seed: the same seed gives the same masks.
    """
    from manymask.diffusion.sampling import SamplingConfig
    from manymask.hub.model_folder import load_model
    from manymask.inference.batch import carry_out
    from manymask.inference.jobs import count_of
    from manymask.inference.labelling import export_labelling
    from manymask.inference.request import Request
    from manymask.inference.review import parse_budget
    from manymask.inference.segmenter import Segmenter
    from manymask.inference.triage import CSV, PAGE, TriageRun

    _check(model, out, samples, find, export)
    allowed = None if budget is None else parse_budget(budget)
    tally = tally_of(triage)
    entries = found_entries(inputs, tally)
    if not entries:
        return 2
    segmenter = Segmenter(load_model(chosen_model(model, entries)), images=count_of(entries) or 1)
    sampling = SamplingConfig(sampler, steps)
    segmenter.model.resolve(sampling)
    run = TriageRun(segmenter, Request(out, samples, seed, sampling), tally, budget=allowed, find=find)
    carry_out(run, entries)
    print("\n".join([*tally.lines(out), *run.lines()]))
    if run.ranked:
        print(f"{PAGE}, {CSV} → {out}")
    if export and run.ranked:
        folder = export_labelling(run, entries, [Path(text) for text in inputs], export)
        print(f"{min(export, len(run.ranked))} image(s) with proposed masks → {folder}")
    return 2 if tally.failed else 0


def _check(model: str | None, out: Path, samples: int, find: float | None, export: int) -> None:
    from manymask.hub.catalogue import find_model

    at_least_one("--samples", samples)
    if export < 0:
        raise ConfigError(f"--export must be at least 0, not {export}")
    if find is not None and not 0 < find <= 1:
        raise ConfigError(f"--find must lie above 0 and be at most 1, not {find}")
    if model is not None:
        find_model(model)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out names a folder")
