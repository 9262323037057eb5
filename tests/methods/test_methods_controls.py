"""Controls that look at the picture, or at nothing, by hand and against the obvious loops."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from gradcam_bench import catalogue
from gradcam_bench.methods import controls

CONTROLS = ("center", "constant", "edges", "input_intensity", "noise")


@pytest.mark.parametrize("label", CONTROLS)
def test_a_control_takes_nothing_of_the_network(label):
    made = catalogue.method(label, catalogue.spec("method", label))
    assert made.control
    assert not made.sees
    assert made.about.startswith("Control: ")


def test_constant_is_one_everywhere():
    assert torch.equal(controls.constant((2, 3, 4)), torch.ones(2, 3, 4))


def test_edges_of_a_step_by_hand():
    """A step of height 2 in one of three channels is one of 2/3 in the mean: 4 * 2/3 on both sides of it."""
    image = torch.zeros(1, 3, 4, 6)
    image[0, 1, :, 3:] = 2.0
    expected = torch.zeros(4, 6)
    expected[:, 2:4] = 8 / 3
    torch.testing.assert_close(controls.edges(image)[0], expected)
    torch.testing.assert_close(controls.edges(image.transpose(2, 3))[0], expected.T)
    assert not controls.edges(torch.full((1, 3, 4, 6), 5.0)).any()  # borders are no edges


def test_edges_against_scipy():
    images = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    for found, image in zip(controls.edges(images), images):
        grey = image.double().numpy().mean(0)
        parts = [ndimage.sobel(grey, axis, mode="nearest") for axis in (0, 1)]
        np.testing.assert_allclose(found.numpy(), np.hypot(*parts), rtol=1e-4, atol=1e-5)


def test_input_intensity_is_signed():
    image = torch.tensor([[1.0, -2.0], [0.0, 3.0], [2.0, -4.0]]).reshape(1, 3, 1, 2)
    assert controls.input_intensity(image).tolist() == [[[1.0, -1.0]]]
