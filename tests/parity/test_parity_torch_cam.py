"""The preset torch_cam against torch-cam's own evaluation of the same network on the same pictures."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from gradcam_bench import cli

METHODS = {
    f"external_torchcam_{key}": name
    for key, name in (("grad_cam", "GradCAM"), ("layer_cam", "LayerCAM"), ("grad_cam_pp", "GradCAMpp"))
}
COUNT = 6
SHARED = Path(__file__).parents[3] / "shared" / "real"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not SHARED.is_dir(), reason="no real weights and pictures in ../shared/real")
def test_a_run_gives_torch_cams_numbers(tmp_path, capsys):
    methods = pytest.importorskip("torchcam.methods")
    metrics = pytest.importorskip("torchcam.metrics")
    weights = SHARED / "weights/squeezenet1_1.safetensors"
    words = ["run", "dataset=folder", f"dataset.root={SHARED / 'imagenet_val_subset'}", f"limit={COUNT}", "name=it"]
    words += ["model=squeezenet1_1", f"model.weights={weights}", "preset=[torch_cam]", f"results={tmp_path}"]
    words += [f"method=[{','.join(METHODS)}]", "metric=[average_drop,increase]", "stages=[explain,score]"]
    words += [f"method.{label}.score=softmax" for label in METHODS]
    assert cli.main([*words, "workers=0"]) == 0
    capsys.readouterr()
    found = pd.read_parquet(tmp_path / "run/it/rows.parquet").groupby(["method", "metric"], observed=True)["value"]
    network = torchvision.models.squeezenet1_1(weights=None).eval()
    network.load_state_dict(load_file(weights))
    for module in network.modules():  # what is in place overwrites what its hooks have seen
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    prepared = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(256),
            torchvision.transforms.CenterCrop(224),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    places = sorted((SHARED / "imagenet_val_subset/images").iterdir())[:COUNT]
    batch = torch.stack([prepared(Image.open(place).convert("RGB")) for place in places])
    for label, name in METHODS.items():
        with getattr(methods, name)(network, "features") as extractor:
            metric = metrics.ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
            for picture in batch:
                metric.update(picture[None])
        assert found.mean()[label, "average_drop"] == pytest.approx(metric.summary()["avg_drop"], abs=1e-4)
        assert found.mean()[label, "increase"] == metric.summary()["conf_increase"]
