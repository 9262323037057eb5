"""The axes of a protocol: every choice made after a heatmap exists, with its default, what else it may be, its owner.

An id hashes the choices that differ from the defaults, so defaults never change, and a new axis' default is the old
behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from gradcam_bench.errors import UserError, unknown


@dataclass(frozen=True)
class Axis:
    """One choice of a protocol: default, what else it may be (names, or a numeric range), owner, meaning."""

    default: Any
    valid: tuple[Any, ...] | tuple[float, float]
    owner: str
    meaning: str
    kind: str = "name"  # name | number | numbers | whole


FILLS = ("mean", "black", "white", "own_mean", "blur", "blur_mirror")  # of the axes `fill...`

AXES: dict[str, Axis] = {
    "rectify": Axis("paper", ("paper", "relu", "none", "abs"), "heatmaps", "what becomes of negative values"),
    "normalize": Axis(
        "minmax",
        ("minmax", "max", "none", "max_epsilon", "minmax_epsilon"),
        "heatmaps",
        "how values are brought to [0, 1]",
    ),
    "resize": Axis(
        "bilinear",
        ("bilinear", "bilinear_corners", "bicubic", "cubic_cv2", "cubic_matlab", "cubic_skimage", "spline", "nearest"),
        "resampling",
        "upsampling kernel",
    ),
    "order": Axis(
        "resize_first",
        ("resize_first", "normalize_first", "quantize_first"),
        "trial",
        "resize before normalising, after it, or after bringing the normalised map to 8 bits",
    ),
    "smooth": Axis(
        0.0,
        (0.0, 1.0),
        "trial",
        "deviation of the Gaussian that blurs the resized map, a share of its longer side",
        "number",
    ),
    "smooth_maps": Axis(
        "all",
        ("all", "gradients"),
        "trial",
        "which maps that blurs: all, or those of saliency, deconvnet, guided_backprop",
    ),
    "frame": Axis("source", ("source", "input"), "trial", "pixels in which map and truth are compared"),
    "quantize": Axis("uint8", ("uint8", "percent", "jpeg"), "heatmaps", "the grid of thresholds"),
    "threshold": Axis(0.15, (0.0, 1.0), "heatmaps", "fixed threshold, a fraction of the normalised map", "number"),
    "rule": Axis(
        "largest_component",
        (
            "largest_component",
            "components",
            "wsol_v1",
            "wsol_v2",
            "largest_rectangle",
            "layer_cam_2021",
            "cam_2016_code",
        ),
        "regions",
        "which regions of the thresholded map become boxes",
    ),
    "connectivity": Axis(8, (4, 8), "regions", "which pixels are neighbours"),
    "iou": Axis("half_open", ("half_open", "wsol", "corners"), "regions", "how true boxes reach the frame's pixels"),
    "iou_threshold": Axis((0.5,), (0.0, 1.0), "metrics.localization", "IoU from which a box is right", "numbers"),
    "matching": Axis("any", ("any", "first"), "trial", "which true boxes of the class count"),
    "region": Axis("box", ("box", "mask"), "trial", "what the object is: its boxes or its masks"),
    "tolerance": Axis(15.0, (0.0, 1e6), "metrics.pointing", "pixels by which a peak may miss", "number"),
    "ties": Axis("first", ("first", "any"), "metrics.pointing", "which of several equal peaks points"),
    "difficult": Axis("skip", ("skip", "keep"), "trial", "cases all of whose objects are marked difficult"),
    "cases": Axis("all", ("all", "ebp_difficult", "one_box_small"), "trial", "which cases are scored"),
    "rejection": Axis(0.0, (0.0, 1e12), "metrics.rejection", "a map whose maximum is below it is rejected", "number"),
    "similarity_map": Axis(
        "minmax", ("minmax", "abs", "diverging"), "similarity", "how a map becomes a picture that is compared"
    ),
    "similarity_ssim": Axis(
        "wang_2004", ("wang_2004", "adebayo_2018"), "similarity", "SSIM's range of values and its covariances"
    ),
    "similarity_top": Axis(0.1, (0.0, 1.0), "metrics.sanity", "the share of pixels that are a map's top", "number"),
    "similarity_bins": Axis(100.0, (2.0, 1e4), "metrics.sanity", "bins of the histogram of a map's values", "number"),
    "answer": Axis(
        "probability", ("probability", "logit", "top1"), "questions", "what is read off the network's outputs"
    ),
    "fill": Axis("mean", FILLS, "questions", "what stands where pixels are taken away"),
    "fill_insertion": Axis("blur", FILLS, "questions", "what insertion starts from"),
    "perturb_keep": Axis(1.0, (0.0, 1.0), "questions", "share of the map's pixels that keep their value", "number"),
    "perturb_steps": Axis(100, (2, 1e6), "questions", "steps in which pixels are deleted or inserted", "whole"),
    "perturb_area": Axis("trapezoid", ("trapezoid", "mean"), "questions", "how a curve becomes a number"),
    "perturb_shares": Axis(
        tuple(10.0 * n for n in range(1, 10)), (0.0, 99.0), "questions", "percent of the pixels imputed", "numbers"
    ),
    "perturb_noise": Axis(0.01, (0.0, 1e3), "questions", "standard deviation added to imputed pixels", "number"),
    "perturb_grid": Axis(14, (2, 1e3), "metrics.occlusion", "cells a side, each covered once", "whole"),
    "perturb_patch": Axis(
        45 / 224, (0.0, 1.0), "metrics.occlusion", "side of the patch, a share of the side", "number"
    ),
    "perturb_draw": Axis("square", ("square", "gaussian"), "metrics.stability", "what is drawn to change the image"),
    "perturb_samples": Axis(64, (1, 1e6), "metrics.stability", "draws that change the image", "whole"),
    "perturb_side": Axis(
        0.25, (0.0, 1.0), "metrics.stability", "side of a drawn square, a share of the side", "number"
    ),
    "perturb_sigma": Axis(0.2, (0.0, 1e3), "metrics.stability", "standard deviation of drawn noise", "number"),
    "perturb_scale": Axis(
        "optimal", ("optimal", "none"), "metrics.stability", "whether a map may be multiplied to fit"
    ),
    "perturb_nearby": Axis(10, (1, 1e6), "metrics.stability", "draws near the image", "whole"),
    "perturb_radius": Axis(0.02, (0.0, 1e3), "metrics.stability", "how far draws near the image may lie", "number"),
    "seed_rule": Axis("argmax", ("argmax", "sec"), "metrics.segmentation", "how an image's maps become a label map"),
    "background": Axis(0.15, (0.0, 1.0), "metrics.segmentation", "level up to which a pixel is background", "number"),
    "crf": Axis(
        0.0, (0.0, 1e3), "metrics.segmentation", "exponent of the background in a dense random field; 0: none", "number"
    ),
    "background_levels": Axis(
        tuple(level / 100 for level in range(60)),
        (0.0, 1.0),
        "metrics.segmentation",
        "levels that are tried",
        "numbers",
    ),
}


def check_axis(name: str, value: Any) -> Any:
    """The value in its canonical form (lists of numbers as tuples), or a UserError that names what is valid."""
    if name not in AXES:
        raise unknown("protocol axis", name, AXES)
    axis = AXES[name]
    if axis.kind == "name":
        if value not in axis.valid or isinstance(value, bool):
            raise unknown(f"protocol.{name}", value, [str(v) for v in axis.valid])
        return axis.valid[axis.valid.index(value)]  # 4.0 is 4, and has its id
    numbers = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    low, high = axis.valid
    if not numbers or not all(_real(v) and low <= v <= high for v in numbers):
        raise UserError(f"protocol.{name} must lie in [{low:g}, {high:g}], got {value!r}")
    if axis.kind != "numbers" and len(numbers) != 1:
        raise UserError(f"protocol.{name} takes one number, got {value!r}")
    if axis.kind == "whole":
        if int(numbers[0]) != numbers[0]:
            raise UserError(f"protocol.{name} takes a whole number, got {value!r}")
        return int(numbers[0])
    return tuple(float(v) for v in numbers) if axis.kind == "numbers" else float(numbers[0])


def _real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
