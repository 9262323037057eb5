"""The verbs' words: what each does, its positionals and its flags. What is left of a command line are overrides."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from gradcam_bench.errors import UserError

DESCRIPTIONS = {
    "run": "Explain, score and report; with no arguments, the demo on scenes.",
    "show": "Heatmaps of one image, methods side by side, in one PNG.",
    "score": "Score a run's stored heatmaps again, under other metrics, presets or protocol axes; needs no model.",
    "report": "Write tables, plots and page of a run again.",
    "seeds": "Write a run's stored heatmaps as seeds for segmentation networks (--format irn,psa,sec,png,coco-rle).",
    "compare": "What truly differs between the methods of a run, or between runs, on the cases that both have.",
    "diff": "Why two numbers differ: the choices in which they do, and how many points each explains.",
    "multiverse": "How far a run's ranking of methods depends on the protocol: every protocol of a grid.",
    "gate": "Whether a run is as good as a baseline, for continuous integration: exit 0 it is, 1 worse, 2 not known.",
    "reproduce": "A paper's experiment: its protocol, its numbers beside ours, into reproduction.csv.",
    "train": "Fine-tune a classifier by a recipe; with no arguments, a small network on scenes.",
    "list": "List methods, metrics, presets, datasets, models, recipes or experiments.",
}


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


Flag = tuple[str, dict[str, Any]]
LIMIT: Flag = ("--limit", {"type": int, "help": "only the first N images"})
FORCE: Flag = ("--force", {"action": "store_true", "help": "start the run anew, deleting what it has"})
FOLDER: Flag = ("--config-dir", {"help": "a folder with your own method/, metric/, preset/... YAML files"})
METHODS: Flag = ("--methods", {"type": _names, "default": [], "help": "only these methods, A,B"})
METRICS: Flag = ("--metrics", {"type": _names, "default": [], "help": "only these metrics, A,B"})
OUT: Flag = ("--out", {"help": "the folder to write (default: one in results/, or in the run's)"})
FLAGS: dict[str, tuple[Flag, ...]] = {
    "run": (LIMIT, FORCE, FOLDER),
    "show": (
        FOLDER,
        ("--target", {"type": int, "help": "class index (default: the model's first answer)"}),
        ("--out", {"help": "the PNG to write"}),
    ),
    "score": (FOLDER,),
    "report": (("--validation", {"help": "a run of a validation split, whose rows choose thresholds"}),),
    "seeds": (
        ("--format", {"type": _names, "required": True, "help": "irn, psa, sec, png, coco-rle; several with commas"}),
        ("--background", {"type": float, "help": "the background's level, if not the protocol's own"}),
        ("--method", {"type": _names, "default": [], "help": "only these methods, with commas"}),
        ("--preset", {"help": "the protocol: one of the run's presets that score seeds"}),
        ("--crf", {"type": float, "metavar": "ALPHA", "help": "with a dense random field; PSA takes 4 and 24"}),
        ("--saliency", {"help": "a method of the run whose maps tell SEC's background"}),
    ),
    "compare": (METHODS, METRICS, ("--by", {"help": "also within each `size` or `class_name`"}), OUT),
    "diff": (
        ("--from", {"dest": "source", "help": "METRIC@PROTOCOL of the first run"}),
        ("--to", {"dest": "target", "help": "METRIC@PROTOCOL of the last run (default: the same)"}),
        METHODS,
        OUT,
    ),
    "multiverse": (
        ("--grid", {"default": "boxes", "help": "of protocols, in conf/multiverse (default: boxes)"}),
        METHODS,
        OUT,
    ),
    "gate": (
        ("--baseline", {"required": True, "help": "the Parquet file to judge by"}),
        ("--update", {"action": "store_true", "help": "write the baseline from this run instead"}),
        (
            "--margin",
            {
                "action": "append",
                "default": [],
                "help": "the loss that is tolerated: 0.02, or METRIC=0.03 (repeatable)",
            },
        ),
        ("--alpha", {"help": "the level of each verdict (default: 0.05)"}),
        ("--config", {"help": "a YAML file with margin, alpha, methods, metrics, unpaired"}),
        METHODS,
        METRICS,
        ("--unpaired", {"action": "store_true", "help": "run and baseline are independent samples"}),
        ("--junit", {"help": "a JUnit XML file to write"}),
        ("--markdown", {"help": "a Markdown file to write"}),
        ("--github", {"action": "store_true", "help": "print GitHub's annotations (default: under Actions)"}),
    ),
    "reproduce": (LIMIT, FORCE, FOLDER, ("--only", {"help": "one of the experiment's runs"})),
    "train": (LIMIT, FORCE, FOLDER),
    "list": (("--json", {"action": "store_true", "help": "a JSON list of objects with `name`"}),),
}
OVERRIDDEN = ("run", "show", "score", "reproduce", "train")  # verbs that take key=value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(f"{self.prog.removeprefix('gradcam-bench ')}: {message}")


def parse(verb: str, words: Sequence[str], *positionals: str) -> tuple[argparse.Namespace, list[str]]:
    """Positionals (`name+`: one or more) and flags of a verb; what is left are overrides. Raises UserError for a word
    that is neither."""
    parser = _Parser(prog=f"gradcam-bench {verb}", description=DESCRIPTIONS[verb], allow_abbrev=False)
    for name in positionals:
        parser.add_argument(name.rstrip("+"), nargs="+" if name.endswith("+") else None)
    for flag, settings in FLAGS[verb]:
        parser.add_argument(flag, **settings)
    known, rest = parser.parse_known_args(words)
    for word in rest:
        if verb not in OVERRIDDEN:
            raise UserError(f"{verb}: unexpected '{word}'")
        if word.startswith("-") and not (word == "-m" and verb == "run"):
            raise UserError(f"{verb}: unknown flag {word}")
    return known, rest
