"""A pytest plugin: each check of a gate is a test.

pytest --gradcam-gate RUN --gradcam-baseline FILE [--gradcam-margin X]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradcam_bench.analysis.noninferiority import Check


class Missed(Exception):
    """A check that did not pass."""


class GateItem(pytest.Item):
    """One metric, protocol and method of the baseline."""

    def __init__(self, *, check: Check, **named: Any) -> None:
        super().__init__(**named)
        self.check = check

    def runtest(self) -> None:
        from gradcam_bench.analysis.noninferiority import PASS
        from gradcam_bench.report.verdicts import sentence

        if self.check.judged.verdict != PASS:
            raise Missed(f"{self.check.judged.verdict}: {sentence(self.check)}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if excinfo.errisinstance(Missed) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradcam-bench", "gate the quality of explanations")
    group.addoption("--gradcam-gate", metavar="RUN", help="the run's folder")
    group.addoption("--gradcam-baseline", metavar="FILE", help="the baseline that it is judged by")
    group.addoption(
        "--gradcam-margin", metavar="X", action="append", default=[], help="tolerated loss: 0.02, or METRIC=0.03"
    )
    group.addoption("--gradcam-alpha", metavar="A", help="the level of each verdict (default: 0.05)")
    group.addoption(
        "--gradcam-config", metavar="YAML", help="a file with margin, alpha, methods, metrics, unpaired, partial"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Adds a test a check, before -k chooses among them."""
    run, file = config.getoption("--gradcam-gate"), config.getoption("--gradcam-baseline")
    if run is None and file is None:
        return
    if run is None or file is None:
        raise pytest.UsageError("--gradcam-gate RUN and --gradcam-baseline FILE go together")
    from gradcam_bench.baseline import read
    from gradcam_bench.errors import UserError
    from gradcam_bench.finished import open_runs
    from gradcam_bench.gate import judgement
    from gradcam_bench.terms import terms

    margins, alpha, terms_file = (config.getoption(f"--gradcam-{name}") for name in ("margin", "alpha", "config"))
    try:
        (opened,) = open_runs([run])
        found = judgement(opened, read(Path(file)), terms(margins, alpha, config=terms_file))
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    names = (f"gradcam-gate[{check.metric}-{check.protocol}-{check.method}]" for check in found.checks)
    tests = [
        GateItem.from_parent(session, name=name, check=check) for name, check in zip(names, found.checks, strict=True)
    ]
    config.hook.pytest_collectreport(report=pytest.CollectReport("gradcam-gate", "passed", None, list(tests)))
    items += tests
