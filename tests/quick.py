"""The catalogue's methods as tests run them."""

from gradcam_bench import catalogue
from gradcam_bench.catalogue import Method

QUICK = {  # fewer steps or draws than the papers', for methods that take thousands
    "extremal_perturbation": {"steps": 20},
    "opti_cam": {"steps": 10},
    "rise": {"masks": 200},
    "rise_8000": {"masks": 400},
}


def method(label: str) -> Method:
    return catalogue.method(label, {**catalogue.spec("method", label), **QUICK.get(label, {})})
