"""gradcam-bench: a benchmark suite for class-activation maps and weakly-supervised localization."""

from importlib import metadata

from gradcam_bench import targets
from gradcam_bench.api import annotate, boxes, explain, normalize, rectify, resize, score
from gradcam_bench.errors import UserError

__version__ = metadata.version("gradcam-bench")
__all__ = ["UserError", "annotate", "boxes", "explain", "normalize", "rectify", "resize", "score", "targets"]
