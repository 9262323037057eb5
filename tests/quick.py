"""Methods of the catalogue with fewer steps or draws than the papers', where a paper takes thousands."""

from gradcam_bench import catalogue
from gradcam_bench.catalogue import Method

QUICK = {
    "extremal_perturbation": {"steps": 20},
    "opti_cam": {"steps": 10},
    "rise": {"masks": 200},
    "rise_8000": {"masks": 400},
}


def method(label: str) -> Method:
    return catalogue.method(label, {**catalogue.spec("method", label), **QUICK.get(label, {})})


def few_passes(labels: list[str]) -> list[str]:
    """Those that see no other images and no pixels: on a large network the others take minutes. (Nor attention, which
    not every network has, nor a head for foreground, nor what other libraries do.)"""
    others = {"ask", "look", "pixels", "attentions", "network"}
    return [label for label in labels if label != "foreground" and not others.intersection(method(label).takes)]
