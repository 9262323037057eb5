"""The witness: the same answers whatever is asked beside, whatever the batches, and a model left as it was found."""

from dataclasses import replace

import pytest
import torch
from test_pipeline import make_run, network, tables

from gradcam_bench import catalogue, pipeline
from gradcam_bench.choices import View
from gradcam_bench.explain import explain_batch
from gradcam_bench.geometry import warp
from gradcam_bench.probe import Probe
from gradcam_bench.samples import Batch, Sample, annotation
from gradcam_bench.witness import Witness
from gradcam_bench.witnesses import witness_of

METHODS = ["grad_cam", "layer_cam", "smooth_grad_cam_pp", "center", "noise"]


def asked(labels=METHODS, classes=(3, 1), seed=0):
    """A witness of one random image, its heatmaps and its network."""
    net = network()
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(seed))
    sample = Sample(0, image, warp((64, 64), (64, 64)), annotation("a", (64, 64), classes=classes), "")
    probe = Probe(net.module, [net.layer])
    methods = [catalogue.method(label, catalogue.spec("method", label)) for label in labels]
    cases, maps, _ = explain_batch(Batch(image[None], (sample,)), net, probe, methods, View(), 4)
    where = [(case, method) for method in methods for case in cases]
    grids = [grid for method in methods for grid in maps[method.label]]
    return witness_of(net, probe, View(), where), grids, net, where


def test_stacks_of_any_lengths_give_the_same_answers_as_one_block() -> None:
    witness, _, net, _ = asked()
    images = torch.randn(21, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    whole = witness.outputs(images)
    assert whole.shape == (21, 10)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(witness.outputs(images.split([1, 7, 0, 9, 4])), whole, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(whole, net.module(images), rtol=1e-4, atol=1e-5)
    turned = torch.randperm(21, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(witness.outputs(images[turned]), whole[turned], rtol=0, atol=0)
    torch.testing.assert_close(witness.outputs(images[5:6]), whole[5:6], rtol=0, atol=0)
    assert witness.outputs([]).shape == (0, 10)


def test_a_block_never_has_another_size() -> None:
    sizes = []

    def answer(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images.mean((2, 3))

    colour = torch.zeros(3, 1, 1)
    witness = Witness(
        torch.zeros(3, 4, 4), 5, answer, lambda x: x, lambda images, units: [], ["a#0"], 0, colour, colour
    )
    images = torch.randn(13, 3, 4, 4)
    torch.testing.assert_close(witness.outputs(iter(images.split(4))), images.mean((2, 3)))
    assert sizes == [5, 5, 5]


def test_logits_are_those_of_the_image_among_others() -> None:
    witness, _, _, where = asked()
    assert torch.equal(witness.outputs(witness.image[None].expand(3, -1, -1, -1))[2], witness.logits)
    for case, _ in where:
        assert float(witness.logits[case.target]) == pytest.approx(case.logit, abs=1e-5)


def test_the_image_itself_is_explained_as_it_was() -> None:
    witness, grids, _, _ = asked()
    units = [3, 0, 7, 1, 2, 5, 4, 9, 8, 6]
    again = witness.explain(witness.image.expand(len(units), -1, -1, -1), units)
    for unit, heatmap in zip(units, again):
        torch.testing.assert_close(heatmap, grids[unit], rtol=1e-4, atol=1e-6)


def test_other_images_are_explained_each_for_its_own_unit() -> None:
    witness, _, net, where = asked(["grad_cam", "layer_cam"])
    images = torch.randn(11, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    units = [0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 0]
    found = witness.explain(images, units)
    assert len(found) == 11
    for n in (0, 3, 8, 10):
        alone = witness.explain(images[n : n + 1], units[n : n + 1])[0]
        torch.testing.assert_close(alone, found[n], rtol=1e-5, atol=1e-7)
        case, method = where[units[n]]
        sample = replace(
            case.sample, pixels=images[n], annotation=replace(case.sample.annotation, classes=(case.target,))
        )
        slow = explain_batch(Batch(images[n : n + 1], (sample,)), net, Probe(net.module, [net.layer]), [method], View())
        torch.testing.assert_close(found[n], slow.maps[method.label][0], rtol=1e-4, atol=1e-6)


def test_the_network_is_left_as_it_was() -> None:
    witness, _, net, _ = asked()
    net.module.train()
    net.module.requires_grad_(True)
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    witness.outputs(witness.image[None])
    witness.explain(witness.image[None], [0])
    assert net.module.training
    assert all(p.requires_grad and p.grad is None for p in net.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())


def test_draws_depend_on_name_and_case_alone() -> None:
    witness, _, _, where = asked()

    def draw(name: str, unit: int) -> list[float]:
        return torch.rand(2, generator=witness.generator(name, unit)).tolist()

    assert where[0][0].id == where[2][0].id != where[1][0].id
    assert draw("road", 0) == draw("road", 2) != draw("road", 1)
    assert draw("road", 0) != draw("infidelity", 0)


MODEL = tuple(
    label
    for label in catalogue.names("metric")
    if catalogue.metric(label, catalogue.spec("metric", label)).needs == "model"
)


def test_rows_depend_neither_on_the_batches_nor_on_what_else_runs(scenes_root, tmp_path) -> None:
    net, metrics = network(), [label for label in MODEL if label != "win"]
    options = {"presets": ("default",), "metrics": (*metrics, "pointing_game"), "indices": (0, 1, 2)}
    one = make_run(scenes_root, tmp_path / "one", net, ("grad_cam", "noise", "layer_cam"), **options)
    two = make_run(scenes_root, tmp_path / "two", net, ("grad_cam", "noise", "layer_cam"), batch_size=3, **options)
    pipeline.run(replace(one, batch_size=1))
    pipeline.run(two)
    assert_rows(tables(one)[0], tables(two)[0], 1e-3)  # rounding may put two nearly equal pixels in another order
    three = make_run(scenes_root, tmp_path / "three", net, ("layer_cam",), **{**options, "metrics": metrics[::-1]})
    pipeline.run(replace(three, batch_size=3))
    rows = tables(two)[0]
    mine = rows[(rows["method"].astype(str) == "layer_cam") & (rows["metric"].astype(str) != "pointing_game")]
    assert_rows(tables(three)[0], mine, 0.0)
    assert set(rows["metric"].astype(str)) == {*metrics, "pointing_game"}
    assert len(rows) == 3 * len(rows["case_id"].unique()) * (len(metrics) + 1)


def assert_rows(left, right, tolerance: float) -> None:
    order = ["method", "metric", "case_id"]
    left, right = (t.assign(**{k: t[k].astype(str) for k in order}).sort_values(order) for t in (left, right))
    assert left[order].to_numpy().tolist() == right[order].to_numpy().tolist()
    for mine, theirs in zip(left["value"], right["value"]):
        assert mine == pytest.approx(theirs, abs=tolerance, nan_ok=True)
    for mine, theirs in zip(left["curve"], right["curve"]):
        assert (mine is None) == (theirs is None)
        assert mine is None or abs(mine - theirs).max() <= tolerance
