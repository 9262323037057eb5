"""Classifiers made fully convolutional: at the size of training they are what they were, at a larger one they score
several positions, as the networks of the pointing-game benchmark do (Zhang et al. 2016; Fong et al. 2019)."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError

GRID = 7  # cells a side of what the classifiers of both families are trained on: 224 pixels, stride 32


def convolutional(module: Any, name: str) -> nn.Module:
    """The same torchvision VGG or ResNet with outputs [B,K,h,w]: one score for every 7x7 window of its last grid.

    VGG: no average pooling, the linear maps become a 7x7 and 1x1 convolutions. ResNet: average pooling over 7x7 windows
    at stride 1, the linear map becomes a 1x1 convolution. Changed in place. Raises UserError for other architectures.
    """
    if name.startswith("vgg"):
        sides = iter((GRID, 1, 1))
        layers = [_convolution(m, next(sides)) if isinstance(m, nn.Linear) else m for m in module.classifier]
        module.classifier, module.avgpool = nn.Sequential(*layers), nn.Identity()
        module.forward = MethodType(_vgg, module)
    elif name.startswith(("resnet", "resnext", "wide_resnet")):
        module.fc, module.avgpool = _convolution(module.fc, 1), nn.AvgPool2d(GRID, 1)
        module.forward = MethodType(_resnet, module)
    else:
        raise UserError(
            f"model.convolutional=true is known for vgg*, resnet*, resnext* and wide_resnet*, not for {name}"
        )
    return module


def _convolution(linear: nn.Linear, side: int) -> nn.Conv2d:
    """The convolution that is the linear map of a flattened side x side grid."""
    outer, inner = linear.weight.shape
    made = nn.utils.skip_init(nn.Conv2d, inner // side**2, outer, side)
    with torch.no_grad():
        made.weight.copy_(linear.weight.reshape(made.weight.shape))
        made.bias.copy_(linear.bias)
    return made


def _vgg(self: Any, images: Tensor) -> Tensor:
    return self.classifier(self.features(images))


def _resnet(self: Any, images: Tensor) -> Tensor:
    x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.fc(self.avgpool(x))
