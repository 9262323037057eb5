"""Pages that are made from the code are as the code has them."""

import runpy
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.mark.parametrize("script", ["document_methods.py", "document_metrics.py"])
def test_the_pages_of_methods_and_metrics_are_up_to_date(script: str) -> None:
    made = runpy.run_path(str(SCRIPTS / script))
    assert made["OUT"].read_text(encoding="utf-8") == made["document"](), f"run python scripts/{script}"
