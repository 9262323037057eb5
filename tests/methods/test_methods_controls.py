"""The controls that look at the picture, or at nothing, by hand."""

import networks
import pytest
import torch

from gradcam_bench import catalogue, heatmaps
from gradcam_bench.explain import explain_batch
from gradcam_bench.methods import controls
from gradcam_bench.report.inputs import CONTROLS

ALL = ("center", "constant", "edges", "input_intensity", "noise")


def test_constant_is_one_everywhere_and_normalises_to_nothing():
    made = controls.constant((2, 3, 4))
    assert made.shape == (2, 3, 4)
    assert (made == 1).all()
    assert not heatmaps.normalize(made, "minmax").any()


def test_edges_of_a_step():
    """Columns 0 0 6 6 in one colour are a grey step of 2; across it the kernel's 1 + 2 + 1 rows see 2 each."""
    image = torch.zeros(1, 3, 3, 4)
    image[0, 1, :, 2:] = 6
    expected = torch.tensor([0.0, 8.0, 8.0, 0.0]).expand(1, 3, 4)
    assert torch.equal(controls.edges(image), expected)
    assert torch.equal(controls.edges(-image.transpose(2, 3)), expected.transpose(1, 2))


def test_edges_of_one_pixel():
    """A pixel of grey 1 inside black: its four neighbours see 2, its diagonal ones (1, 1), itself nothing."""
    image = torch.zeros(1, 3, 5, 5)
    image[0, :, 2, 2] = 1
    root = 2**0.5
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = torch.tensor([[root, 2, root], [2, 0, 2], [root, 2, root]])
    torch.testing.assert_close(controls.edges(image)[0], expected)


def test_edges_do_not_see_the_border():
    """A ramp of 1 a pixel has magnitude 8 inside, and half of it where its last column is repeated."""
    ramp = torch.arange(4.0).expand(1, 3, 3, 4)
    assert torch.equal(controls.edges(ramp)[0, 0], torch.tensor([4.0, 8.0, 8.0, 4.0]))
    assert not controls.edges(torch.full((1, 3, 4, 4), 7.0)).any()


def test_intensity_is_the_mean_colour_as_fed():
    image = torch.tensor([3.0, -1.0, 4.0]).reshape(1, 3, 1, 1) * torch.tensor([[1.0, -2.0]])
    assert torch.equal(controls.input_intensity(image), torch.tensor([[[2.0, -4.0]]]))


@pytest.mark.parametrize("label", ALL)
def test_a_control_is_marked_and_needs_no_network(label):
    made = catalogue.method(label, catalogue.spec("method", label))
    assert made.control
    assert not made.sees
    assert made.rectify == "none"
    batch = networks.batch(torch.randn(2, 3, 6, 8), [(0, 1), (1,)])
    _, maps, _ = explain_batch(batch, None, None, [made], networks.view())
    assert maps[label].shape == (3, 6, 8)


def test_the_report_knows_every_control():
    marked = [label for label in catalogue.names("method") if catalogue.spec("method", label).get("control")]
    assert sorted(marked) == sorted(ALL) == sorted(CONTROLS)
