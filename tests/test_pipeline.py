"""The loops: the same rows whatever the batches, the order, the shards and the interruptions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradcam_bench import catalogue, pipeline, plan, provenance
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.datasets.scenes import CLASSES
from gradcam_bench.datasets.voc import Voc
from gradcam_bench.errors import UserError
from gradcam_bench.models.network import Network, Preprocessing, fingerprint
from gradcam_bench.models.scenes_nets import scenes_fc, scenes_gap
from gradcam_bench.pipeline import Run, run
from gradcam_bench.store import Store

METHODS = ("cam", "grad_cam", "grad_cam_pp", "x_grad_cam", "layer_cam", "eigen_cam", "center", "noise")
METRICS = ("localization_error_gt_known", "localization_error_top1", "max_box_acc", "pointing_game")
PRESETS = ("default", "grad_cam_2017", "wsol_2020_v1", "wsol_2020_v2")


def network(name: str = "scenes_gap") -> Network:
    torch.manual_seed(5)
    module = {"scenes_gap": scenes_gap, "scenes_fc": scenes_fc}[name]().eval()
    layer = {"scenes_gap": "layer4", "scenes_fc": "features.20"}[name]
    return Network(name, module, Preprocessing("warp", 64, None), layer, fingerprint(name, module), "sigmoid", CLASSES)


def make_run(
    root: Path,
    folder: Path,
    net: Network | None = None,
    methods: Sequence[str] = METHODS,
    presets: Sequence[str] = PRESETS,
    metrics: Sequence[str] = METRICS,
    **options: object,
) -> Run:
    chosen = [catalogue.method(name, catalogue.spec("method", name)) for name in methods]
    scored = [catalogue.metric(name, catalogue.spec("metric", name)) for name in metrics]
    recipes = [catalogue.preset(name, catalogue.spec("preset", name)) for name in presets]
    recipes = [replace(recipe, view={}) for recipe in recipes]  # at the little network's own size
    dataset = Voc(root, split="test", classes=CLASSES, name="scenes")
    preprocessing = net.preprocessing if net else Preprocessing("warp", 64, None)
    made = plan.make(chosen, scored, recipes, preprocessing)
    job = Run(dataset, net, made, Store(folder), preprocessing, batch_size=4, indices=tuple(range(len(dataset.ids))))
    return replace(job, **options)  # type: ignore[arg-type]


def tables(job: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, cases = merged(job)
    return rows, cases.drop(columns="seconds")


def merged(job: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, cases = job.store.merge()
    return rows.with_curves(rows.frame), cases


def assert_same(one: Run, other: Run, tolerance: float = 0.0) -> None:
    for left, right in zip(tables(one), tables(other), strict=True):
        assert len(left) > 0
        for column in left:
            if column == "curve":
                mine, theirs = left[column].dropna(), right[column].dropna()
                assert list(mine.index) == list(theirs.index)
                assert np.abs(np.stack(mine.to_list()) - np.stack(theirs.to_list())).max() <= tolerance
            elif left[column].dtype == float:
                np.testing.assert_allclose(left[column], right[column], rtol=0, atol=tolerance)
            else:
                assert list(left[column].astype(str)) == list(right[column].astype(str)), column


@pytest.fixture(scope="module")
def whole(scenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    job = make_run(scenes_root, tmp_path_factory.mktemp("whole"), network())
    run(job)
    return job


@pytest.mark.parametrize("batch_size", [1, 3, 12])
@pytest.mark.parametrize("name", ["scenes_gap", "scenes_fc"])
def test_batch_size_changes_no_row(scenes_root: Path, tmp_path: Path, name: str, batch_size: int) -> None:
    methods = METHODS if name == "scenes_gap" else METHODS[1:]
    one = make_run(scenes_root, tmp_path / "one", network(name), methods)
    other = make_run(scenes_root, tmp_path / "other", network(name), methods, batch_size=batch_size)
    run(one)
    run(other)
    assert_same(one, other, 1e-6)


def test_order_changes_no_row(scenes_root: Path, tmp_path: Path, whole: Run) -> None:
    shuffled = make_run(scenes_root, tmp_path, network(), indices=(7, 0, 11, 3, 2, 9, 1, 10, 4, 6, 8, 5))
    run(shuffled)
    assert_same(whole, shuffled, 1e-6)


def test_shards_change_no_row(scenes_root: Path, tmp_path: Path, whole: Run) -> None:
    for rank in range(3):
        run(make_run(scenes_root, tmp_path, network(), indices=tuple(range(12))[rank::3], rank=rank))
    assert_same(whole, make_run(scenes_root, tmp_path, network()), 1e-6)


def test_workers_change_no_row(scenes_root: Path, tmp_path: Path, whole: Run) -> None:
    parallel = make_run(scenes_root, tmp_path, network(), workers=2)
    run(parallel)
    assert_same(whole, parallel)


def test_batches_scored_while_others_are_explained_change_no_row(
    scenes_root: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pipeline.AHEAD, "cpu", 2)
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)
    advanced: list[int] = []
    job = make_run(scenes_root, tmp_path, network(), batch_size=2)
    run(job, advanced.append)
    assert_same(whole, job, 1e-6)
    assert sum(advanced) == 12


def test_controls_alone_open_no_picture(scenes_root: Path, tmp_path: Path) -> None:
    seen = make_run(scenes_root, tmp_path / "seen", network(), ("center", "noise", "grad_cam"), metrics=METRICS[2:])
    run(seen)
    root = tmp_path / "root"
    shutil.copytree(scenes_root, root)
    for picture in root.rglob("JPEGImages/*"):
        picture.unlink()
    blind = make_run(root, tmp_path / "blind", None, ("center", "noise"), metrics=METRICS[2:])
    run(blind)
    columns = ["case_id", "method", "metric", "protocol", "value", "problem"]
    theirs, mine = tables(seen)[0], tables(blind)[0]
    theirs = theirs[theirs["method"] != "grad_cam"]
    assert mine[columns].astype(str).to_numpy().tolist() == theirs[columns].astype(str).to_numpy().tolist()
    assert list(map(list, mine["curve"].dropna())) == list(map(list, theirs["curve"].dropna()))


def test_an_interrupted_run_goes_on_and_changes_no_row(
    scenes_root: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "FIRST_PART_SECONDS", 0.0)
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)
    job = make_run(scenes_root, tmp_path, network(), batch_size=4)
    seen = 0

    def stop(count: int) -> None:
        nonlocal seen
        seen += count
        if seen >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, stop)
    done = sorted(index for part in job.store.finished().values() for index in part["done"])
    assert done == list(range(8))  # what was done when the run was stopped is written
    calls: list[int] = []
    run(job, calls.append)
    assert sum(calls) == 12
    assert_same(whole, job)


def test_a_finished_run_is_not_run_again(scenes_root: Path, whole: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.store.parts.iterdir()}
    run(whole)
    assert {path: path.stat().st_mtime_ns for path in whole.store.parts.iterdir()} == before


def test_every_case_method_and_job_has_one_row(whole: Run) -> None:
    rows, cases = merged(whole)
    keys = ["case_id", "method", "metric", "protocol"]
    assert not rows.duplicated(keys).any()
    (jobs,) = whole.plan.views.values()  # all presets come to one view here
    assert len(rows) == len(cases) * len(METHODS) * len(jobs)
    assert set(rows["case_id"]) == set(cases["case_id"])
    assert rows["problem"].isna().all() or set(rows["problem"].dropna()) <= {"difficult"}


def test_cases_are_the_annotated_classes(whole: Run) -> None:
    _, cases = whole.store.merge()
    dataset = whole.dataset
    wanted = {f"{dataset.ids[i]}#{c}" for i in range(len(dataset.ids)) for c in dataset.annotate(i).classes}
    assert set(cases["case_id"]) == wanted
    assert (cases["probability"].between(0, 1)).all()
    # an image's one forward pass is shared by its cases
    assert cases["forwards"].sum() == pytest.approx(len(dataset.ids))


def test_what_the_rows_say_of_grad_cam_on_a_gap_net(whole: Run) -> None:
    """CAM, Grad-CAM and XGrad-CAM are one map up to a positive factor here, so every score of theirs must agree."""
    summary = summarize(whole.store.merge()[0], whole.plan.cards())
    table = summary.pivot_table(index="method", columns=["metric", "protocol"], values="value", observed=True)
    assert (table.loc["grad_cam"] == table.loc["cam"]).all()
    assert (table.loc["grad_cam"] == table.loc["x_grad_cam"]).all()
    assert (table.loc["noise"] != table.loc["cam"]).any()


def test_stored_maps_are_signed_and_small(whole: Run) -> None:
    whole.store.merge()
    index = whole.store.index()
    assert set(index["method"]) == set(METHODS) - {"center", "noise"}  # 64x64: not kept by store=grid
    lows = [float(heatmap.min()) for entry, heatmap in whole.store.read(index) if entry["method"] == "grad_cam"]
    assert min(lows) < 0


@pytest.mark.parametrize(("keep", "expected"), [("none", set()), ("all", set(METHODS))])
def test_what_is_kept(scenes_root: Path, tmp_path: Path, keep: str, expected: set[str]) -> None:
    job = make_run(scenes_root, tmp_path, network(), keep=keep, indices=(0, 1))
    run(job)
    job.store.merge()
    assert set(job.store.index()["method"]) == expected


def test_without_a_model_controls_still_run(scenes_root: Path, tmp_path: Path) -> None:
    metrics = ("pointing_game", "localization_error_top1")
    job = make_run(scenes_root, tmp_path, None, ("center",), ("default", "grad_cam_2017"), metrics, indices=(0, 1, 2))
    run(job)
    rows, cases = merged(job)
    assert set(rows["model"]) == {"none"}
    assert cases["rank"].isna().all()
    by_metric = rows.groupby("metric", observed=True)
    assert by_metric["value"].count()["pointing_game"] > 0
    assert set(by_metric.get_group("localization_error_top1")["problem"]) == {
        "no rank of the class: no model, or outputs not finite"
    }


def broken_copy(root: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "broken"
    shutil.copytree(root, copy)
    pictures = copy / "VOCdevkit" / "VOC2012" / "JPEGImages"
    (pictures / "scene_000002.png").write_bytes((pictures / "scene_000002.png").read_bytes()[:400])
    return copy


def test_a_corrupt_image_is_named_counted_and_skipped(scenes_root: Path, tmp_path: Path) -> None:
    job = make_run(broken_copy(scenes_root, tmp_path), tmp_path / "run", network())
    run(job)
    parts = job.store.finished()
    skipped = [entry for part in parts.values() for entry in part.get("skipped", [])]
    assert [entry["image_id"] for entry in skipped] == ["scene_000002"]
    assert "scene_000002.png: cannot be decoded" in skipped[0]["reason"]
    rows, _ = merged(job)
    assert "scene_000002" not in set(rows["image_id"])
    assert len(set(rows["image_id"])) == 11
    assert sorted(index for part in parts.values() for index in part["done"]) == list(range(12))


def test_on_error_raise_stops_at_the_first(scenes_root: Path, tmp_path: Path) -> None:
    job = make_run(broken_copy(scenes_root, tmp_path), tmp_path / "run", network(), on_error="raise")
    with pytest.raises(UserError, match=r"scene_000002\.png: cannot be decoded"):
        run(job)


def test_a_map_that_is_not_finite_is_a_problem_not_a_score(scenes_root: Path, tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        net.module.fc.weight[:, 0] = float("nan")
    job = make_run(scenes_root, tmp_path, net, ("grad_cam", "center"), indices=(0, 1))
    run(job)
    rows, _ = merged(job)
    assert set(rows.loc[rows["method"] == "grad_cam", "problem"]) == {"heatmap not finite"}
    assert rows.loc[rows["method"] == "grad_cam", "value"].isna().all()
    center = rows[rows["method"] == "center"]
    ranked = center["metric"] == "localization_error_top1"  # there is no rank among outputs that are not finite
    assert center.loc[~ranked, "problem"].isna().all()
    assert center.loc[ranked, "problem"].notna().all()
    counted = [part["degenerate"]["grad_cam"]["not finite"] for part in job.store.finished().values()]
    assert sum(counted) == rows.loc[rows["method"] == "grad_cam", "case_id"].nunique()


def test_images_of_several_sizes_share_a_run(scenes_root: Path, tmp_path: Path) -> None:
    """view.resize=none leaves each picture its own size; batches are then made of equal sizes."""
    job = make_run(scenes_root, tmp_path, network(), ("grad_cam",), ("default",), ("pointing_game",))
    views = {replace(view, resize="none", size=None): jobs for view, jobs in job.plan.views.items()}
    job = replace(job, plan=replace(job.plan, views=views), indices=(0, 1, 2, 3))
    run(job)
    rows, _ = merged(job)
    assert rows["image_id"].nunique() == 4
    assert len({job.dataset.annotate(index).size for index in range(4)}) > 1


@pytest.mark.parametrize(("fill", "right"), [(float("nan"), 0.0), (0.0, None)])
def test_a_network_that_says_nothing_is_not_always_right(
    scenes_root: Path, tmp_path: Path, fill: float, right: float | None
) -> None:
    """Outputs that are not finite are wrong answers; among equal ones the first class, and it alone, is the answer."""
    net = network()
    with torch.no_grad():
        net.module.fc.weight.fill_(fill)
        net.module.fc.bias.fill_(0.0)
    job = make_run(scenes_root, tmp_path, net, ("center",), ("default",), ("pointing_game",))
    run(job)
    _, cases = job.store.merge()
    if right is not None:
        assert not cases["correct_top1"].astype(bool).any()
        assert cases["rank"].isna().all()
    else:
        assert (cases["rank"] == cases["class_index"]).all()
        assert (cases["predicted"] == 0).all()


def test_rows_join_their_cases_under_several_views(scenes_root: Path, tmp_path: Path) -> None:
    job = make_run(scenes_root, tmp_path, network(), ("grad_cam",), ("default",), ("pointing_game",), indices=(0, 1))
    ((view, jobs),) = job.plan.views.items()
    views = {view: jobs, replace(view, size=96): (replace(jobs[0], id="custom-00000000"),)}
    job = replace(job, plan=replace(job.plan, views=views))
    run(job)
    rows, cases = merged(job)
    assert rows["view"].nunique() == 2
    assert len(rows.merge(cases, on=["case_id", "view"])) == len(rows)


def test_large_maps_are_halved_only_where_that_costs_little() -> None:
    maps = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    assert pipeline._halved(maps).dtype == torch.float16
    tiny, huge = maps * 1e-7, maps * 1e6  # below what float16 resolves, above what it holds
    for kept in (tiny, huge):
        assert torch.equal(pipeline._halved(kept), kept)
    assert pipeline._halved(torch.zeros(0, 40, 40)).shape == (0, 40, 40)


def test_costs_are_counted_for_each_map_and_in_all(whole: Run) -> None:
    """A look is one forward pass an image and one backward pass a case; what asks nothing of the network costs none."""
    whole.store.merge()
    index = whole.store.index()
    mine = index[index["method"] == "grad_cam"]
    assert (mine["backwards"] == 1).all()
    assert mine["forwards"].sum() == pytest.approx(mine["image_id"].nunique())
    assert (mine["seconds"] > 0).all()
    totals = provenance.costs(list(whole.store.finished().values()))
    (spent,) = totals["grad_cam"].values()
    assert spent["cases"] == len(mine)
    assert spent["backwards"] == mine["backwards"].sum()
    assert spent["seconds"] == pytest.approx(mine["seconds"].sum())
    for cost in totals["center"].values():
        assert (cost["forwards"], cost["head_forwards"], cost["backwards"]) == (0, 0, 0)
