"""What `segment --fast` loses: one mask in one step against five masks as the model draws them, on the same cases.

python benchmarks/fast.py --model isic2018 --data stores/isic128

Prints the mean Dice of each, the mean difference with a bootstrap 95 % interval over cases, and processor time per image.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro

from manymask.data.case import evenly_spaced
from manymask.data.raters import consensus_mask
from manymask.data.resize import resize_map
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.hub.model_folder import load_model
from manymask.metrics import overlap, summary


@dataclass
class Options:
    """`cases` of `split` are scored at native size, evenly spaced."""

    model: str
    data: Path
    split: str = "val"
    cases: int = 60
    rows: dict[str, tuple[int, int | None]] = field(
        default_factory=lambda: {"as drawn": (5, None), "one step, 5 masks": (5, 1), "--fast: one step, 1 mask": (1, 1)}
    )


def main(options: Options) -> None:
    """Each case is drawn in all ways before the next, so that load of the machine falls on all alike."""
    trained = load_model(options.model)
    store = matched_store(trained.recipe, Store(options.data))
    ids = evenly_spaced(held_out_cases(trained, store, options.split, None), options.cases)
    dice: dict[str, list[float]] = {name: [] for name in options.rows}
    seconds: dict[str, float] = dict.fromkeys(options.rows, 0.0)
    for case in ids:
        batch, truth = store.batch([case]), consensus_mask(store.native_masks(case))
        for name, (samples, steps) in options.rows.items():
            start = time.process_time()
            drawn = trained.model.eval().sample_all(batch, samples, 0, SamplingConfig(steps=steps))[0]
            seconds[name] += time.process_time() - start
            confidence = resize_map(drawn.mean(dim=0).numpy(), truth.shape)
            dice[name].append(overlap(confidence >= 0.5, truth)[0])
    first, *others = options.rows
    print(f"{options.model}, {len(ids)} cases of {options.split}, {torch.get_num_threads()} thread(s)")
    for name in options.rows:
        print(f"{name}: Dice {np.mean(dice[name]):.4f}, {seconds[name] / len(ids):.3f} s of processor time per image")
    groups = [store.groups[case] for case in ids]
    for name in others:
        lost = summary((np.array(dice[name]) - np.array(dice[first])).tolist(), groups)
        ratio = seconds[first] / seconds[name]
        print(
            f"{name} − {first}: {lost['mean']:+.4f} ({lost['low']:+.4f} – {lost['high']:+.4f}), {ratio:.1f} × as fast"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
