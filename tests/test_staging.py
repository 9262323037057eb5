"""Stages in a run: the same rows whatever batches, shards and interruptions; the numbers of one changed by hand."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from test_cli import call
from test_pipeline import make_run, merged, network

from gradcam_bench import catalogue, randomize, setup
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.api import explain
from gradcam_bench.calls import Calls
from gradcam_bench.catalogue import spec
from gradcam_bench.choices import Protocol
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import warp
from gradcam_bench.heatmaps import resize
from gradcam_bench.models.network import Network
from gradcam_bench.pipeline import Run, run
from gradcam_bench.randomize import Settings
from gradcam_bench.samples import annotation
from gradcam_bench.staging import paired
from gradcam_bench.trial import Trial
from gradcam_bench.units import find_units

METHODS = ("grad_cam", "saliency", "edges", "noise", "constant")
ALL = Settings(("cascade_down", "cascade_up", "independent"), granularity="block", every=3, draws=2, samples=2)


def staged(root: Path, folder: Path, settings: Settings = ALL, net: Network | None = None, **options: object) -> Run:
    metrics = options.pop("metrics", ("spearman", "top_k_overlap"))
    chosen = {"methods": options.pop("methods", METHODS), "presets": (), "metrics": metrics}
    options = {"indices": tuple(range(4)), "randomize": settings} | options
    return make_run(root, folder, net or network(), **chosen, **options)  # type: ignore[arg-type]


def assert_same(one: Run, other: Run, tolerance: float = 0.0) -> None:
    left, right = (merged(job)[0].drop(columns=["value", "curve"]).astype(str) for job in (one, other))
    pd.testing.assert_frame_equal(left, right)
    np.testing.assert_allclose(merged(one)[0]["value"], merged(other)[0]["value"], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def whole(scenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    job = staged(scenes_root, tmp_path_factory.mktemp("staged"))
    run(job)
    return job


def test_rows_carry_stage_draw_and_reference(whole: Run) -> None:
    rows, _ = merged(whole)
    assert set(rows["reference"]) == {"trained"}
    assert set(rows["draw"]) == {0, 1}
    down = sorted(stage for stage in rows["stage"].astype(str).unique() if stage.startswith("cascade_down"))
    assert down == ["cascade_down/01:fc", "cascade_down/04:layer2", "cascade_down/07:stem.0"]
    counts = rows.groupby(["stage", "draw", "method", "metric"], observed=True).size()
    assert len(set(counts)) == 1
    assert len(counts) == 9 * 2 * len(METHODS) * 2


def test_edges_never_change_noise_is_like_nothing_and_constants_are_undefined(whole: Run) -> None:
    rows, _ = merged(whole)
    rows = rows[rows["metric"] == "spearman"]
    values = dict(iter(rows.groupby("method", observed=True)))
    assert (values["edges"]["value"] == 1).all()
    assert values["noise"]["value"].abs().max() < 0.1
    assert len(set(values["noise"]["value"])) == len(values["noise"])  # drawn anew for each stage, draw and case
    assert values["constant"]["value"].isna().all()
    assert set(values["constant"]["problem"]) == {"the map is constant"}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_change_no_row(whole: Run, scenes_root: Path, tmp_path: Path, batch_size: int) -> None:
    job = staged(scenes_root, tmp_path, batch_size=batch_size)
    run(job)
    assert_same(whole, job, 5e-3)  # one pixel of the top tenth is 1 in 410: sums of floats are not the same to the bit


@pytest.mark.parametrize("megabytes", [0, 4, 8])
def test_little_memory_changes_no_row(whole: Run, scenes_root: Path, tmp_path: Path, megabytes: int) -> None:
    job = staged(scenes_root, tmp_path, budget=megabytes * 2**20 + 1)
    run(job)
    assert_same(whole, job, 5e-3)


def test_shards_and_interruptions_change_no_row(whole: Run, scenes_root: Path, tmp_path: Path) -> None:
    first = staged(scenes_root, tmp_path, indices=(0, 2))
    run(first)
    run(replace(first, indices=(1, 3), rank=1, network=network()))
    run(replace(first, indices=(0, 1, 2, 3)))  # has nothing left to do
    assert_same(whole, first)


@pytest.mark.parametrize("order", randomize.ORDERS)
def test_numbers_are_those_of_a_network_changed_by_hand(whole: Run, scenes_root: Path, order: str) -> None:
    rows, cases = merged(whole)
    net, dataset = network(), whole.dataset
    picture = dataset.read(0)
    pixels, _ = whole.preprocessing(picture.image, next(iter(whole.plan.views)))
    calls = Calls(net.module, pixels[None], net.module.layer4)
    stage = randomize.stages(find_units(calls, pixels[None], "block"), order, 3)[1]
    other = deepcopy(net.module)
    names = {parameter: name for name, parameter in net.module.named_parameters()}
    values = randomize.drawn(stage.units, 0, 1, "own")
    other.load_state_dict({names[p]: value for p, value in values.items()}, strict=False)
    case = cases[cases["image_id"] == dataset.ids[0]].iloc[0]
    for method, rule in (("grad_cam", torch.relu), ("saliency", lambda m: m)):
        maps = []
        for module in (net.module, other):
            found = explain(module, pixels[None], [int(case["class_index"])], [method], "layer4")[method]
            maps.append(resize(rule(found), (64, 64))[0].numpy().ravel())
        mine = rows[(rows["stage"] == stage.name) & (rows["draw"] == 1) & (rows["metric"] == "spearman")]
        value = mine[(mine["case_id"] == case["case_id"]) & (mine["method"] == method)]["value"].item()
        if all(m.min() < m.max() for m in maps):
            assert value == pytest.approx(stats.spearmanr(*maps).statistic, abs=1e-4)
        else:
            assert np.isnan(value)


def test_draws_count_once_in_the_summary(whole: Run) -> None:
    rows, cases = merged(whole)
    summary = summarize(whole.store.merge()[0], whole.plan.cards())
    mine = summary[(summary["stage"] == "cascade_down/01:fc") & (summary["metric"] == "top_k_overlap")]
    line = mine[mine["method"] == "saliency"].iloc[0]
    own = rows[(rows["stage"] == line["stage"]) & (rows["metric"] == line["metric"]) & (rows["method"] == "saliency")]
    assert line["n"] == len(cases)
    assert line["value"] == pytest.approx(own.groupby("case_id")["value"].mean().mean())
    assert mine[mine["method"] == "constant"].empty


@pytest.mark.parametrize("batch_norm", ["redraw_affine", "recompute", "keep"])
def test_the_network_is_left_as_it_was(scenes_root: Path, tmp_path: Path, batch_norm: str) -> None:
    net = network()
    before = deepcopy(net.module.state_dict())
    state = torch.get_rng_state()
    settings = replace(ALL, draws=1, batch_norm=batch_norm, target="kept")
    run(staged(scenes_root, tmp_path, settings, net, indices=(0,), methods=("grad_cam",)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())


def test_also_when_something_raises(scenes_root: Path, tmp_path: Path) -> None:
    net = network()
    before = deepcopy(net.module.state_dict())
    job = staged(scenes_root, tmp_path, net=net, indices=(0,))
    (view, jobs), method = next(iter(job.plan.views.items())), job.plan.methods[0]
    calls = 0

    def fails(**given: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise ZeroDivisionError
        return method.function(**given)

    plan = replace(job.plan, methods=(replace(method, function=fails),), views={view: jobs})
    with pytest.raises(UserError, match="grad_cam failed"):
        run(replace(job, plan=plan))
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())


def test_the_stages_that_are_of_no_order(scenes_root: Path, tmp_path: Path) -> None:
    net = network()
    labels = ("smooth_mprt", "random_logit", "efficient_mprt", "spearman")
    settings = replace(ALL, orders=("cascade_down",), every=6, draws=1)
    job = staged(scenes_root, tmp_path, settings, net, metrics=labels, indices=(0, 1), twin=replace(net, name="twin"))
    run(job)
    rows, _ = merged(job)
    found = {metric: set(group["stage"].astype(str)) for metric, group in rows.groupby("metric", observed=True)}
    cascade = {"cascade_down/01:fc", "cascade_down/07:stem.0", "labels_permuted"}
    assert found == {
        "random_logit": {"other_class"},
        "efficient_mprt": {"all_random"},
        "smooth_mprt": cascade,
        "spearman": cascade,
    }
    same = rows[(rows["stage"] == "labels_permuted") & rows["method"].isin(["grad_cam", "saliency"])]["value"].dropna()
    assert np.allclose(same, 1)  # the twin of the test is the network itself


def test_the_class_is_retaken_where_that_is_asked(scenes_root: Path, tmp_path: Path) -> None:
    settings = replace(ALL, orders=("cascade_down",), every=9, draws=1)
    net, values = network(), {}
    for target in ("kept", "retaken"):
        job = staged(scenes_root, tmp_path / target, replace(settings, target=target), net, methods=("saliency",))
        run(job)
        rows, cases = merged(job)
        values[target] = rows[(rows["stage"] == "cascade_down/01:fc") & (rows["metric"] == "spearman")]["value"]
    assert len(cases) > 4
    assert not np.allclose(values["kept"], values["retaken"])


def test_stage_maps_are_stored_only_when_asked(whole: Run, scenes_root: Path, tmp_path: Path) -> None:
    whole.store.merge()
    assert set(whole.store.index()["stage"].astype(str)) == {"trained"}
    settings = Settings(granularity="block", every=9, keep=True)
    job = staged(scenes_root, tmp_path, settings, methods=("grad_cam",), indices=(0,))
    run(job)
    merged(job)
    index = job.store.index()
    assert set(index["stage"].astype(str)) == {"trained", "cascade_down/01:fc", "cascade_down/07:stem.0"}
    assert index["key"].is_unique


def trials(grids: list[list[float]]) -> tuple:
    """What `make_trial` gives for maps of one value each: a list a method of the image's one case."""
    case: Any = SimpleNamespace(id="a#0")
    methods: list[Any] = [SimpleNamespace(label=f"m{n}", rectify="none") for n in range(len(grids))]
    usual = [(n, torch.full((2, 2), g[0])) for n, g in enumerate(grids)]
    good = [(n, grid) for n, grid in usual if grid.isfinite().all()]
    broken = [(case, methods[n], "heatmap not finite") for n, grid in usual if not grid.isfinite().all()]
    size = (2, 2)
    empty = annotation("a", size)
    n = len(good)
    made = Trial([g for _, g in good], ["none"] * n, [0] * n, [0] * n, warp(size, size), empty, Protocol())
    return made, [(case, methods[n]) for n, _ in good], broken


def test_units_are_paired_where_both_maps_are_finite() -> None:
    lost = float("nan")
    trial, where, broken = paired(trials([[1.0], [2.0], [lost]]), trials([[lost], [3.0], [4.0]]))
    assert trial is not None
    assert trial.trained is not None
    assert [method.label for _, method in where] == ["m1"]
    assert (float(trial.grids[0][0, 0]), float(trial.trained.grids[0][0, 0])) == (2, 3)
    assert {method.label: why for _, method, why in broken} == {
        "m0": "trained network: heatmap not finite",
        "m2": "heatmap not finite",
    }
    whole = trials([[1.0], [2.0]])
    assert paired(whole, whole)[0].trained is whole[0]  # type: ignore[union-attr]


SANITY = ("metric=[spearman]", "preset=[]", "method=[grad_cam]", "limit=1", "workers=0")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model=none", "method=[center]"), "spearman questions the network, and there is none"),
        (("view.augment=flip",), "does not go with view.augment=flip"),
        (("randomize.target=retaken",), "view.target=predicted"),
        (("randomize.twin=scenes_gapp",), "scenes_gap"),
        (("randomize.twin=none",), "leads to no network"),
        (("randomize.draws=none",), "randomize.draws"),
        (("randomize.order=independent",), "orders"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    words: tuple[str, ...], sentence: str, scenes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "run", *SANITY, f"results={tmp_path}", *words)
    assert code == 2
    assert sentence in err


def test_nothing_is_randomised_unless_a_metric_needs_it(
    scenes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(randomize, "drawn", lambda *_: pytest.fail("weights were drawn"))
    run(staged(scenes_root, tmp_path, metrics=("pointing_game",), indices=(0,)))


def test_the_experiment_on_one_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("experiment=sanity", "limit=1", "randomize.every=13", f"results={tmp_path}", "name=one", "workers=0")
    code, _, err = call(capsys, "run", *words)
    assert code == 0, err
    folder = tmp_path / "sanity" / "one"
    assert (folder / "plots" / "stages-cascade_down.svg").is_file()
    assert (folder / "plots" / "stages-independent.png").is_file()
    assert "Sanity checks" in (folder / "report.html").read_text()
    summary = pd.read_csv(folder / "summary.csv")
    assert {"labels_permuted", "other_class", "all_random"} < set(summary["stage"])
    code, _, err = call(capsys, "score", str(folder))
    assert code == 2
    assert "gradcam-bench run metric=[efficient_mprt,hog_spearman," in err


def test_a_file_of_weights_is_a_twin_of_the_runs_own_model(tmp_path: Path) -> None:
    from gradcam_bench.models.scenes_nets import WEIGHTS

    config = {"model": spec("model", "scenes_gap"), "device": "cpu", "precision": "float32"}
    net = setup.make_network(config)
    assert net is not None
    twin = setup.make_twin(config, net, str(WEIGHTS / "scenes_gap_permuted.safetensors"))
    named = setup.make_twin(config, net, "scenes_gap_permuted")
    for name, value in twin.module.state_dict().items():
        assert torch.equal(value, named.module.state_dict()[name])
    assert not torch.equal(twin.module.fc.weight, net.module.fc.weight)  # type: ignore[union-attr]


def test_every_metric_says_what_it_compares() -> None:
    with pytest.raises(UserError, match="randomised"):
        catalogue.metric("spearman", {**spec("metric", "spearman"), "compares": "randomized"})
