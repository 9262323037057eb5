"""What the pages say is as the code has it."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import detection, segmentation

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.mark.parametrize("script", ["document_methods.py", "document_metrics.py"])
def test_the_pages_of_methods_and_metrics_are_up_to_date(script: str) -> None:
    made = runpy.run_path(str(SCRIPTS / script))
    assert made["OUT"].read_text(encoding="utf-8") == made["document"](), f"run python scripts/{script}"


@pytest.mark.parametrize(
    ("name", "build"),
    [("deeplab", segmentation.deeplabv3_resnet50), ("detector", detection.fasterrcnn_resnet50_fpn)],
)
def test_the_layers_that_readme_names_give_maps(name: str, build: Callable[..., nn.Module]) -> None:
    """torchvision's `backbone` and `backbone.body` give dictionaries of them."""
    text = (SCRIPTS.parent / "README.md").read_text(encoding="utf-8")
    (layer,) = re.findall(rf'gb\.explain\({name}, .*layer="([^"]+)"\)', text)
    with torch.device("meta"):
        network = build(weights=None, weights_backbone=None)
    assert isinstance(network.get_submodule(layer), nn.Sequential)
