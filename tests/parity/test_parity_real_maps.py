"""Faithfulness of Grad-CAM on a photograph, by pytorch-grad-cam and here."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

import gradcam_bench as gb
from gradcam_bench import heatmaps
from gradcam_bench.choices import Protocol
from gradcam_bench.metrics import drops, removal
from tests.parity.test_parity_faithfulness import Trial, Witness, annotation, warp

SHARED = Path(__file__).parents[3] / "shared" / "real"
SIZE, PICTURE, BIRD = (224, 224), "ILSVRC2012_val_00000247.JPEG", 13


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not SHARED.is_dir(), reason="no real weights and pictures in ../shared/real")
def test_road_and_drop_of_a_photograph():
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    mult = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image")
    targets = [pytest.importorskip("pytorch_grad_cam.utils.model_targets").ClassifierOutputSoftmaxTarget(BIRD)]
    net = torchvision.models.squeezenet1_1(weights=None).eval()
    net.load_state_dict(load_file(SHARED / "weights/squeezenet1_1.safetensors"))
    picture = Image.open(SHARED / "imagenet_val_subset/images" / PICTURE).convert("RGB").resize(SIZE)
    prepare = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = prepare(torchvision.transforms.functional.to_tensor(picture))
    grid = gb.explain(net, image[None], [BIRD], ["grad_cam_no_relu"], "features")["grad_cam_no_relu"]
    heat = heatmaps.normalize(heatmaps.resize(grid, SIZE), "minmax")

    def answer(images):
        with torch.no_grad():
            return net(images)

    colour = torch.zeros(3, 1, 1)
    witness = Witness(image, 8, answer, partial(torch.softmax, dim=1), lambda *_: [], ["a#13"], 0, colour, colour)
    axes = {"perturb_shares": (20, 60), "perturb_noise": 0}
    objects = annotation("a", SIZE, classes=(0,))
    trial = Trial(list(heat), ["none"], [BIRD], [0], warp(SIZE, SIZE), objects, Protocol(axes), witness=witness)

    def theirs(kind):
        found = []
        for share in axes["perturb_shares"]:
            metric = kind(100 - share)
            metric.perturbation.imputer.noise = 0.0
            found.append(metric(image[None], heat.numpy(), targets, net))
        return float(np.mean(found))

    for metric, kind in (
        (removal.road_morf, road.ROADMostRelevantFirst),
        (removal.road_lerf, road.ROADLeastRelevantFirst),
    ):
        assert float(metric(trial)[0]) == pytest.approx(theirs(kind), abs=1e-4)
    change = float(mult.DropInConfidence()(image[None], heat.numpy(), targets, net)[0])
    assert float(drops.average_drop_absolute(trial)) == pytest.approx(change, abs=1e-5)
