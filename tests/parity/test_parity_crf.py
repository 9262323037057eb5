"""The dense random field beside Kraehenbuehl's own program, by way of pydensecrf.

Its source package builds where its two C++ wrappers are made anew: delete pydensecrf/eigen.cpp and densecrf.cpp, then
`python setup.py build_ext --inplace` with Cython below 3.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.drawing import draw
from gradcam_bench.regions import crf

densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not built (see the test's first lines)")
pytestmark = pytest.mark.parity


def theirs(scores: Tensor, image: Tensor) -> np.ndarray:
    """As `crf_inference` of PSA's imutils.py calls it, scores as `unary_from_softmax` takes them."""
    labels, height, width = scores.shape
    field = densecrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(-np.log(np.clip(scores.numpy(), 1e-5, 1)).reshape(labels, -1).astype(np.float32))
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image.permute(1, 2, 0).byte().contiguous().numpy(), compat=10)
    return np.array(field.inference(10)).reshape(labels, height, width)


# Their sums over pairs are a lattice's, which come near the exact ones; ours are exact on 64x64 pixels (as the slow
# second implementation in test_regions_crf.py says), and those of means over 3x3 pixels on 192x192.
@pytest.mark.parametrize(("side", "share", "apart"), [(64, 0.98, 0.01), (192, 0.96, 0.04)])
@pytest.mark.parametrize("number", range(4))
def test_labels_are_those_of_pydensecrf(number: int, side: int, share: float, apart: float) -> None:
    picture = torch.from_numpy(draw(number, seed=5).image).permute(2, 0, 1)[None].float()
    image = F.interpolate(picture, (side, side), mode="bilinear", antialias=True)[0].round()
    coarse = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(number))
    scores = crf.with_background(F.interpolate(coarse[None], (side, side), mode="bicubic")[0].clamp(0, 1), 4)
    ours, others = crf.mean_field(scores, image).numpy(), theirs(scores, image)
    before = scores.numpy().argmax(0) == others.argmax(0)
    assert before.mean() < 0.95  # it does something
    assert (ours.argmax(0) == others.argmax(0)).mean() > share
    assert np.abs(ours - others).mean() < apart
