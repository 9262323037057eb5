"""On CUDA: the CPU's heatmaps and rows, the same again the second time, bfloat16, no memory kept, pinned pictures."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import networks
import pandas as pd
import pytest
import quick
import torch
from torch import Tensor

from gradcam_bench import catalogue, cli
from gradcam_bench.choices import View
from gradcam_bench.datasets.voc import Voc
from gradcam_bench.drawing import CLASSES
from gradcam_bench.explain import explain_batch
from gradcam_bench.heatmaps import normalize, rectify
from gradcam_bench.loading import load
from gradcam_bench.models.network import Network
from gradcam_bench.models.scenes_nets import scenes_network
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.probe import Probe
from gradcam_bench.rehearsal import check
from gradcam_bench.samples import Batch, Samples

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NETWORKS = ("scenes_gap", "scenes_fc", "resnet18")
METHODS = tuple(quick.method(name) for name in quick.few_passes(catalogue.names("method")))
VIEW = View(resize="warp", size=224)


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Deterministic float32 inside: cuDNN would round its inputs to TensorFloat-32, and choose algorithms by time."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    torch.backends.cudnn.benchmark = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def network(name: str, device: str, dtype: torch.dtype = torch.float32) -> Network:
    """A network on a device; resnet18 with the same random weights every time."""
    made = torchvision_network(name, None, num_classes=10) if name == "resnet18" else scenes_network(name)
    module = made.module.to(device, dtype, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return replace(made, module=module)


def batches(root: Path, net: Network, batch_size: int = 4, workers: int = 0, pin: bool = False) -> list[Batch]:
    dataset = Voc(root, split="test", classes=CLASSES, name="scenes")
    samples = Samples(dataset, net.preprocessing, VIEW, range(len(dataset.ids)))
    return [batch for made, _ in load(samples, batch_size, workers, pin) for batch in made]


def explained(root: Path, name: str, device: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """method -> heatmaps [Q,h,w] of all pictures, rectified and min-max normalised, of the methods that apply."""
    net = network(name, device, dtype)
    probe = Probe(net.module, [net.layer])
    refused = check(net, probe, METHODS, 224)
    methods = [method for method in METHODS if method.label not in refused]
    maps: dict[str, list[Tensor]] = {}
    for batch in batches(root, net):
        for label, made in explain_batch(batch, net, probe, methods, VIEW, 4)[1].items():
            maps.setdefault(label, []).append(made)
    rules = {method.label: method.rectify for method in methods}
    return {label: normalize(rectify(torch.cat(made), rules[label]), "minmax") for label, made in maps.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_heatmaps_are_those_of_the_cpu(scenes_root: Path, name: str) -> None:
    cpu, cuda = (explained(scenes_root, name, device) for device in ("cpu", "cuda"))
    assert cuda.keys() == cpu.keys()
    for label, heatmaps in cpu.items():
        assert cuda[label].device.type == "cpu"
        torch.testing.assert_close(cuda[label], heatmaps, rtol=0, atol=1e-4, msg=lambda text, at=label: f"{at}: {text}")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_second_time_gives_the_same_bits(scenes_root: Path, name: str) -> None:
    one, other = explained(scenes_root, name, "cuda"), explained(scenes_root, name, "cuda")
    for label, heatmaps in one.items():
        assert torch.equal(heatmaps, other[label]), label


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_gives_heatmaps_that_resemble(scenes_root: Path, name: str) -> None:
    full, half = (explained(scenes_root, name, "cuda", dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.keys() == full.keys()
    for label in ("grad_cam", "layer_cam"):
        assert half[label].isfinite().all()
        assert (half[label] - full[label]).abs().mean() < 0.1, label


@pytest.mark.slow
@pytest.mark.parametrize("label", catalogue.names("method"))
def test_no_memory_is_kept(label: str) -> None:
    """Every method: after two thousand images as much memory is in use as after the first few."""
    halves = networks.suited(label)
    halves.model.to("cuda", torch.float32)
    chosen, probe = [quick.method(label)], Probe(halves.model, [halves.layer])
    net, images = networks.network(halves), torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = networks.batch(images, [(0,), (1,), (2,), (3,)])

    def used(passes: int) -> int:
        for _ in range(passes):
            explain_batch(batch, net, probe, chosen, networks.view(), 4)
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    early = used(3)
    assert used(497) <= early


def test_pinned_pictures_are_the_same_pictures(scenes_root: Path) -> None:
    net = network("scenes_gap", "cpu")
    plain = batches(scenes_root, net)
    pinned = batches(scenes_root, net, workers=2, pin=True)
    assert len(plain) == len(pinned)
    for one, other in zip(plain, pinned, strict=True):
        assert other.images.is_pinned()
        assert torch.equal(one.images, other.images)
        assert [sample.index for sample in one.samples] == [sample.index for sample in other.samples]


def run(root: Path, results: Path, name: str, *words: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and cases of a run by the command line, of every method, under every preset that comes along."""
    labels = ",".join(method.label for method in METHODS)
    common = ["run", f"dataset.root={root}", f"results={results}", f"name={name}", f"method=[{labels}]"]
    assert cli.main([*common, "stages=[explain,score]", "batch_size=4", *words]) == 0
    folder = results / "run" / name
    return pd.read_parquet(folder / "rows.parquet"), pd.read_parquet(folder / "cases.parquet")


KEYS = ["case_id", "method", "metric", "protocol", "view"]


@pytest.mark.parametrize("model", [["model=scenes_gap"], ["model=scenes_fc"]], ids=["scenes_gap", "scenes_fc"])
def test_rows_are_those_of_the_cpu(scenes_root: Path, tmp_path: Path, model: list[str]) -> None:
    """A heatmap that differs by 1e-4 may cross a threshold and so move a box; few do, and no mean moves by a point."""
    cpu, _ = run(scenes_root, tmp_path, "cpu", *model, "device=cpu", "workers=0")
    cuda, cases = run(scenes_root, tmp_path, "cuda", *model, "device=cuda", "workers=2")
    both = cpu.merge(cuda, on=KEYS, suffixes=("_cpu", "_cuda"))
    assert len(both) == len(cpu) == len(cuda)
    assert list(both["problem_cpu"].astype(str)) == list(both["problem_cuda"].astype(str))
    pairs = both[["metric", "method", "value_cpu", "value_cuda"]].dropna()
    apart = (pairs["value_cpu"] - pairs["value_cuda"]).abs() > 1e-4
    assert apart.mean() < 0.01
    means = pairs.groupby(["metric", "method"], observed=True)[["value_cpu", "value_cuda"]].mean()
    assert (means["value_cpu"] - means["value_cuda"]).abs().max() < 0.05
    assert cases["logit"].notna().all()


def test_a_run_with_workers_twice_gives_the_same_rows(scenes_root: Path, tmp_path: Path) -> None:
    words = ["model=scenes_gap", "device=cuda", "workers=2"]
    (one, _), (other, _) = (run(scenes_root, tmp_path, name, *words) for name in ("one", "other"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_run_in_bfloat16(scenes_root: Path, tmp_path: Path) -> None:
    rows, _ = run(scenes_root, tmp_path, "half", "model=scenes_gap", "device=cuda", "precision=bf16", "limit=4")
    grad_cam = rows[(rows["method"] == "grad_cam") & (rows["metric"] == "pointing_game")]
    assert grad_cam["value"].notna().any()
    assert not (grad_cam["problem"].astype(str) == "heatmap not finite").any()


def test_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path) -> None:
    code = cli.main(["run", f"dataset.root={scenes_root}", f"results={tmp_path}", "device=cuda:99"])
    assert code == 2
    assert f"this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}" in capsys.readouterr().err
