"""The model card: what a person should know before trusting a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from manymask.calibration.calibration import Calibration
from manymask.config import to_dict
from manymask.hub.provenance import Provenance
from manymask.recipes import Recipe, Stage


def write(recipe: Recipe, stage: Stage, provenance: Provenance, seen: int, licence: str, purpose: str = "") -> str:
    """Markdown with the metadata block that the Hugging Face Hub reads, in which `licence` is a tag. purpose: what the model
    is for, a sentence."""
    segmenter, own = to_dict(recipe.segmenter), provenance
    return f"""---
license: {licence}
library_name: manymask
pipeline_tag: image-segmentation
tags: [medical-image-segmentation, latent-diffusion, uncertainty]
---
# manymask {stage} for {own.data or recipe.dataset}

{_purpose(stage, purpose)}

| | |
|---|---|
| trained on | {own.data} ({own.data_hash}), split `{own.scheme}` |{_start(recipe, own)}
| training cases | {seen}, listed in `training_ids.txt` |
| licence of the data | {own.licence} |
| input | {recipe.channels} channel(s), {recipe.size}×{recipe.size}{", a region at native scale" if recipe.crop else ""} |
| recipe | `{segmenter["kind"]}`, in full in `config.json` |{_drawing(segmenter)}
| training | {own.minutes:.0f} minutes; the weights of step {own.steps} |
| on validation | {own.score or "not measured"} |
| code | revision {own.git or "unknown"} |

**Intended use.** Research on segmentation and on disagreement between experts. **Not** for diagnosis or treatment.

**Limits.** Of medical images it has seen {" and ".join(own.data_sets) or "one data set"} alone; those of other devices, sites or
patients may fail silently. The confidence map tells where the drawn masks disagree, not whether all of them are
wrong.{_of_crops(recipe)}

```python
from manymask import Segmenter

result = Segmenter.from_pretrained("THIS FOLDER").segment("image.png", samples=5, seed=0)
```
"""


def _start(recipe: Recipe, own: Provenance) -> str:
    """Rows on what the weights started from."""
    rows = [
        f"| started from | a model of {before.data} ({before.data_hash}), split `{before.scheme}`: {before.minutes:.0f} minutes; "
        f"revision {before.git or 'unknown'} |"
        for before in own.line[1:]
    ]
    rows += [f"| encoder | {recipe.encoder}, started from ImageNet |"] if recipe.encoder != "own" else []
    codecs = (("image codec", own.image_codec), ("mask codec", own.mask_codec))
    rows += [
        f"| {name} | {codec.minutes:.0f} minutes, the weights of step {codec.steps}{_taken(codec)}; "
        f"revision {codec.git or 'unknown'} |"
        for name, codec in codecs
        if codec is not None
    ]
    return "".join("\n" + row for row in rows)


def _taken(codec: Provenance) -> str:
    """Where a codec was before it was trained."""
    before = codec.parent
    return f", from that of an earlier model of {before.data} (revision {before.git or 'unknown'})" if before else ""


def _of_crops(recipe: Recipe) -> str:
    """The limit of a model of crops."""
    if not recipe.crop:
        return ""
    if recipe.margin:
        return (
            f" It was trained on regions of {recipe.size}² pixels with\nan object up to {recipe.margin} px off the middle, "
            "both ways: give it a point on the object (`--roi X,Y`)."
        )
    return " It was trained on regions with the object in the middle:\ngive it the middle of the object (`--roi X,Y`)."


def _drawing(segmenter: dict[str, Any]) -> str:
    orientations, share = segmenter.get("orientations", 1), segmenter.get("head_share", 0.0)
    facts = [f"spread over {orientations} flips and quarter turns of the image"] if orientations > 1 else []
    facts += [f"the auxiliary mask head has a share of {share:g} in each (`head_share`)"] if share else []
    shift = segmenter.get("presence_shift", 0.0)
    facts += [f"the logit of its presence is lowered by {shift:g} (`presence_shift`)"] if shift else []
    return f"\n| masks | {'; '.join(facts)} |" if facts else ""


def _purpose(stage: Stage, purpose: str) -> str:
    if stage == Stage.SEGMENTER:
        return (purpose + " " if purpose else "") + (
            "Draws several plausible masks for one image; their mean is a confidence map, the map at 0.5 the consensus."
        )
    return f"The {stage.replace('-', ' ')} of a latent diffusion segmenter: one of its two autoencoders."


NAMES = {
    "dice": "Dice of the consensus", "iou": "IoU", "hd95": "HD95, px, where neither mask is empty",
    "dice_all_raters": "Dice, all raters marked",
    "dice_majority": "Dice against the majority", "ged": "GED²", "ged_unbiased": "GED², unbiased", "hm_iou": "HM-IoU",
    "threshold_jaccard": "threshold Jaccard", "mean_dice_256": "Dice, mean over 256 cuts of the map",
    "ece": "ECE", "near_lesion": "ECE within 5 px of the raters' masks", "brier": "Brier",
    "psnr": "PSNR, dB", "ssim": "SSIM",
}  # fmt: skip
OF_CODECS = {"dice": "Dice of the reconstruction"}


BASELINES = {"disk": "a blind disk in the middle", "one_rater_against_the_others": "one rater against the others"}


def measured_section(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The scores on test as a section of the card: of several draws by the one model the mean and the range of their means,
    and the 95 % interval of the first."""
    lines = [
        "",
        "## Measured on test",
        "",
        "| | | mean over the draws | 95 % interval of the first | range over the draws |",
        "|---|---|---|---|---|",
    ]
    for stage, runs in metrics.items():
        scores = [_flat(run["metrics"]) for run in runs]
        lines += [row for name in NAMES if (row := _measured_row(stage, name, scores))]
    brief = metrics["segmenter"][0]
    for name, label in BASELINES.items():
        dice = brief.get("baselines", {}).get(name, {}).get("dice")
        if dice:
            lines.append(
                f"| {label}{_cases(dice, brief['metrics'])} | Dice | {dice['mean']:.4f} | {_interval(dice)} | |"
            )
    draws, data = len(metrics["segmenter"]), brief["data"]
    facts = f"split `{data['scheme']}`, {brief['metrics']['dice']['n']} cases, {brief['protocol']['samples']} masks, one training"
    facts += f", {draws} seeds of the draw" if draws > 1 else ", one seed of the draw"
    remark = f"Of this data set: {data['remark']}. " if data.get("remark") else ""
    if "ged" not in brief["metrics"]:
        remark += "One rater marked each image: whether the masks disagree as experts would is not tested. "
    revisions = ", ".join(dict.fromkeys(run["git"] for runs in metrics.values() for run in runs))
    return "\n".join([*lines, "", f"{facts}, scored by revision {revisions}. {remark}In full: `metrics.json`.", ""])


def _flat(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics with the ECE near the lesion, where it was measured, as one of its own."""
    near = metrics.get("ece", {}).get("near_lesion")
    return metrics if near is None else {**metrics, "near_lesion": {"mean": near}}


def _measured_row(stage: str, name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """A row of the table, empty where this was not measured."""
    if "mean" not in runs[0].get(name, ()):
        return ""
    means = [run[name]["mean"] for run in runs]
    seeds = f"{min(means):.4f} – {max(means):.4f}" if len(means) > 1 else ""
    label = (OF_CODECS if stage.endswith("codec") else NAMES).get(name, NAMES[name]) + _cases(runs[0][name], runs[0])
    return f"| {stage} | {label} | {sum(means) / len(means):.4f} | {_interval(runs[0][name])} | {seeds} |"


def _interval(value: Mapping[str, Any]) -> str:
    return f"{value['low']:.3f} – {value['high']:.3f}" if "low" in value else ""


def _cases(value: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Over how many cases a mean is, where these are not all, and how many a surface distance cannot rate."""
    every = metrics.get("dice", {}).get("n")
    if not every or value.get("n", every) == every:
        return ""
    kinds = (("missed", "answered with nothing"), ("false", "answered where nothing is"))
    unrated = "".join(f"; {value[kind]} {said}" for kind, said in kinds if value.get(kind))
    return f" ({value['n']} of {every}{unrated})"


CALIBRATED = "## Calibrated"


def calibrated_section(found: Calibration) -> str:
    """What a calibration promises, as a section of the card."""
    origin, quality = found.origin, found.held_out
    rows = [
        f"| at most {100 * risk.alpha:g} % | {_threshold(risk.outer)} | {_threshold(risk.inner)} |"
        for risk in found.risks
    ]
    n = len(origin.cases)
    lines = [
        "", CALIBRATED, "",
        f"On {n} cases of {origin.groups} groups ({origin.data}, {origin.data_hash}, `{origin.split}` of split "
        f"`{origin.scheme}`), {origin.sampling['samples']} masks each; {origin.failures} of them had a Dice below 0.7. "
        "The promises hold on average for images like these, drawn in the same way.",
        "",
        "| expected share of pixels | outer outline: missed, confidence from | inner outline: false, confidence from |",
        "|---|---|---|", *rows, "",
    ]  # fmt: skip
    if quality.get("presence_auroc") is not None:
        lines += [
            f"Presence was calibrated with {quality['n_without']} {quality['without']}, of {quality['n']}; on those left out it "
            f"tells them from the others with an AUROC of {quality['presence_auroc']:.3f}.",
            "",
        ]
    return "\n".join([*lines, *(line for note in found.notes for line in (note, ""))])


def _threshold(value: float) -> str:
    return "nothing" if value > 1 else "the whole image" if value == 0 else f"{value:.4g}"


def with_calibration(card: str, found: Calibration) -> str:
    """A card whose section on calibration is replaced, or added at the end."""
    before, _, after = card.partition("\n" + CALIBRATED + "\n")
    _, heading, rest = after.partition("\n## ")
    return before.rstrip("\n") + "\n" + calibrated_section(found) + (heading + rest if heading else "")
