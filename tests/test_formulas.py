"""docs/methods.md says of each label what that label computes."""

import runpy
from pathlib import Path

import pytest

from gradcam_bench import catalogue
from gradcam_bench.catalogue import Method

PAGE = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "document_methods.py"))
LABELS = catalogue.names("method")


def method(label: str) -> Method:
    return catalogue.method(label, catalogue.spec("method", label))


def test_no_two_labels_of_a_function_print_one_formula() -> None:
    """They differ in settings, so in what they compute."""
    seen: dict[tuple[str, str], str] = {}
    for label in LABELS:
        made = method(label)
        key = (PAGE["function_of"](made).__qualname__, PAGE["formula"](made))
        assert key not in seen, f"{label} and {seen[key]}"
        seen[key] = label


@pytest.mark.parametrize("label", LABELS)
def test_a_formula_stands_by_itself(label: str) -> None:
    """It refers to no row above, and to no other function of the code."""
    formula = PAGE["formula"](method(label))
    assert formula
    assert not formula.startswith(("The same", "the same"))
    assert "`attribution`" not in formula


SIGNED = ("cam", "hires_cam", "eigen_cam", "kpca_cam", "input_x_gradient", "integrated_gradients", "relevance_cam")


@pytest.mark.parametrize("label", LABELS)
def test_where_the_last_step_is_not_the_papers_the_page_says_so(label: str) -> None:
    """Of papers that draw a signed map, whose negative values are dropped or mirrored here."""
    made = method(label)
    base = label.removesuffix("_zero").removesuffix("_centered")
    assert bool(made.unlike_paper) == (base in SIGNED)
    if made.unlike_paper:
        assert made.rectify != "none"
        assert f"| {made.rectify}: {made.unlike_paper} |" in PAGE["document"]()


def test_the_methods_without_another_implementation_are_methods() -> None:
    alone = PAGE["ALONE"]
    assert len(set(alone)) == len(alone)
    assert {*alone} <= {label for label in LABELS if not label.startswith("external_") and not method(label).control}
