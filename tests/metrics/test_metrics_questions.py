"""What every metric that questions the network must keep: it reads what it declares, each choice matters, and neither
the order of units nor what else is scored does."""

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch
from questioned import some, trials
from test_metrics_catalogue import scored

from gradcam_bench.axes import AXES
from gradcam_bench.catalogue import Metric, metric, names, spec
from gradcam_bench.choices import Protocol

METRICS = [label for label in names("metric") if metric(label, spec("metric", label)).needs == "model"]
QUICK = {"perturb_steps": 6, "perturb_shares": (20, 60), "perturb_samples": 5, "perturb_nearby": 2, "perturb_grid": 3}
NUMBERS = {
    "smooth": (0.1,),
    "perturb_keep": (0.4,),
    "perturb_steps": (9,),
    "perturb_shares": ((40,),),
    "perturb_noise": (0.5,),
    "perturb_grid": (4,),
    "perturb_patch": (0.5,),
    "perturb_samples": (9,),
    "perturb_side": (0.6,),
    "perturb_sigma": (1.0,),
    "perturb_nearby": (4,),
    "perturb_radius": (0.5,),
}
GAUSSIAN = {**QUICK, "perturb_draw": "gaussian", "smooth": 0.1}
# Bringing a map to [0, 1] another way leaves the order of its pixels; a map's own scale is fitted away.
IDLE = {(label, "normalize") for label in ("deletion", "insertion", "road_morf", "road_lerf", "road_combined")}
IDLE |= {("increase", "order")}  # too little to turn a yes into a no here


@pytest.mark.parametrize("label", METRICS)
def test_every_declared_axis_is_read_and_no_other(label: str) -> None:
    one, seen = metric(label, spec("metric", label)), set()
    for given in (*trials(QUICK, one.reads, seen), *trials(GAUSSIAN, one.reads, seen)):
        found = scored(one, given)
        assert all(part.isfinite().any() for part in found)
    assert seen == set(one.reads)


@pytest.mark.parametrize("label", METRICS)
def test_every_declared_axis_changes_a_number(label: str) -> None:
    one = metric(label, spec("metric", label))
    for axis in one.reads:
        values = AXES[axis].valid if AXES[axis].kind == "name" else NUMBERS[axis]
        assert (label, axis) in IDLE or any(differ(one, base, axis, values) for base in (QUICK, GAUSSIAN)), axis


def differ(one: Metric, base: Mapping, axis: str, values: Iterable) -> bool:
    def all_of(axes: Mapping) -> list:
        return [part.nan_to_num(-1).tolist() for given in trials(axes, one.reads) for part in scored(one, given)]

    plain = all_of(base)
    return any(all_of({**base, axis: value}) != plain for value in values)


@pytest.mark.parametrize("label", METRICS)
def test_the_order_of_units_and_what_else_is_scored_do_not_matter(label: str) -> None:
    one, order = metric(label, spec("metric", label)), [3, 0, 7, 4, 1, 6, 2, 5]
    for given in trials(QUICK, one.reads):
        whole = scored(one, given)
        for part, other in zip(whole, scored(one, some(given, order))):
            torch.testing.assert_close(other, part[order], rtol=0, atol=0, equal_nan=True)
        if label != "win":  # which compares with the others
            for unit in (1, 4):
                for part, other in zip(whole, scored(one, some(given, [unit]))):
                    torch.testing.assert_close(other, part[unit : unit + 1], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("label", METRICS)
def test_scoring_after_every_other_metric_and_protocol_gives_the_same(label: str) -> None:
    one, shared = metric(label, spec("metric", label)), trials()[1]
    others = [metric(other, spec("metric", other)) for other in METRICS]
    for other in [*others, *others[::-1]]:
        other.function(shared.under(Protocol(QUICK).only(other.reads)))
    for axis in one.reads:
        for value in AXES[axis].valid if AXES[axis].kind == "name" else NUMBERS[axis]:
            protocol = Protocol({**QUICK, axis: value}).only(one.reads)
            seen, clean = shared.under(protocol), trials()[1].under(protocol)
            for part, other in zip(scored(one, seen), scored(one, clean)):
                torch.testing.assert_close(part, other, rtol=0, atol=0, equal_nan=True)
            assert seen.notes == clean.notes


@pytest.mark.parametrize("label", METRICS)
def test_units_without_a_number_have_a_reason_and_numbers_their_range(label: str) -> None:
    one = metric(label, spec("metric", label))
    for given in trials(QUICK, one.reads):
        found = scored(one, given)
        missing = {unit for part in found for unit in range(len(given)) if part[unit].isnan().any()}
        assert missing <= set(given.notes)
        low = -1.0 if "road" in label or "correlation" in label else 0.0
        high = np.inf if label in ("infidelity", "max_sensitivity") else 1.0
        assert all(((part >= low) & (part <= high) | part.isnan()).all() for part in found)


def test_without_a_witness_a_metric_says_so() -> None:
    given = trials({}, metric("increase", spec("metric", "increase")).reads)[0]
    from dataclasses import replace

    with pytest.raises(ValueError, match="needs a witness"):
        metric("increase", spec("metric", "increase")).function(replace(given, witness=None))
