"""The model card: what a person should know before trusting a model."""

from typing import Any

from manymask.recipes import Recipe, Stage
from manymask.settings import to_dict

LICENCE_TAGS = {"cvc_clinicdb": "other", "isic2018": "cc0-1.0", "lidc_idri": "cc-by-3.0", "phantom": "apache-2.0"}


def write(recipe: Recipe, stage: Stage, provenance: dict[str, Any], seen: int) -> str:
    """Markdown with the metadata block that the Hugging Face Hub reads."""
    segmenter = to_dict(recipe.segmenter)
    return f"""---
license: {LICENCE_TAGS.get(recipe.dataset, "other")}
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
