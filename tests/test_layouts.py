"""What a layer gives becomes a grid by what the forward pass shows, and what is no grid is refused."""

import pytest
import torch
from torch import nn

from gradcam_bench.layouts import Layout, layout

IMAGES = torch.zeros(2, 3, 32, 48)
LAST, PLAIN = nn.LayerNorm(5), nn.ReLU()


def test_tokens_lie_in_rows_after_the_prefix() -> None:
    tokens = torch.arange(1 * 8 * 2).reshape(1, 8, 2)  # token t holds (2t, 2t + 1); two come before the grid
    grid = Layout("tokens", (2, 3), prefix=2).grid(tokens)
    assert grid.tolist() == [[[[4, 6, 8], [10, 12, 14]], [[5, 7, 9], [11, 13, 15]]]]


def test_channels_last_are_brought_to_the_front() -> None:
    native = torch.arange(12).reshape(1, 2, 3, 2)
    grid = Layout("channels_last", (2, 3)).grid(native)
    assert grid.tolist() == [[[[0, 2, 4], [6, 8, 10]], [[1, 3, 5], [7, 9, 11]]]]
    assert Layout("channels_first", (3, 2)).grid(native) is native


@pytest.mark.parametrize(
    ("module", "shape", "convolved", "expected"),
    [
        (PLAIN, (2, 64, 4, 6), [], Layout("channels_first", (4, 6))),
        (PLAIN, (2, 4, 6, 64), [], Layout("channels_last", (4, 6))),
        (LAST, (2, 4, 6, 64), [(8, 12)], Layout("channels_last", (4, 6))),
        (PLAIN, (2, 64, 1, 1), [], Layout("channels_first", (1, 1))),
        (PLAIN, (2, 64, 3, 5), [], Layout("channels_first", (3, 5))),  # convolutions without padding
        (PLAIN, (2, 64, 7, 7), [(7, 7)], Layout("channels_first", (7, 7))),  # the network made its input square
        (LAST, (2, 7, 7, 64), [(7, 7)], Layout("channels_last", (7, 7))),
        (PLAIN, (2, 64, 7, 7), [], None),
        (PLAIN, (2, 64, 9, 4), [], None),
        (LAST, (2, 6, 49, 96), [(28, 42)], None),  # windows: [B, windows, tokens of one, C]
        (LAST, (12, 7, 7, 96), [(28, 42)], None),  # windows in the place of images
        (PLAIN, (2, 12, 25, 25), [(4, 6)], None),  # tokens by tokens
        (PLAIN, (2, 12, 25, 25), [(4, 6), (25, 25)], Layout("channels_first", (25, 25))),
        (LAST, (2, 24, 8), [(4, 6)], Layout("tokens", (4, 6), 0)),
        (LAST, (2, 29, 8), [(32, 48), (4, 6)], Layout("tokens", (4, 6), 5)),
        (LAST, (2, 24, 8), [(2, 6), (4, 6)], Layout("tokens", (4, 6), 0)),  # not twelve in front of 2 x 6
        (LAST, (2, 24, 8), [], None),
        (LAST, (2, 24, 8), [(1, 1), (5, 5), (2, 3)], None),
        (LAST, (3, 24, 8), [(4, 6)], None),
        (PLAIN, (2, 10), [], None),
        (PLAIN, (2, 3, 4, 6, 1), [], None),
    ],
)
def test_what_is_a_grid(module: nn.Module, shape: tuple, convolved: list, expected: Layout | None) -> None:
    assert layout(module, torch.zeros(shape), IMAGES, convolved) == expected


def test_other_outputs_are_no_grid() -> None:
    for output in ((torch.zeros(2, 5, 4, 6),), {"a": 1}, None, torch.tensor(1.0)):
        assert layout(PLAIN, output, IMAGES) is None


class LayerNorm2d(nn.LayerNorm):
    """As torchvision and timm have it: a layer norm over the channels of [B,C,h,w]."""


@pytest.mark.parametrize(
    ("module", "order"),
    [
        (nn.Conv2d(3, 4, 1), "channels_first"),
        (nn.ReLU(), "channels_first"),
        (nn.LayerNorm(4), "channels_last"),
        (LayerNorm2d(4), "channels_first"),
        (nn.Linear(4, 4), "channels_last"),
        (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)), "channels_last"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4)), "channels_first"),  # a ConvNeXt block goes back
    ],
    ids=repr,
)
def test_where_both_orders_fit_the_module_decides(module: nn.Module, order: str) -> None:
    """A Swin at 384 pixels has 96 channels on a 96 x 96 grid, a ResNet at 256 has 64 on 64 x 64."""
    images = torch.zeros(1, 3, 384, 384)
    assert layout(module, torch.zeros(1, 96, 96, 96), images) == Layout(order, (96, 96))
