"""The 1000 classes of ImageNet (ILSVRC2012): class i is the i-th of the synsets in sorted order."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from gradcam_bench.annotations.lists import WORDNET, lines
from gradcam_bench.errors import UserError

COUNT = 1000


def names() -> tuple[str, ...]:
    """The 1000 names in class order, as torchvision's weights carry them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def index() -> dict[str, int]:
    """Synset -> class index, of all 1000."""
    listed = (Path(__file__).parent / "synsets.txt").read_text(encoding="ascii")
    return {synset: number for number, synset in enumerate(listed.split())}


def mapping(path: Path) -> dict[str, str]:
    """Synset -> name, in sorted order, from a file with `n01440764 tench, Tinca tinca` a line."""
    found: dict[str, str] = {}
    for number, line in lines(path):
        prefix = WORDNET.match(f"{line} ")
        if not prefix or prefix[0].strip() in found:
            raise UserError(f"{path}, line {number}: '{line}' is no synset with its name, or a second one")
        found[prefix[0].strip()] = line[len(prefix[0]) :].strip()
    return dict(sorted(found.items()))


def numbered(synsets: Collection[str]) -> dict[str, str] | None:
    """Synset -> name for a whole set of 1000 synsets; None for fewer, whose places among the 1000 are not known."""
    return dict(zip(sorted(synsets), names())) if len(synsets) == COUNT else None
