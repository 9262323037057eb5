"""The dense random field: an obvious loop over pairs, limits, and what it is for."""

import math

import pytest
import torch

from gradcam_bench.regions import crf


def slow(scores: torch.Tensor, image: torch.Tensor, steps: int) -> torch.Tensor:
    """Mean-field updates of Kraehenbuehl and Koltun 2011, algorithm 1, pixel by pixel and pair by pair."""
    labels, height, width = scores.shape
    places = [(y, x) for y in range(height) for x in range(width)]

    def kernels(p, q):
        apart = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
        colour = sum((float(image[c][p]) - float(image[c][q])) ** 2 for c in range(3))
        return math.exp(-apart / (2 * 3**2)), math.exp(-apart / (2 * 80**2) - colour / (2 * 13**2))

    table = {(p, q): kernels(p, q) for p in places for q in places}
    sums = {p: [sum(table[p, q][k] for q in places) for k in (0, 1)] for p in places}
    unary = {p: [-math.log(max(float(scores[label][p]), 1e-5)) for label in range(labels)] for p in places}

    def normal(energies):
        worth = [math.exp(-energy) for energy in energies]
        return [one / sum(worth) for one in worth]

    belief = {p: normal(unary[p]) for p in places}
    for _ in range(steps):
        after = {}
        for p in places:
            energies = []
            for label in range(labels):
                energy = unary[p][label]
                for q in places:
                    for k, weight in enumerate((3, 10)):
                        message = weight * table[p, q][k] / math.sqrt(sums[p][k] * sums[q][k])
                        energy += message * (1 - belief[q][label])  # Potts: a penalty for every other label
                energies.append(energy)
            after[p] = normal(energies)
        belief = after
    return torch.tensor(
        [[[belief[y, x][label] for x in range(width)] for y in range(height)] for label in range(labels)]
    )


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_it_equals_a_loop_over_all_pairs(steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand((3, 4, 5), generator=generator)
    image = torch.randint(0, 60, (3, 4, 5), generator=generator)
    assert crf.mean_field(scores, image, steps) == pytest.approx(slow(scores, image, steps), abs=1e-5)


def test_without_a_step_it_is_the_scores_share() -> None:
    scores = torch.tensor([[[0.2, 0.5]], [[0.6, 0.5]]])
    assert crf.mean_field(scores, torch.zeros(3, 1, 2), 0)[0, 0].tolist() == pytest.approx([0.25, 0.5])


def test_a_blurred_map_is_drawn_to_the_object_s_edge() -> None:
    """A disc of another colour, under a map that is wide and soft: the label follows the disc."""
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(60), indexing="ij")
    distance = ((rows - 22.0) ** 2 + (columns - 30.0) ** 2).sqrt()
    disc = distance < 12
    image = torch.where(disc, 200.0, 40.0).expand(3, -1, -1)
    maps = torch.exp(-(((distance + 3) / 16) ** 2))[None]
    before = maps[0] > 0.5 * maps.max()
    labels = crf.mean_field(crf.with_background(maps, 4), image).argmax(0) == 1

    def iou(found):
        return float((found & disc).sum() / (found | disc).sum())

    assert iou(labels) > 0.97 > iou(before)


def test_a_large_picture_is_averaged_down_and_comes_back_in_its_size() -> None:
    scores, image = torch.rand(2, 150, 200), torch.randint(0, 256, (3, 150, 200))
    found = crf.mean_field(scores, image, 2, pixels=400)
    assert found.shape == (2, 150, 200)
    assert found.sum(0) == pytest.approx(torch.ones(150, 200), abs=1e-5)


def test_background_by_alpha() -> None:
    maps = torch.tensor([[[0.5, 1.0]], [[0.2, 0.0]]])
    scores = crf.with_background(maps, 4)
    assert scores[0, 0].tolist() == [0.5**4, 0]
    assert torch.equal(scores[1:], maps)
