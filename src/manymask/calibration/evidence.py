"""What the masks drawn of one image say about themselves: a few numbers from which Dice and presence are predicted."""

import numpy as np

from manymask.metrics import overlap, pairwise_iou

NAMES = (
    "agreement",  # mean IoU over all pairs of masks
    "consensus_dice",  # mean Dice of a mask with the consensus
    "expected_dice",  # Dice of the consensus if every pixel were independent and the confidence right
    "entropy",  # mean entropy in bits per expected pixel of the lesion
    "spread",  # standard deviation over masks per expected pixel of the lesion
    "log_area",  # log of the expected share of the image
    "peak",  # largest confidence
    "marked",  # share of masks that hold anything
    "presence",  # the model's own p(anything is marked), 1 without a presence head
)


def evidence(masks: np.ndarray, presence: float = 1.0) -> np.ndarray:
    """Measure the masks of one image.

    Args:
        masks: probabilities (n, S, S) in [0, 1], at the model's size.
        presence: the model's own p(anything is marked).

    Returns:
        The numbers of `NAMES`, float64.
    """
    confidence = masks.mean(axis=0, dtype=np.float64)
    drawn = masks >= 0.5
    answer = confidence >= 0.5
    area = float(confidence.sum())
    pairs = pairwise_iou(drawn, drawn)[np.triu_indices(len(drawn), 1)]
    both = 2 * float(confidence[answer].sum())
    p = confidence.clip(1e-7, 1 - 1e-7)
    entropy = float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum())
    return np.array([
        pairs.mean() if len(pairs) else 1.0,
        np.mean([overlap(mask, answer)[0] for mask in drawn]),
        both / max(float(answer.sum()) + area, 1.0),
        entropy / max(area, 1.0),
        float(masks.std(axis=0).sum()) / max(area, 1.0),
        np.log((area + 1) / answer.size),
        confidence.max(),
        drawn.any(axis=(1, 2)).mean(),
        presence,
    ], dtype=np.float64)  # fmt: skip
