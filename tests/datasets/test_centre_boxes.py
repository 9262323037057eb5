"""Box conventions held against published numbers that need no network: a centred square scored as wsolevaluation does.

Choe et al. 2020 print 52.5 for ImageNet and 59.7 for CUB (`Center`): the accuracy at IoU 0.5 of a square box in the
middle of 224 x 224 pixels, of the best side, with one true box an image. Half-open corners taken for inclusive ones
give 52.65 and 59.89. 54.08 is with every true box, which their code has and their table has not.
"""

from pathlib import Path

import numpy as np
import pytest

from gradcam_bench.annotations.annotated import Annotated
from gradcam_bench.datasets.cub import cub
from gradcam_bench.datasets.imagenet import imagenet

LISTS = Path(__file__).parents[3] / "shared" / "real" / "wsol_metadata"


def accuracy(dataset: Annotated, side: int, first: bool) -> float:
    """Percent of images with a true box that has IoU >= 0.5 with the square, both with inclusive corners."""
    x0 = 112 - side // 2
    x1 = min(x0 + side, 223)
    right = 0
    for image_id in dataset.ids:
        height, width = dataset.truth.size(image_id)
        boxes = np.array(dataset.truth.boxes[image_id][: 1 if first else None]) - [0, 0, 1, 1]
        boxes = np.floor(boxes * 224 / [width, height, width, height])
        sides = np.clip(np.minimum(boxes[:, 2:], x1) - np.maximum(boxes[:, :2], x0) + 1, 0, None)
        shared = sides.prod(1)
        union = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1) + (x1 - x0 + 1) ** 2 - shared
        right += bool((shared / union >= 0.5).any())
    return 100 * right / len(dataset.ids)


@pytest.mark.skipif(not LISTS.is_dir(), reason="the real lists are not beside this checkout")
def test_centred_squares_score_as_published() -> None:
    birds, everything = cub(metadata=str(LISTS)), imagenet(metadata=str(LISTS))
    assert round(accuracy(birds, 141, first=True), 2) == 59.72
    assert accuracy(birds, 141, first=True) > max(accuracy(birds, side, first=True) for side in (139, 143))
    assert round(accuracy(everything, 159, first=True), 2) == 52.52
    assert round(accuracy(everything, 159, first=False), 2) == 54.08
