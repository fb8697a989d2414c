"""The model card: what a person should know before trusting a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from manymask.licences import licence
from manymask.recipes import Recipe, Stage
from manymask.settings import to_dict


def write(recipe: Recipe, stage: Stage, provenance: dict[str, Any], seen: int) -> str:
    """Markdown with the metadata block that the Hugging Face Hub reads."""
    segmenter = to_dict(recipe.segmenter)
    return f"""---
license: {licence(recipe.dataset).tag}
library_name: manymask
pipeline_tag: image-segmentation
tags: [medical-image-segmentation, latent-diffusion, uncertainty]
---
# manymask {stage} for {provenance["data"] or recipe.dataset}

{_purpose(stage)}

| | |
|---|---|
| trained on | {provenance["data"]} ({provenance["data_hash"]}), split `{provenance["scheme"]}` |
| training cases | {seen}, listed in `training_ids.txt` |
| licence of the data | {provenance["licence"]} |
| input | {recipe.channels} channel(s), {recipe.size}×{recipe.size}{", a region at native scale" if recipe.crop else ""} |
| recipe | `{segmenter["kind"]}`, in full in `config.json` |
| optimiser steps | {provenance["steps"]} in {provenance["minutes"]:.0f} minutes |
| on validation | {provenance["score"] or "not measured"} |
| code | revision {provenance["git"] or "unknown"} |

**Intended use.** Research on segmentation and on disagreement between experts. **Not** for diagnosis or treatment.

**Limits.** It has seen one data set; images from other devices, sites or patients may fail silently. The confidence map
tells where the drawn masks disagree, not whether all of them are wrong.

```python
from manymask import Segmenter

result = Segmenter.from_pretrained("THIS FOLDER").segment("image.png", samples=5, seed=0)
```
"""


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


def measured(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The scores on test as a section of the card: mean, 95 % interval, and the range over seeds if there were several."""
    lines = ["", "## Measured on test", "", "| | | mean | 95 % interval | over seeds |", "|---|---|---|---|---|"]
    for stage, runs in metrics.items():
        first = runs[0]["metrics"]
        for name in (name for name in NAMES if "mean" in first.get(name, ())):
            value, means = first[name], [run["metrics"][name]["mean"] for run in runs]
            interval = f"{value['low']:.3f} – {value['high']:.3f}" if "low" in value else ""
            seeds = f"{min(means):.4f} – {max(means):.4f}" if len(means) > 1 else ""
            lines.append(f"| {stage} | {NAMES[name]} | {value['mean']:.4f} | {interval} | {seeds} |")
    brief = metrics["segmenter"][0]
    facts = f"split `{brief['data']['scheme']}`, {brief['metrics']['dice']['n']} cases, {brief['protocol']['samples']} masks"
    return "\n".join([*lines, "", f"{facts}, revision {brief['git']}. In full: `metrics.json`.", ""])
