"""The command line: `gradcam-bench VERB [positionals] [--flags] [overrides]`.
Verbs import what they need when they are called, so that a wrong word is answered at once.

Whatever the user or the machine got wrong comes out as one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gradcam_bench import listing
from gradcam_bench.errors import UserError, unknown, verdict
from gradcam_bench.overrides import configuration, sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 done, 1 a gate or check failed, 2 the input was wrong, 130 interrupted,
    143 stopped by SIGTERM."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        with _sigterm_interrupts():
            code = _dispatch([word for word in words if word != "--debug"])
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        found = verdict(error)
        if found is None or debug:
            raise
        with contextlib.suppress(BrokenPipeError):
            print(f"gradcam-bench: {found[1]}", file=sys.stderr)
        return found[0]


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM, as batch systems send it, ends a run the way Ctrl-C does: what is finished is written first."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt("SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    verb, *rest = words
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    return VERBS[verb](rest)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(f"{self.prog.removeprefix('gradcam-bench ')}: {message}")


def _parse(verb: str, words: list[str], *positionals: str) -> tuple[argparse.Namespace, list[str]]:
    """Positionals and flags of a verb; what is left are overrides."""
    parser = _Parser(prog=f"gradcam-bench {verb}", description=DESCRIPTIONS[verb], allow_abbrev=False)
    for name in positionals:
        parser.add_argument(name.rstrip("+"), nargs="+" if name.endswith("+") else None)
    if verb in ("run", "reproduce"):
        parser.add_argument("--limit", type=int, help="only the first N images")
        parser.add_argument("--force", action="store_true", help="start the run anew, deleting what it has")
    if verb == "reproduce":
        parser.add_argument("--only", help="one of the experiment's runs")
    if verb in ("run", "show", "score", "reproduce"):
        parser.add_argument("--config-dir", help="a folder with your own method/, metric/, preset/... YAML files")
    if verb == "show":
        parser.add_argument("--target", type=int, help="class index (default: the model's first answer)")
        parser.add_argument("--out", help="the PNG to write")
    if verb == "report":
        parser.add_argument("--validation", help="a run of a validation split, whose rows choose thresholds")
    if verb == "seeds":
        parser.add_argument("--format", required=True, help="irn, psa, sec, png, coco-rle; several with commas")
        parser.add_argument("--background", type=float, help="the background's level, if not the protocol's own")
        parser.add_argument("--method", default="", help="only these methods, with commas")
        parser.add_argument("--preset", help="the protocol: one of the run's presets that score seeds")
        parser.add_argument("--crf", type=float, metavar="ALPHA", help="with a dense random field; PSA takes 4 and 24")
        parser.add_argument("--saliency", help="a method of the run whose maps tell SEC's background")
    if verb == "compare":
        for name, what in (("methods", "methods"), ("metrics", "metrics")):
            parser.add_argument(
                f"--{name}", type=lambda text: text.split(","), default=[], help=f"only these {what}, A,B"
            )
        parser.add_argument("--by", help="also within each `size` or `class_name`")
        parser.add_argument("--out", help="the folder to write (default: one in results/compare)")
    if verb == "multiverse":
        parser.add_argument("--grid", default="boxes", help="of protocols, in conf/multiverse (default: boxes)")
        parser.add_argument("--methods", type=lambda text: text.split(","), default=[], help="only these methods, A,B")
        parser.add_argument("--out", help="the folder to write (default: multiverse in the run's)")
    if verb == "diff":
        parser.add_argument("--from", dest="source", help="METRIC@PROTOCOL of the first run")
        parser.add_argument("--to", dest="target", help="METRIC@PROTOCOL of the last run (default: the same)")
        parser.add_argument("--methods", type=lambda text: text.split(","), default=[], help="only these methods, A,B")
        parser.add_argument("--out", help="the folder to write (default: one in results/diff)")
    if verb == "gate":
        _gate_flags(parser)
    if verb == "list":
        parser.add_argument("--json", action="store_true", help="a JSON list of objects with `name`")
    known, rest = parser.parse_known_args(words)
    for word in rest:
        if verb in ("report", "list", "compare", "diff", "multiverse", "seeds", "gate"):
            raise UserError(f"{verb}: unexpected '{word}'")
        if word.startswith("-") and not (word == "-m" and verb == "run"):
            raise UserError(f"{verb}: unknown flag {word}")
    return known, rest


def _gate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--baseline", required=True, help="the Parquet file to judge by")
    parser.add_argument("--update", action="store_true", help="write the baseline from this run instead")
    parser.add_argument(
        "--margin", action="append", default=[], help="the loss that is tolerated: 0.02, or METRIC=0.03 (repeatable)"
    )
    parser.add_argument("--alpha", help="the level of each verdict (default: 0.05)")
    parser.add_argument("--config", help="a YAML file with margin, alpha, methods, metrics, unpaired")
    for name in ("methods", "metrics"):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=[], help=f"only these {name}, A,B")
    parser.add_argument("--unpaired", action="store_true", help="run and baseline are independent samples")
    parser.add_argument("--junit", help="a JUnit XML file to write")
    parser.add_argument("--markdown", help="a Markdown file to write")
    parser.add_argument("--github", action="store_true", help="print GitHub's annotations (default: under Actions)")


def _run(words: list[str]) -> int:
    known, overrides = _parse("run", words)
    if known.limit is not None:
        overrides.append(f"limit={known.limit}")
    if "-m" in overrides:
        return _sweep([word for word in overrides if word != "-m"], known.config_dir, known.force)
    from gradcam_bench import commands

    config = configuration(overrides, known.config_dir)
    folder = commands.run(config, force=known.force)
    if folder is not None and config.get("multiverse"):
        from gradcam_bench.multiverse import multiverse

        return multiverse(str(folder), str(config["multiverse"]))
    return 0


def _sweep(overrides: list[str], folder: str | None, force: bool) -> int:
    """Every combination of the overrides. What is wrong with one run is said, the others go on."""
    results = next((word for word in reversed(overrides) if word.startswith("results=")), "results=results")
    place = Path(results.partition("=")[2].strip("'\"")).expanduser()
    outcomes = sweep(overrides, partial(_one_of_many, force), place, folder)
    failed = [(code, sentence) for code, sentence in outcomes if code]
    for _, sentence in failed:
        print(f"gradcam-bench: {sentence}", file=sys.stderr)
    return max((code for code, _ in failed), default=0)


def _one_of_many(force: bool, config: Mapping[str, Any], suffix: str) -> tuple[int, str]:
    """One run of a sweep; launchers pickle this function."""
    from gradcam_bench import commands

    try:
        commands.run(config, force, suffix)
        return 0, ""
    except Exception as error:
        found = verdict(error)
        if found is None:
            raise
        return found


def _show(words: list[str]) -> int:
    known, overrides = _parse("show", words, "image")
    from gradcam_bench import commands

    return commands.show(configuration(overrides, known.config_dir), known.image, known.target, known.out)


def _score(words: list[str]) -> int:
    known, overrides = _parse("score", words, "run")
    from gradcam_bench import commands, record

    with record.alone(Path(known.run)):
        return commands.score(known.run, overrides, partial(configuration, folder=known.config_dir))


def _report(words: list[str]) -> int:
    known, _ = _parse("report", words, "run")
    from gradcam_bench import commands, record

    with record.alone(Path(known.run)):
        return commands.report(known.run, known.validation)


def _seeds(words: list[str]) -> int:
    known, _ = _parse("seeds", words, "run")
    from gradcam_bench import commands, record

    formats, methods = ([word for word in text.split(",") if word] for text in (known.format, known.method))
    chosen = {"background": known.background, "preset": known.preset, "saliency": known.saliency, "alpha": known.crf}
    with record.alone(Path(known.run)):
        return commands.seeds(known.run, formats, methods=methods, **chosen)


def _compare(words: list[str]) -> int:
    known, _ = _parse("compare", words, "runs+")
    from gradcam_bench.compare import compare

    return compare(known.runs, known.methods, known.metrics, known.by, known.out)


def _diff(words: list[str]) -> int:
    known, _ = _parse("diff", words, "runs+")
    from gradcam_bench.diff import diff

    return diff(known.runs, known.source, known.target, known.methods, known.out)


def _multiverse(words: list[str]) -> int:
    known, _ = _parse("multiverse", words, "run")
    from gradcam_bench.multiverse import multiverse

    return multiverse(known.run, known.grid, known.methods, known.out)


def _gate(words: list[str]) -> int:
    known, _ = _parse("gate", words, "run")
    from gradcam_bench.gate import gate
    from gradcam_bench.terms import terms

    agreed = terms(known.margin, known.alpha, known.methods, known.metrics, known.unpaired, known.config)
    return gate(known.run, known.baseline, agreed, known.update, known.junit, known.markdown, known.github)


def _reproduce(words: list[str]) -> int:
    known, overrides = _parse("reproduce", words, "experiment")
    if known.limit is not None:
        overrides.append(f"limit={known.limit}")
    from gradcam_bench import reproduce

    configure = partial(configuration, folder=known.config_dir)
    return reproduce.reproduce(known.experiment, overrides, configure, known.only, known.force)


def _list(words: list[str]) -> int:
    known, _ = _parse("list", words, "what")
    return listing.listing(known.what, known.json)


VERBS = {
    "run": _run,
    "show": _show,
    "score": _score,
    "report": _report,
    "seeds": _seeds,
    "compare": _compare,
    "diff": _diff,
    "multiverse": _multiverse,
    "gate": _gate,
    "reproduce": _reproduce,
    "list": _list,
}
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
    "list": "List methods, metrics, presets, datasets, models or experiments.",
}


def _usage() -> str:
    verbs = "\n".join(f"  {verb:10} {DESCRIPTIONS[verb]}" for verb in VERBS)
    return (
        f"usage: gradcam-bench VERB [arguments] [--flags] [key=value ...]\n\n{verbs}\n\nMore: gradcam-bench VERB --help"
    )


if __name__ == "__main__":
    sys.exit(main())
