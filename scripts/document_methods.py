"""Writes docs/methods.md from conf/method and the functions' docstrings: python scripts/document_methods.py"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradcam_bench import catalogue
from gradcam_bench.catalogue import PASSES, Method

OUT = Path(__file__).parent.parent / "docs" / "methods.md"
HEAD = """# Methods

Each is one function and one file in `conf/method/`; this page is made from them by `scripts/document_methods.py`.
*Asks* is what a method needs of the network; everything of one kind is shared by all methods of a run that need it.
A heatmap is signed, or what the formula makes it; *then* (`relu`, `abs` or none) is what is done to it before it is
scored: the last step of its paper unless said otherwise, which the protocol axis `rectify` can replace. Several
published definitions of one name are several labels. Controls know nothing of the network. In formulas A [C,h,w] are
the target layer's activations, G the gradient of the case's score S there, k runs over channels, i and j over places
(in relevance rules: over the inputs and outputs of a layer with weights w), x or X is the image as it is fed, ^+ and ^-
the positive and the negative part, Up enlarges to the image's size.

Where the implementations of pytorch-grad-cam, torchcam and captum compute something else under the same name, the tests
in `tests/parity/` say which equation each of them computes.

No independent implementation is asked in the tests of {alone}: what they
are held against is their formula written a second time, as plain loops (`tests/methods/slow_*.py`), cases by hand and
identities.
"""
ALONE = (  # no library at hand computes them, or none without changing the equation
    *("attention_rollout", "generic_attention", "counterfactual_grad_cam", "grad_cam_abs", "grad_cam_gmp"),
    *("grad_cam_deconv_relu", "grad_cam_guided_relu", "grad_cam_pp", "grad_cam_pp_code", "grad_cam_pp_numeric"),
    *("layer_cam_code", "shapley_cam_code", "eigen_cam", "fem", "integrated_grad_cam", "integrated_grad_cam_code"),
    *("smooth_grad_cam_pp", "smooth_grad_cam_pp_second", "layer_cam_fused", "score_cam_code", "is_cam_code"),
    *("ss_cam", "ss_cam_code", "group_cam", "group_cam_code", "recipro_cam", "recipro_cam_gaussian", "opti_cam"),
    *("opti_cam_code", "poly_cam", "poly_cam_code", "poly_cam_minus", "poly_cam_plus", "rise", "rise_8000"),
    *("extremal_perturbation", "excitation_backprop", "excitation_backprop_code", "contrastive_excitation_backprop"),
    *("contrastive_excitation_backprop_code", "relevance_cam", "lrp_gamma", "lrp_epsilon_plus"),
    *("lrp_epsilon_gamma_box", "smooth_grad", "var_grad", "guided_grad_cam"),
)


def function_of(method: Method) -> Callable[..., Any]:
    found = method.function
    return found.func if isinstance(found, functools.partial) else found


def formula(method: Method) -> str:
    """The label's own, or the first paragraph of its function's docstring."""
    text = method.formula or (inspect.getdoc(function_of(method)) or "").split("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|")


def section(title: str, methods: list[Method]) -> str:
    lines = [
        f"\n## {title[0].upper()}{title[1:]}\n",
        "| label | what | formula | paper | then |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        about = method.about.replace("|", "\\|")
        then = f"{method.rectify}: {method.unlike_paper}" if method.unlike_paper else method.rectify
        lines.append(f"| `{method.label}` | {about} | {formula(method)} | {method.paper} | {then} |")
    return "\n".join(lines) + "\n"


def document() -> str:
    """The whole page."""
    methods = [catalogue.method(label, catalogue.spec("method", label)) for label in catalogue.names("method")]
    groups = {words: [m for m in methods if not m.control and m.passes == words] for words in reversed(PASSES.values())}
    groups["controls"] = [m for m in methods if m.control]
    alone = ", ".join(f"`{label}`" for label in ALONE)
    return HEAD.format(alone=alone) + "".join(section(title, found) for title, found in groups.items() if found)


if __name__ == "__main__":
    OUT.write_text(document(), encoding="utf-8")
    print(OUT)
