"""The verbs. Each is a function whose annotations are its flags (tyro); what a user did wrong ends in one line and 2."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from manymask.errors import UserError, at_least_one
from manymask.experiment_verbs import publish, report, reproduce


def prepare(
    recipe: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Path,
    source: Path | None = None,
    mask_threshold: int | None = None,
    size: int | None = None,
    whole_slices: bool = False,
) -> None:
    """Turn an official distribution (or a folder of images/ and masks/) into a prepared store.

    Args:
        recipe: whose data set, size and channels are used; see `manymask recipes`.
        out: where the store is written; must not exist yet.
        source: the folder as downloaded and unpacked (the phantom needs none).
        mask_threshold: cut masks that are not black and white at this value.
        size: side of the prepared images in pixels; the recipe's if not given.
        whole_slices: of LIDC-IDRI's DICOM, whole slices in place of a crop around each nodule.
    """
    from manymask import recipes
    from manymask.data.store import prepare as write_store

    at_least_one("--size", size)
    row = recipes.recipe(recipe)
    if source is None and row.dataset != "phantom":
        raise UserError(f"{recipe} needs --source, the folder of the data set as downloaded")
    if whole_slices and row.dataset != "lidc_idri":
        raise UserError(f"--whole-slices is for lidc_idri; {row.dataset} has no slices")
    choice = {"whole": True} if whole_slices else {}
    found = recipes.READERS[row.dataset](source, row.channels, mask_threshold, **choice)
    store = write_store(found, out, size or row.size, row.channels)
    for name, scheme in store.manifest["schemes"].items():
        print(f"split {name}: " + ", ".join(f"{len(ids)} {part}" for part, ids in scheme.items()))
    print(f"{len(store.ids)} cases, {store.readers} reader(s), {store.hash} → {out}")


def train(arguments: list[str]) -> None:
    """`manymask train RECIPE STAGE --data DIR --run DIR …`: the flags depend on the recipe's own settings."""
    from manymask import recipes
    from manymask.train import TrainOptions, train_stage

    usage = f"usage: manymask train RECIPE {{{'|'.join(recipes.STAGES)}}} --data DIR --run DIR"
    usage += " (add --help after the stage for every setting)"
    if {"-h", "--help"} & set(arguments[:2]):
        print(usage)
        return
    if len(arguments) < 2:
        raise UserError(usage)
    name, stage, *rest = arguments
    if stage not in recipes.STAGES:
        raise UserError(f"{stage!r} is no stage; {usage}")
    row = recipes.recipe(name)
    options = tyro.cli(
        TrainOptions,
        prog=f"manymask train {name} {stage}",
        args=rest,
        default=TrainOptions(data=tyro.MISSING, run=tyro.MISSING, recipe=row),
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    print(f"model → {train_stage(options, stage)}")


SamplerName = Literal["ddpm", "ddim", "plms", "dpm-solver", "euler", "heun"]


def _sampler(name: SamplerName | None, steps: int | None, model: Any) -> Any:
    """The sampler asked for; see `manymask.samplers.choose`."""
    from manymask.samplers import choose

    return choose(name, steps, model)


def segment(
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional],
    /,
    *,
    model: Path,
    out: Path,
    samples: int = 5,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    seed: int = 0,
    threshold: float = 0.5,
    roi: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    window: str | None = None,
    anonymise: bool = False,
    store: bool = True,
) -> int:
    """Draw several masks for each image; write them with confidence, consensus and overlay, for DICOM as SEG too.

    Args:
        inputs: PNG, JPEG, TIFF, BMP, DICOM or NIfTI files, folders of them, or the DICOMweb address of a series
            (https://HOST/dicom-web/studies/UID/series/UID).
        model: a model folder, or a run folder.
        out: gets one folder for each image, and one for each series or volume.
        samples: how many masks are drawn.
        sampler: the model's own if not given.
        steps: of the sampler, 1 … 1000; the model's own number if not given.
        seed: the same seed gives the same masks.
        threshold: where the confidence map is cut into the consensus.
        roi: X,Y, the centre of a region in pixels from the top left, for a model of crops; give it several times for
            several regions.
        window: lung, mediastinum, bone, header, full or CENTRE,WIDTH: through which grey values people look, and a
            model that has no window of its own.
        anonymise: leave out of all that is written what tells who the patient is.
        store: put the SEGs of a DICOMweb series into its study.
    """
    from manymask import inference
    from manymask.files.anonymise import Anonymiser
    from manymask.files.window import parse_window
    from manymask.hub import Segmenter, load_model

    _check_segment(model, out, samples, threshold)
    rois, shown = [inference.parse_roi(text) for text in roi], parse_window(window) if window else None
    entries = inference.find_entries(inputs)
    archives = [entry for entry in entries if isinstance(entry, inference.ArchiveSeries)]
    if anonymise and store and archives:
        raise UserError("an anonymous SEG belongs to no study of the archive: add --no-store to --anonymise")
    segmenter = Segmenter(load_model(model))
    chosen, anonymiser = _sampler(sampler, steps, segmenter.model), Anonymiser() if anonymise else None
    request = inference.Request(out, samples, seed, chosen, threshold, rois, shown, anonymiser, store)
    tally = inference.segment_all(segmenter, entries, request)
    print(f"{tally.done} of {tally.done + tally.failed} image(s) segmented → {out}")
    if archives and store:
        print(f"{tally.stored} SEG object(s) stored in the archive")
    return 2 if tally.failed else 0


def _check_segment(model: Path, out: Path, samples: int, threshold: float) -> None:
    at_least_one("--samples", samples)
    if not 0 < threshold < 1:
        raise UserError(f"--threshold must lie between 0 and 1, not {threshold}")
    if not model.exists():
        raise UserError(f"{model}: no such model folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out names a folder")


def evaluate(
    *,
    model: Path,
    data: Path,
    out: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    samples: int = 5,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> None:
    """Score a model on a part of the split it was trained with; print a table, leave results.json and a figure.

    Args:
        model: a model folder, or a run folder.
        data: the prepared store.
        out: gets results.json and figure.png.
        split: the part; cases that the model was trained on are refused unless it is `train`.
        samples: how many masks make the consensus.
        sampler: the model's own if not given.
        steps: of the sampler; the model's own number if not given.
        seed: of the drawn masks.
        limit: score the first so many cases only.
    """
    from rich.console import Console

    from manymask.data.store import Store
    from manymask.evaluate import Protocol, held_out_cases, results
    from manymask.evaluate import evaluate as score
    from manymask.files.atomic import write_json
    from manymask.hub import load_model
    from manymask.show import draw_batch, metrics_table

    at_least_one("--samples", samples)
    at_least_one("--limit", limit)
    trained, store = load_model(model), Store(data)
    protocol = Protocol(samples, seed=seed, sampler=_sampler(sampler, steps, trained.model))
    ids = held_out_cases(trained, store, split)[:limit]
    scores = score(trained.model, store, ids, protocol)
    found = results(trained, store, split, protocol, scores)
    title = f"{store.name} · {split} of split {found['data']['scheme']} · {len(ids)} cases · {samples} masks"
    Console().print(metrics_table(scores.metrics, title))
    for name, value in scores.baselines.items():
        Console().print(metrics_table(value, f"on the same cases: {name.replace('_', ' ')}"))
    if out is not None:
        write_json(out / "results.json", found)
        few = ids[:: max(1, len(ids) // 6)][:6]
        draw_batch(trained.model, store.batch(few), out / "figure.png", min(samples, 8), seed, protocol.sampler)
        print(f"results.json and figure.png → {out}")


def list_recipes() -> None:
    """What can be trained, and what each row differs in."""
    from rich.console import Console

    from manymask.show import recipes_table

    Console().print(recipes_table())


def demo(*, out: Path = Path("demo"), minutes: float = 4.0, seed: int = 0) -> None:
    """The whole way on the built-in phantom set: prepare, train, segment, evaluate. Minutes on a CPU.

    Args:
        out: gets figure.png, results.json and model/.
        minutes: of training, for all models together.
        seed: of the drawn masks.
    """
    from manymask.demo import run

    run(out, minutes, seed)


def serve(
    *,
    model: tuple[Path, ...],
    host: str = "127.0.0.1",
    port: int = 7860,
    max_megabytes: int = 200,
    max_megapixels: float = 25,
    max_waiting: int = 20,
) -> None:
    """The web page, and the same over HTTP: drop an image, watch the masks come, move the threshold, download.

    Args:
        model: one model folder or more.
        host: who can reach it: 127.0.0.1 is this computer alone, 0.0.0.0 the network. There is no password.
        port: the page's.
        max_megabytes: of one uploaded file.
        max_megapixels: million pixels of one image.
        max_waiting: how many may wait in line; who comes after them is asked to come again.
    """
    from manymask.page.desk import Limits
    from manymask.page.serve import serve as serve_page

    for folder in model:
        if not folder.exists():
            raise UserError(f"{folder}: no such model folder")
    serve_page(model, host, port, Limits(upload=max_megabytes, megapixels=max_megapixels, waiting=max_waiting))


def main() -> None:
    """The entry point: 0 done, 2 a mistake of the user's, 130 interrupted."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    verbs: dict[str, Any] = {
        "prepare": prepare,
        "segment": segment,
        "evaluate": evaluate,
        "publish": publish,
        "serve": serve,
        "recipes": list_recipes,
        "demo": demo,
        "reproduce": reproduce,
        "report": report,
    }
    try:
        if sys.argv[1:2] == ["train"]:
            train(sys.argv[2:])
        else:
            described: dict[str, Any] = {**verbs, "train": _train_help}
            code: Any = tyro.extras.subcommand_cli_from_dict(
                described, prog="manymask", description="Draw many plausible masks for one medical image."
            )
            sys.exit(code or 0)
    except UserError as error:
        print(f"manymask: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a place that cannot be written: theirs to mend, and said in a line
        print(f"manymask: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("manymask: interrupted", file=sys.stderr)
        sys.exit(130)


def _train_help() -> None:
    """Train a stage: RECIPE {image-codec|mask-codec|segmenter} --data DIR --run DIR; resumes by itself."""


if __name__ == "__main__":
    main()
