"""The verbs' words: what each does, its positionals and its flags. What is left of a command line are overrides."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from gradcam_bench.errors import UserError, unknown

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
    "data": "prepare NAME: fetch a data set from its publishers; check NAME: what is there, what is broken.",
    "train": "Fine-tune a classifier by a recipe; with no arguments, a small network on scenes.",
    "list": "List methods, metrics, presets, datasets, models, recipes, experiments or data.",
    "completion": "Tab completion for bash, zsh or fish; --install puts it where the shell finds it.",
}
GROUPS = {  # of verbs, as --help shows them
    "make a run": ("run", "show", "reproduce"),
    "go on from a run": ("report", "score", "seeds"),
    "ask what a number is worth": ("compare", "diff", "multiverse", "gate"),
    "get data, train": ("data", "train"),
    "find names": ("list", "completion"),
}
EXAMPLES = {
    "run": """\
gradcam-bench run                                          the demo: ten methods on 100 drawn scenes, half a minute
gradcam-bench run dataset=folder dataset.root=DIR model=resnet50 limit=20
gradcam-bench run dataset=voc dataset.root=DIR model=vgg16 'method=[grad_cam,layer_cam]' 'metric=[pointing_game]'
gradcam-bench run 'preset=[wsol_2020_v2]' protocol.connectivity=4     a published protocol, with one choice changed
gradcam-bench run -m model=resnet18,resnet50 dataset=folder dataset.root=DIR      a sweep, one run after the other""",
    "show": "gradcam-bench show dog.jpg model=resnet50 'method=[grad_cam,layer_cam,center]' --target 207",
    "score": "gradcam-bench score results/run/NAME 'preset=[wsol_2020_v2]' 'metric=[max_box_acc]'",
    "report": "gradcam-bench report results/run/NAME --validation results/run/OTHER",
    "seeds": "gradcam-bench seeds results/run/NAME --format irn,png --method grad_cam",
    "compare": """\
gradcam-bench compare results/run/A                        its methods with one another
gradcam-bench compare results/run/A results/run/B --metrics max_box_acc --by size""",
    "diff": "gradcam-bench diff results/run/A --from localization_error_gt_known@grad_cam_2017 "
    "--to max_box_acc@wsol_2020_v2",
    "multiverse": "gradcam-bench multiverse results/run/NAME --methods grad_cam,layer_cam",
    "gate": """\
gradcam-bench gate results/run/NAME --baseline baseline.parquet --update     once: what there is becomes the baseline
gradcam-bench gate results/run/NAME --baseline baseline.parquet --margin 0.02 --junit gate.xml""",
    "reproduce": """\
gradcam-bench reproduce wsol_2020 --check                  what it needs, what is missing, how to get it
gradcam-bench reproduce grad_cam_2017 --smoke              the same on a few drawn pictures
gradcam-bench reproduce wsol_center dataset.root=DIR""",
    "data": """\
gradcam-bench data prepare cub --root DIR                  asks whether its terms are accepted
gradcam-bench data check voc dataset.root=DIR""",
    "train": """\
gradcam-bench train                                        a small network on scenes, two minutes
gradcam-bench train recipe=dog_breeds_vgg16 dataset=folder dataset.root=DIR""",
    "list": """\
gradcam-bench list methods
gradcam-bench list presets --json""",
    "completion": """\
gradcam-bench completion bash --install                    then open a new shell and press Tab
gradcam-bench completion zsh > _gradcam-bench              the script alone""",
}
RUNS = """\
dataset=NAME dataset.root=DIR      model=NAME model.weights=FILE model.layer=NAME      device=cpu|cuda
method=[...] metric=[...] preset=[...] layers=[...]      experiment=NAME      limit=N batch_size=N workers=N
view.KEY=... protocol.KEY=...      results=DIR name=NAME      store=grid|all|none"""
SETTINGS = {  # of those verbs that do not take all of a run's
    "score": "metric=[...] preset=[...] protocol.KEY=...",
    "data": "dataset.root=DIR dataset.split=NAME dataset.KEY=...",
    "train": """\
recipe=NAME recipe.KEY=...         dataset=NAME dataset.root=DIR dataset@validation=NAME      held_out=SHARE
model=NAME model.weights=FILE      epochs=N lr=X batch_size=N precision=float32|bf16|fp16     limit=N workers=N
device=cpu|cuda                    results=DIR name=NAME""",
}


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def pair(word: str) -> tuple[str, str]:
    """The two sides of --data PLACE=DIR."""
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise UserError(f"--data {word}: give PLACE=DIR, as --data imagenet=DIR")
    return name, value


Flag = tuple[str, dict[str, Any]]
LIMIT: Flag = ("--limit", {"type": int, "metavar": "N", "help": "only the first N images"})
FORCE: Flag = ("--force", {"action": "store_true", "help": "start the run anew, deleting what it has"})
FOLDER: Flag = (
    "--config-dir",
    {"metavar": "DIR", "help": "a folder with your own method/, metric/, preset/... YAML files"},
)
METHODS: Flag = ("--methods", {"type": _names, "default": [], "metavar": "A,B", "help": "only these methods"})
METRICS: Flag = ("--metrics", {"type": _names, "default": [], "metavar": "A,B", "help": "only these metrics"})
OUT: Flag = ("--out", {"metavar": "DIR", "help": "the folder to write (default: one in results/, or in the run's)"})
FLAGS: dict[str, tuple[Flag, ...]] = {
    "run": (LIMIT, FORCE, FOLDER),
    "show": (
        FOLDER,
        ("--target", {"type": int, "metavar": "K", "help": "class index (default: the model's first answer)"}),
        ("--out", {"metavar": "FILE", "help": "the PNG to write"}),
    ),
    "score": (FOLDER,),
    "report": (
        ("--validation", {"metavar": "RUN", "help": "a run of a validation split, whose rows choose thresholds"}),
    ),
    "seeds": (
        (
            "--format",
            {
                "type": _names,
                "required": True,
                "metavar": "F,G",
                "help": "irn, psa, sec, png, coco-rle; several with commas",
            },
        ),
        (
            "--background",
            {"type": float, "metavar": "LEVEL", "help": "the background's level, if not the protocol's own"},
        ),
        ("--method", {"type": _names, "default": [], "metavar": "A,B", "help": "only these methods"}),
        ("--preset", {"help": "the protocol: one of the run's presets that score seeds"}),
        ("--crf", {"type": float, "metavar": "ALPHA", "help": "with a dense random field; PSA takes 4 and 24"}),
        ("--saliency", {"help": "a method of the run whose maps tell SEC's background"}),
    ),
    "compare": (METHODS, METRICS, ("--by", {"help": "also within each `size` or `class_name`"}), OUT),
    "diff": (
        ("--from", {"dest": "source", "metavar": "METRIC@PROTOCOL", "help": "of the first run"}),
        ("--to", {"dest": "target", "metavar": "METRIC@PROTOCOL", "help": "of the last run (default: the same)"}),
        METHODS,
        OUT,
    ),
    "multiverse": (
        ("--grid", {"default": "boxes", "help": "of protocols, in conf/grid (default: boxes)"}),
        METHODS,
        OUT,
    ),
    "gate": (
        ("--baseline", {"required": True, "metavar": "FILE", "help": "the Parquet file to judge by"}),
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
        (
            "--config",
            {"metavar": "FILE", "help": "a YAML file with margin, alpha, methods, metrics, unpaired, partial, allow"},
        ),
        METHODS,
        METRICS,
        ("--unpaired", {"action": "store_true", "help": "run and baseline are independent samples"}),
        ("--partial", {"action": "store_true", "help": "the run is of fewer images on purpose"}),
        (
            "--allow",
            {
                "type": _names,
                "default": [],
                "metavar": "A,B",
                "help": "choices of the view that may differ from the baseline's, as precision",
            },
        ),
        ("--junit", {"metavar": "FILE", "help": "a JUnit XML file to write"}),
        ("--markdown", {"metavar": "FILE", "help": "a Markdown file to write"}),
        ("--github", {"action": "store_true", "help": "print GitHub's annotations (default: under Actions)"}),
    ),
    "reproduce": (
        LIMIT,
        FORCE,
        FOLDER,
        ("--only", {"type": _names, "default": [], "help": "runs, or what the names of several begin with, A,B"}),
        ("--check", {"action": "store_true", "help": "say what it needs, what is missing and how to get it"}),
        ("--smoke", {"action": "store_true", "help": "the same on a few drawn pictures in the same layouts"}),
        ("--data", {"action": "append", "default": [], "metavar": "PLACE=DIR", "help": "a folder (repeatable)"}),
        ("--as-published", {"action": "store_true", "help": "model.weights=FILE holds the paper's own weights"}),
    ),
    "data": (
        FOLDER,
        ("--root", {"help": "the data set's folder (default: data/NAME); also root=DIR, dataset.root=DIR"}),
        ("--with", {"dest": "parts", "type": _names, "default": [], "help": "prepare: further parts, with commas"}),
        ("--yes", {"action": "store_true", "help": "prepare: its terms are accepted"}),
        ("--quick", {"action": "store_true", "help": "check: only the pictures' headers"}),
        ("--json", {"action": "store_true", "help": "check: as JSON"}),
        ("--out", {"help": "check: the folder to write (default: results/check/NAME)"}),
    ),
    "train": (LIMIT, FORCE, FOLDER),
    "list": (("--json", {"action": "store_true", "help": "a JSON list of objects with `name`"}),),
    "completion": (("--install", {"action": "store_true", "help": "for good: new shells have it"}),),
}
POSITIONALS = {
    "image": "the picture",
    "run": "a run's folder, results/EXPERIMENT/NAME",
    "runs": "runs' folders",
    "experiment": "a paper's, one of `gradcam-bench list experiments` without its paper/",
    "what": "methods, metrics, presets, datasets, models, recipes, experiments or data",
    "shell": "bash, zsh or fish",
    "action": "prepare or check",
    "name": "a data set, one of `gradcam-bench list data`",
}
OVERRIDDEN = ("run", "show", "score", "reproduce", "data", "train")  # verbs that take key=value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(f"{self.prog.removeprefix('gradcam-bench ')}: {message}")


def parse(verb: str, words: Sequence[str], *positionals: str) -> tuple[argparse.Namespace, list[str]]:
    """Positionals (`name+`: one or more) and flags of a verb; what is left are overrides. Raises UserError for a word
    that is neither."""
    parser = _parser(verb, positionals)
    known, rest = parser.parse_known_args(words)
    for word in rest:
        if word.startswith("-") and not (word == "-m" and verb == "run"):
            given = [flag for flag, _ in FLAGS[verb]] + ["--debug", "--help"]
            raise UserError(f"{verb}: {unknown('flag', word.partition('=')[0], given)}")
        if verb not in OVERRIDDEN:
            raise UserError(f"{verb}: unexpected '{word}'")
    return known, rest


def _parser(verb: str, positionals: Sequence[str]) -> argparse.ArgumentParser:
    settings = verb in OVERRIDDEN
    parts = [f"examples:\n{_indented(EXAMPLES.get(verb, ''))}", *([_settings(verb)] if settings else ())]
    parser = _Parser(
        prog=f"gradcam-bench {verb}",
        description=DESCRIPTIONS[verb],
        epilog="\n\n".join(parts),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=110, max_help_position=32),
        allow_abbrev=False,
    )
    for name in positionals:
        plain = name.rstrip("+")
        parser.add_argument(
            plain, nargs="+" if name.endswith("+") else None, metavar=plain.upper(), help=POSITIONALS.get(plain)
        )
    for flag, settled in FLAGS[verb]:
        parser.add_argument(flag, **settled)
    if settings:
        parser.usage = f"{parser.format_usage().removeprefix('usage: ').rstrip()} [KEY=VALUE ...]"
    return parser


def _settings(verb: str) -> str:
    return (
        f"settings, as KEY=VALUE (lists in quotes: 'method=[a,b]'):\n{_indented(SETTINGS.get(verb, RUNS))}\n"
        "`gradcam-bench list methods` (metrics, presets, datasets, models, recipes, experiments, data) says which there"
        " are.\n"
    )


def usage() -> str:
    """What `gradcam-bench --help` says."""
    left = tuple(verb for verb in DESCRIPTIONS if not any(verb in verbs for verbs in GROUPS.values()))
    groups = GROUPS | ({"more": left} if left else {})
    parts = [
        f"{title}:\n" + _indented("\n".join(f"{verb:10} {DESCRIPTIONS[verb]}" for verb in verbs))
        for title, verbs in groups.items()
    ]
    start = "gradcam-bench run\ngradcam-bench list methods\ngradcam-bench run --help"
    return "\n\n".join(
        ["usage: gradcam-bench VERB [arguments] [--flags] [KEY=VALUE ...]", *parts, f"start with:\n{_indented(start)}"]
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
