"""Pages that are made from the code are as the code has them."""

import runpy
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_the_page_of_methods_is_up_to_date() -> None:
    made = runpy.run_path(str(SCRIPTS / "document_methods.py"))
    assert made["OUT"].read_text(encoding="utf-8") == made["document"](), "run python scripts/document_methods.py"
