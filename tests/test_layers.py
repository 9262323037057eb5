"""Several layers in one run: each method at each is what it is alone there, and costs that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import networks
import pandas as pd
import pytest
import torch
from quick import method
from torch.testing import assert_close

import gradcam_bench as gb
from gradcam_bench import catalogue
from gradcam_bench.errors import UserError
from gradcam_bench.explain import heatmaps_of
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look

LAYERS = ("stem", "features.0", "features")
OTHERS = {"attention_rollout", "generic_attention", "le_grad", "le_grad_code", "foreground"}  # of other networks
LABELS = [label for label in catalogue.names("method") if label not in OTHERS]
LAYERED = [label for label in LABELS if method(label).layered]


def maps(label: str, layer: str | tuple[str, ...]) -> dict[str, torch.Tensor] | str:
    """Those of a batch of three cases of two images, or why there are none."""
    halves = networks.gap()
    images = halves.images(2)
    try:
        return gb.explain(halves.model, images, [1, 3, 0], [method(label)], layer, torch.tensor([0, 1, 1]))
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("label", LABELS)
def test_a_method_at_several_layers_is_what_it_is_at_each_alone(label: str) -> None:
    layers = [layer for layer in LAYERS if isinstance(maps(label, layer), dict)]
    assert layers
    together = maps(label, tuple(layers))
    assert isinstance(together, dict)
    if label not in LAYERED:
        (only,) = together.items()
        assert only[0] == label
        for layer in layers:  # no layer matters to it, so it is made once
            assert_close(maps(label, layer)[label], only[1], rtol=0, atol=0)  # type: ignore[index]
        return
    assert list(together) == [f"{label}@{layer}" for layer in layers]
    for layer in layers:
        assert_close(together[f"{label}@{layer}"], maps(label, layer)[label], rtol=0, atol=0)  # type: ignore[index]


@pytest.mark.parametrize("label", [one for one in LAYERED if not one.startswith("external_")])
def test_a_layer_does_matter_to_those_that_are_said_to_look_at_one(label: str) -> None:
    found = [maps(label, layer) for layer in LAYERS]
    made = [one[label] for one in found if isinstance(one, dict)]
    if len(made) > 1:
        assert any(one.shape != made[0].shape or not torch.allclose(one, made[0], atol=1e-6) for one in made[1:])


def test_a_label_with_a_layer_of_its_own() -> None:
    spec = catalogue.spec("method", "grad_cam") | {"at": "stem"}
    early = catalogue.method("early", spec)
    halves = networks.gap()
    found = gb.explain(halves.model, halves.images(2), [1, 3], ["grad_cam", early], "features")
    assert_close(found["early"], gb.explain(halves.model, halves.images(2), [1, 3], layer="stem")["grad_cam"])
    assert found["grad_cam"].shape != found["early"].shape
    assert catalogue.at_layers([early], ["features"]) == [early]  # it stays where it is
    assert catalogue.method("grad_cam", catalogue.spec("method", "grad_cam")).key() == ["grad_cam", {}, 1]
    assert early.key() == ["early", {}, 1, "stem"]
    with pytest.raises(UserError, match="looks at no layer"):
        catalogue.method("early", catalogue.spec("method", "saliency") | {"at": "stem"})
    with pytest.raises(UserError, match="name of a layer is needed"):
        catalogue.method("early", spec | {"at": 3})


def test_a_layer_more_costs_a_look_whoever_else_asks_for_it() -> None:
    halves = networks.gap()
    probe = Probe(halves.model, ["features"])
    chosen = catalogue.at_layers([method("grad_cam"), method("eigen_cam"), method("saliency")], ["features", "stem"])
    for methods in (chosen, chosen[::-1], chosen[1:2]):
        looked = shared_look(probe, halves.images(2), [1, 3])
        costs = heatmaps_of(methods, Supplies(halves.images(2), ["a", "b"], 0, looked))[1]
        for label, cost in costs.items():
            backwards = 0 if label.startswith("eigen_cam") else 2
            assert (cost.forwards, cost.head_forwards, cost.backwards) == (2, 0, backwards), label
            assert cost.seconds > 0


def test_what_cannot_be_several_layers() -> None:
    halves = networks.gap()
    with pytest.raises(UserError, match="unknown layer 'stme': did you mean 'stem'"):
        gb.explain(halves.model, halves.images(1), [0], layer=["features", "stme"])
    with pytest.raises(UserError, match="stem is there twice"):
        gb.explain(halves.model, halves.images(1), [0], layer=["stem", "stem"])
    with pytest.raises(UserError, match="name the target layer"):
        gb.explain(halves.model, halves.images(1), [0], layer=[])
    with pytest.raises(UserError, match="name the target layer"):
        gb.explain(halves.model, halves.images(1), [0], layer=["stem", 3])  # type: ignore[list-item]
    with pytest.raises(UserError, match="name the target layer"):
        gb.explain(halves.model, halves.images(1), [0], layer=3)  # type: ignore[arg-type]


def bench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradcam_bench", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


METHODS = "method=[grad_cam,smooth_grad_cam_pp,saliency,center]"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run at two layers, and one at the earlier of them, with scores that look again and stages."""
    folder = tmp_path_factory.mktemp("layers")
    metrics = "metric=[pointing_game,localization_error_gt_known,spearman_abs,max_sensitivity]"
    small = ["protocol.perturb_nearby=2", "randomize.every=20", "view.resize=warp", "view.size=96", "limit=3"]
    for name, layers in (("two", "layers=[layer3,layer4]"), ("one", "model.layer=layer3")):
        done = bench(folder, "run", METHODS, metrics, *small, layers, f"name={name}", "workers=0", "results=.")
        assert done.returncode == 0, done.stderr
    return folder / "run" / "two", folder / "run" / "one"


def test_a_run_at_several_layers_has_the_rows_of_each(both: tuple[Path, Path]) -> None:
    two, one = (pd.read_parquet(folder / "rows.parquet") for folder in both)
    assert set(two["method"].astype(str)) == {
        *(f"{name}@{layer}" for name in ("grad_cam", "smooth_grad_cam_pp") for layer in ("layer3", "layer4")),
        "saliency",
        "center",
    }
    layers = two.groupby(two["method"].astype(str))["layer"].unique()
    assert list(layers["grad_cam@layer3"]) == ["layer3"]
    assert list(layers["grad_cam@layer4"]) == ["layer4"]
    key = ["case_id", "stage", "draw", "metric", "protocol", "method"]
    mine = two[two["method"].astype(str).str.endswith("@layer3")].copy()
    mine["method"] = mine["method"].astype(str).str.partition("@")[0]
    pair = mine.merge(one, on=key, suffixes=("", "_alone"))
    assert len(pair) == len(mine) > 80
    pd.testing.assert_series_equal(pair["value"], pair["value_alone"], check_names=False, check_exact=True)


def test_verbs_read_a_run_at_several_layers(both: tuple[Path, Path]) -> None:
    folder = both[0].parent.parent
    scored = bench(folder, "score", str(both[0]), "preset=[wsol_2020_v2]", "metric=[max_box_acc]")
    assert scored.returncode == 0, scored.stderr
    assert "grad_cam@layer3" in scored.stdout
    compared = bench(folder, "compare", str(both[0]))
    assert compared.returncode == 0, compared.stderr
    assert "smooth_grad_cam_pp@layer4" in compared.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["layers=[layer3,layr4]"], "unknown layer 'layr4': did you mean 'layer4'"),
        (["layers=layer3"], "layers=layer3: give a list"),
        (["layers=[layer3,layer3]"], "layer3 is there twice"),
        (["model.layer=[layer3,layer4]"], "give several as layers="),
    ],
)
def test_layers_that_cannot_be(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = bench(tmp_path, "run", "method=[grad_cam]", "limit=2", "results=.", *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
