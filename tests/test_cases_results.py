"""What a result says of itself, and that it is the same whichever door it came through (cases B17, B23, B34)."""

import numpy as np
import pytest
import torch

from manymask import Segmenter
from manymask.data.case import Batch, pixel_name
from manymask.evaluate import Protocol, evaluate
from manymask.hub import load_model


@pytest.fixture(scope="module")
def segmenter(drawing_model) -> Segmenter:
    return Segmenter(load_model(drawing_model))


def test_segment_gives_the_masks_that_evaluate_scores(segmenter, store):
    """Noise is seeded by pixels: not by the case's id, nor by the file's name."""
    scored = []

    class Recorded(torch.nn.Module):
        setting = segmenter.model.setting

        def predict(self, batch, n, seed, sampler=None):
            scored.append((batch, segmenter.model.predict(batch, n, seed, sampler)))
            return scored[-1][1]

    evaluate(Recorded(), store, store.ids[:3], Protocol(samples=3, ged_samples=3, seed=4), "cpu", progress=False)
    ((batch, masks),) = scored
    assert masks.std(dim=1).max() > 0.01  # masks that differ, or equality would say little
    for i, case in enumerate(store.ids[:3]):
        pixels = np.ascontiguousarray(store.images[store.index[case]].transpose(1, 2, 0))
        drawn = segmenter.segment(pixels, samples=3, seed=4).masks
        assert torch.allclose(drawn, masks[i], atol=1e-4)
        assert batch.noise_names[i] == pixel_name(store.images[store.index[case]])
    other_ids = Batch(["x", "y", "z"], batch.image, names=batch.names)
    assert torch.allclose(segmenter.model.predict(other_ids, 3, 4), masks, atol=1e-5)
    unnamed = segmenter.model.predict(Batch(["x", "y", "z"], batch.image), 3, 4)
    assert not torch.allclose(unnamed, masks, atol=1e-2)
