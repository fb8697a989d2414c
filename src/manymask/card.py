"""The model card: what a person should know before trusting a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from manymask.provenance import Provenance
from manymask.recipes import Recipe, Stage
from manymask.settings import to_dict


def write(recipe: Recipe, stage: Stage, provenance: Provenance, seen: int, licence: str) -> str:
    """Markdown with the metadata block that the Hugging Face Hub reads, in which `licence` is a tag."""
    segmenter, own = to_dict(recipe.segmenter), provenance
    return f"""---
license: {licence}
library_name: manymask
pipeline_tag: image-segmentation
tags: [medical-image-segmentation, latent-diffusion, uncertainty]
---
# manymask {stage} for {own.data or recipe.dataset}

{_purpose(stage)}

| | |
|---|---|
| trained on | {own.data} ({own.data_hash}), split `{own.scheme}` |{_start(recipe, own)}
| training cases | {seen}, listed in `training_ids.txt` |
| licence of the data | {own.licence} |
| input | {recipe.channels} channel(s), {recipe.size}×{recipe.size}{", a region at native scale" if recipe.crop else ""} |
| recipe | `{segmenter["kind"]}`, in full in `config.json` |{_turns(segmenter)}
| training | {own.minutes:.0f} minutes; the weights of step {own.steps} |
| on validation | {own.score or "not measured"} |
| code | revision {own.git or "unknown"} |

**Intended use.** Research on segmentation and on disagreement between experts. **Not** for diagnosis or treatment.

**Limits.** Of medical images it has seen {" and ".join(own.data_sets) or "one data set"} alone; those of other devices, sites or
patients may fail silently. The confidence map tells where the drawn masks disagree, not whether all of them are wrong.

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
        f"| {name} | {codec.minutes:.0f} minutes, the weights of step {codec.steps}; revision {codec.git or 'unknown'} |"
        for name, codec in codecs
        if codec is not None
    ]
    return "".join("\n" + row for row in rows)


def _turns(segmenter: dict[str, Any]) -> str:
    turns = segmenter.get("turns", 1)
    return f"\n| masks | spread over {turns} flips and quarter turns of the image |" if turns > 1 else ""


def _purpose(stage: Stage) -> str:
    if stage == "segmenter":
        return (
            "Draws several plausible masks for one image; their mean is a confidence map, the map at 0.5 the consensus."
        )
    return f"The {stage.replace('-', ' ')} of a latent diffusion segmenter: one of its two autoencoders."


NAMES = {
    "dice": "Dice of the consensus", "iou": "IoU", "hd95": "HD95, px", "dice_all_slots_filled": "Dice, all readers marked",
    "dice_majority": "Dice against the majority", "ged": "GED²", "hm_iou": "HM-IoU", "ece": "ECE", "brier": "Brier",
    "psnr": "PSNR, dB", "ssim": "SSIM",
}  # fmt: skip
OF_CODECS = {"dice": "Dice of the reconstruction"}


def measured(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The scores on test as a section of the card: mean, 95 % interval, and of several draws by the one model the
    range of their means."""
    lines = [
        "",
        "## Measured on test",
        "",
        "| | | mean | 95 % interval | range over seeds of the draw |",
        "|---|---|---|---|---|",
    ]
    for stage, runs in metrics.items():
        first = runs[0]["metrics"]
        for name in (name for name in NAMES if "mean" in first.get(name, ())):
            value, means = first[name], [run["metrics"][name]["mean"] for run in runs]
            interval = f"{value['low']:.3f} – {value['high']:.3f}" if "low" in value else ""
            seeds = f"{min(means):.4f} – {max(means):.4f}" if len(means) > 1 else ""
            label = (OF_CODECS if stage.endswith("codec") else NAMES).get(name, NAMES[name])
            label += f" ({value['n']} of {value['n'] + value['skipped']})" if "skipped" in value else ""
            lines.append(f"| {stage} | {label} | {value['mean']:.4f} | {interval} | {seeds} |")
    brief = metrics["segmenter"][0]
    facts = f"split `{brief['data']['scheme']}`, {brief['metrics']['dice']['n']} cases, {brief['protocol']['samples']} masks"
    revisions = ", ".join(dict.fromkeys(run["git"] for runs in metrics.values() for run in runs))
    return "\n".join([*lines, "", f"{facts}, scored by revision {revisions}. In full: `metrics.json`.", ""])
