"""What docs/gate.md promises, on few scenes: no alarm where nothing changed, an alarm for every fault planted in code.

`scripts/simulate_gate.py` shows the same at full size; these are its own functions.
"""

import runpy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent.parent / "scripts/simulate_gate.py"
SCENES, PAIRS, EACH = 120, 100, 100
MOST = 9  # alarms: with a chance of 5 % each, 100 pairs have more in 3 of 100 simulations
SEEN = ("layer3 instead of layer4", "final ReLU dropped", "x and y swapped", "resize shifted by 16 pixels")


@pytest.fixture(scope="module")
def simulation() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def single(simulation: SimpleNamespace, results: Path) -> dict:
    return simulation.cells(results, "single", SCENES)


def codes(simulation: SimpleNamespace, draw, paired: bool) -> Counter:
    rng = np.random.default_rng(0)
    return Counter(simulation.code(*draw(rng), paired) for _ in range(PAIRS))


def test_independent_draws_raise_no_alarm(simulation: SimpleNamespace, single: dict) -> None:
    assert codes(simulation, simulation.drawn(single, single, SCENES // 2, False), False)[1] <= MOST


def test_rounding_raises_no_alarm(simulation: SimpleNamespace, single: dict, results: Path) -> None:
    half = simulation.cells(results, "half", SCENES, "precision=bf16")
    found = codes(simulation, simulation.drawn(single, half, SCENES // 2, True), True)
    assert found[1] <= MOST
    assert found[0] > 0  # and what has hardly changed can pass


@pytest.mark.parametrize("name", SEEN)
def test_a_planted_fault_is_seen_each_time(simulation: SimpleNamespace, single: dict, results: Path, name: str) -> None:
    fault = dict(simulation.faults())[name]
    with fault:
        broken = simulation.cells(results, "_".join(name.split()), SCENES, f"limit={EACH + 10}")
    assert codes(simulation, simulation.some(broken, single, EACH), True) == {1: PAIRS}
