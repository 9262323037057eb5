"""Random curves of the kind that each reduction takes."""

import numpy as np


def curves(reduce: str, rng: np.random.Generator, count: int, ious: int = 3) -> np.ndarray:
    """[count,T] float32 for a reduction; ious: how many are demanded."""
    if reduce == "max_over_rejection":  # maximum (with ties), right if kept, right if rejected
        made = np.stack([rng.integers(0, 6, count), *rng.integers(0, 2, (2, count))], axis=1)
    elif reduce == "pr_pooled":
        made = rng.integers(0, 50, (count, 20))
    elif reduce == "ratio":
        made = np.stack([rng.integers(0, 3, count), rng.integers(3, 6, count)], axis=1)
    elif reduce == "ap_pooled":  # true boxes, scores of up to four detections, which are matched at each IoU
        scores = np.where(rng.random((count, 4)) < 0.3, -1, rng.random((count, 4)))
        matched = rng.random((ious, count, 4)) < np.array([0.6, 0.4, 0.2])[:ious, None, None]
        made = np.concatenate([np.full((count, 1), 4), scores, *matched], axis=1)
    else:
        made = rng.random((count, 12))
    return made.astype(np.float32)
