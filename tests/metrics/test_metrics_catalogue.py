"""Every file in conf/metric brings these tests: it builds, declares what it reads, and does not care about order."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gradcam_bench.analysis import reductions
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.axes import AXES
from gradcam_bench.catalogue import CONF, Metric, metric, names, spec
from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import Frame
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial

METRICS = [label for label in names("metric") if metric(label, spec("metric", label)).needs == "maps"]


class Recording(Protocol):
    """A protocol that writes down which of its axes are read."""

    def __init__(self, axes: Mapping, readable: Iterable[str], seen: set[str]) -> None:
        super().__init__(axes, readable)
        self.seen = seen

    def __getitem__(self, name: str):
        self.seen.add(name)
        return super().__getitem__(name)


def trials(axes: Mapping | None = None, reads: Iterable[str] = AXES, seen: set[str] | None = None) -> list[Trial]:
    """Three images, eight units each, under a crop: maps of two grids, one flat and one nowhere positive."""
    made, generator = [], torch.Generator().manual_seed(0)
    for image in range(3):
        plateaus = torch.tensor([0.0, 0.5004, 1.0])[torch.randint(3, (4, 4), generator=generator)]
        grids = [plateaus, *torch.randn(2, 7, 7, generator=generator), torch.full((7, 7), 2.0)]
        grids += [-1 - torch.rand(7, 7, generator=generator), *torch.randn(3, 6, 7, generator=generator)]
        objects = [(0, (5 + image, 3, 21, 14), True), (1, (9, 8, 21, 19), False), (0, (12, 1, 20, 9), image > 0)]
        masks = torch.rand(2, 20, 28, generator=generator) > 0.7
        made.append(
            Trial(
                grids,
                ["relu", "none"] * 2 + ["none", "relu", "none", "none"],
                [0, 1, 0, 1, 0, 0, 1, 0],
                [0, 3, 7, 0, 1, 0, 0, 0],
                Frame((20, 28), (16, 16), (0.9, 0.9), (1.0, 4.0)),
                annotation(f"image{image}", (20, 28), objects, masks=masks, mask_labels=torch.tensor([0, 1])),
                Recording(axes or {}, reads, set() if seen is None else seen),
                picture=(masks[:1] * 150 + torch.arange(3)[:, None, None] * 20).to(torch.uint8),
            )
        )
    return made


def scored(one: Metric, given: Trial) -> list[torch.Tensor]:
    found = one.function(given)
    return [part for part in (found if isinstance(found, tuple) else (found,)) if part is not None]


def reduced(one: Metric, axes: Mapping, seen: set[str] | None = None) -> float:
    """The metric's number over all the trials, its reduction's reading of axes written down too."""
    values, curves, classes, images = [], [], [], []
    for image, given in enumerate(trials(axes, one.reads, seen)):
        found = one.function(given)
        statistic, curve = found if isinstance(found, tuple) else (found, None)
        for unit in range(len(given)):
            if all(part is None or not part[unit].isnan().any() for part in (statistic, curve)):
                values.append(torch.nan if statistic is None else float(statistic[unit]))
                curves.append(None if curve is None else curve[unit].numpy())
                classes.append(given.classes[unit])
                images.append(image)
    if not values:
        return -1.0
    stacked = None if curves[0] is None else np.stack(curves)
    protocol = Recording(axes, one.reads, set() if seen is None else seen)
    cell = Cell(np.array(values), stacked, np.array(classes), np.array(images), protocol)
    return reductions.number(cell, one.reduce)


@pytest.mark.parametrize("path", sorted((CONF / "metric").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_metrics_file_holds_its_label_and_builds(path: Path) -> None:
    assert path.read_text().startswith("# @package metric\n")
    assert list(yaml.safe_load(path.read_text())) == [path.stem]
    one = metric(path.stem, spec("metric", path.stem))
    assert one.about
    assert one.function.__doc__
    assert one.function.__name__ == path.stem
    assert list(one.reads) == list(dict.fromkeys(one.reads))
    written = spec("metric", path.stem)
    assert {"unit", "higher_is_better", "needs", "reads", "reduce"} <= set(written), (
        "directions are declared, not implied"
    )
    if "error" in path.stem:
        assert one.higher_is_better is False


@pytest.mark.parametrize("label", METRICS)
def test_every_declared_axis_is_read_and_no_other(label: str) -> None:
    one, seen = metric(label, spec("metric", label)), set()
    assert np.isfinite(reduced(one, {}, seen))  # an axis that is not declared cannot be read: it raises
    assert seen == set(one.reads)


# Every axis matters under one of these at least, save that resizing moves no peak of a map normalised before or after,
# and that the maps whose peak normalising moves, being nowhere positive, are rejected or flat.
FINE = {"iou_threshold": [n / 40 for n in range(1, 40)], "tolerance": 0}
AROUND = (
    {},
    FINE,
    {"frame": "input", "threshold": 0.5, "resize": "nearest", **FINE},
    {"frame": "input", **FINE},
    {"smooth": 0.1},
    {"frame": "input", "smooth": 0.1, **FINE},
    {"frame": "input", "smooth": 0.1, "threshold": 0.5, "rule": "components", **FINE},
    {"frame": "input", "region": "mask", "rectify": "none", **FINE},
    {"frame": "input", "threshold": 0.5, "resize": "cubic_cv2", "normalize": "none", **FINE},
    {"frame": "input", "threshold": 0.5, "resize": "nearest", "rule": "components", **FINE},
)
IDLE = {("pointing_game", "order"), ("pointing_game_rejection", "normalize")}
NUMBERS = {"tolerance": (0, 2), "threshold": (0.6,), "iou_threshold": (0.33,), "rejection": (0.7, 1.5)}
NUMBERS |= {"crf": (4,), "smooth": (0.1,), "background": (0.4,), "background_levels": ((0.4, 0.8),)}


@pytest.mark.parametrize("label", METRICS)
def test_every_declared_axis_changes_a_number(label: str) -> None:
    one = metric(label, spec("metric", label))
    for axis in one.reads:
        values = AXES[axis].valid if AXES[axis].kind == "name" else NUMBERS[axis]
        assert (label, axis) in IDLE or any(differ(one, base, axis, values) for base in AROUND), axis


def differ(one: Metric, base: Mapping, axis: str, values: Iterable) -> bool:
    def all_of(axes: Mapping) -> list:
        units = [part.nan_to_num(-1).tolist() for given in trials(axes, one.reads) for part in scored(one, given)]
        return [units, reduced(one, axes)]

    plain = all_of(base)
    return any(all_of({**base, axis: value}) != plain for value in values)


@pytest.mark.parametrize("label", METRICS)
def test_the_order_of_units_and_what_else_is_scored_do_not_matter(label: str) -> None:
    one, order = metric(label, spec("metric", label)), [3, 0, 7, 4, 1, 6, 2, 5]
    for given in trials({}, one.reads):
        whole = scored(one, given)
        turned = Trial(
            *([list(part)[i] for i in order] for part in (given.grids, given.paper, given.classes, given.ranks)),
            given.frame,
            given.annotation,
            given.protocol,
        )
        for part, other in zip(whole, scored(one, turned)):
            torch.testing.assert_close(other, part[order], rtol=0, atol=0, equal_nan=True)
        alone = Trial(
            given.grids[1:2],
            ["none"],
            given.classes[1:2],
            given.ranks[1:2],
            given.frame,
            given.annotation,
            given.protocol,
        )
        for part, other in zip(whole, scored(one, alone)):
            torch.testing.assert_close(other, part[1:2], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("label", METRICS)
def test_scoring_after_every_other_metric_gives_the_same(label: str) -> None:
    one = metric(label, spec("metric", label))
    others = [metric(other, spec("metric", other)) for other in METRICS]
    for given, fresh in zip(trials(), trials()):
        for other in [*others, *others[::-1]]:
            other.function(given.under(Protocol().only(other.reads)))
        seen, clean = given.under(Protocol().only(one.reads)), fresh.under(Protocol().only(one.reads))
        for part, other in zip(scored(one, seen), scored(one, clean)):
            torch.testing.assert_close(part, other, rtol=0, atol=0, equal_nan=True)
        assert seen.notes == clean.notes


@pytest.mark.parametrize("label", METRICS)
def test_scoring_after_every_other_protocol_gives_the_same(label: str) -> None:
    one = metric(label, spec("metric", label))
    shared = trials()[1]
    for axis in one.reads:
        for value in AXES[axis].valid if AXES[axis].kind == "name" else NUMBERS[axis]:
            protocol = Protocol({"frame": "input", **FINE, axis: value}).only(one.reads)
            seen, clean = shared.under(protocol), trials()[1].under(protocol)
            for part, other in zip(scored(one, seen), scored(one, clean)):
                torch.testing.assert_close(part, other, rtol=0, atol=0, equal_nan=True)
            assert seen.notes == clean.notes


@pytest.mark.parametrize("label", METRICS)
def test_units_without_a_number_have_a_reason(label: str) -> None:
    one = metric(label, spec("metric", label))
    for given in trials({}, one.reads):
        missing = {unit for part in scored(one, given) for unit in range(len(given)) if part[unit].isnan().any()}
        assert missing <= set(given.notes)
