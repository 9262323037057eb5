"""The command line: `gradcam-bench VERB [positionals] [--flags] [overrides]`.
Verbs import what they need when they are called, so that a wrong word is answered at once.

Whatever the user or the machine got wrong comes out as one sentence and exit code 2.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gradcam_bench.errors import unknown, verdict
from gradcam_bench.flags import pair, parse, usage


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
        print(usage())
        return 0
    if words[0] == "--version":
        from importlib import metadata

        print(f"gradcam-bench {metadata.version('gradcam-bench')}")
        return 0
    verb, *rest = words
    if verb == "_complete":  # what the shells' scripts call
        from gradcam_bench import completion

        return completion.answer(rest)
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    return VERBS[verb](rest)


def configuration(overrides: Sequence[str], folder: str | None = None, name: str = "config") -> dict[str, Any]:
    """`overrides.configuration`: Hydra is imported when it is asked for."""
    from gradcam_bench import overrides as composing

    return composing.configuration(overrides, folder, name)


def _run(words: list[str]) -> int:
    known, overrides = parse("run", words)
    if known.limit is not None:
        overrides.append(f"limit={known.limit}")
    if "-m" in overrides:
        return _sweep([word for word in overrides if word != "-m"], known.config_dir, known.force)
    from gradcam_bench import commands

    config = configuration(overrides, known.config_dir)
    grid = config.get("multiverse")
    if grid:
        from gradcam_bench.multiverse import grid_of, multiverse

        grid_of(str(grid))  # a wrong name is said before the work
    folder = commands.run(config, force=known.force)
    if folder is not None:
        commands.check_scored(folder, config)
    return multiverse(str(folder), str(grid)) if folder is not None and grid else 0


def _sweep(overrides: list[str], folder: str | None, force: bool) -> int:
    """Every combination of the overrides. What is wrong with one run is said, the others go on."""
    results = next((word for word in reversed(overrides) if word.startswith("results=")), "results=results")
    place = Path(results.partition("=")[2].strip("'\"")).expanduser()
    from gradcam_bench.overrides import sweep

    outcomes = sweep(overrides, partial(_one_of_many, force), place, folder)
    failed = [(code, sentence) for code, sentence in outcomes if code]
    for _, sentence in failed:
        print(f"gradcam-bench: {sentence}", file=sys.stderr)
    return max((code for code, _ in failed), default=0)


def _one_of_many(force: bool, config: Mapping[str, Any], suffix: str) -> tuple[int, str]:
    """One run of a sweep; launchers pickle this function."""
    from gradcam_bench import commands

    try:
        folder = commands.run(config, force, suffix)
        if folder is not None:
            commands.check_scored(folder, config)
        return 0, ""
    except Exception as error:
        found = verdict(error)
        if found is None:
            raise
        return found


def _show(words: list[str]) -> int:
    known, overrides = parse("show", words, "image")
    from gradcam_bench import commands

    return commands.show(configuration(overrides, known.config_dir), known.image, known.target, known.out)


def _score(words: list[str]) -> int:
    known, overrides = parse("score", words, "run")
    from gradcam_bench import commands, record

    with record.alone(Path(known.run)):
        return commands.score(known.run, overrides, partial(configuration, folder=known.config_dir))


def _report(words: list[str]) -> int:
    known, _ = parse("report", words, "run")
    from gradcam_bench import commands, record

    with record.alone(Path(known.run)):
        return commands.report(known.run, known.validation)


def _seeds(words: list[str]) -> int:
    known, _ = parse("seeds", words, "run")
    from gradcam_bench import commands, record

    chosen = {"background": known.background, "preset": known.preset, "saliency": known.saliency, "alpha": known.crf}
    with record.alone(Path(known.run)):
        return commands.seeds(known.run, known.format, methods=known.method, **chosen)


def _compare(words: list[str]) -> int:
    known, _ = parse("compare", words, "runs+")
    from gradcam_bench.compare import compare

    return compare(known.runs, known.methods, known.metrics, known.by, known.out)


def _diff(words: list[str]) -> int:
    known, _ = parse("diff", words, "runs+")
    from gradcam_bench.diff import diff

    return diff(known.runs, known.source, known.target, known.methods, known.out)


def _multiverse(words: list[str]) -> int:
    known, _ = parse("multiverse", words, "run")
    from gradcam_bench.multiverse import multiverse

    return multiverse(known.run, known.grid, known.methods, known.out)


def _gate(words: list[str]) -> int:
    known, _ = parse("gate", words, "run")
    from gradcam_bench.gate import gate
    from gradcam_bench.terms import terms

    switches = {"unpaired": known.unpaired, "partial": known.partial}
    names = {"methods": known.methods, "metrics": known.metrics, "allow": known.allow}
    agreed = terms(known.margin, known.alpha, config=known.config, **names, **switches)
    return gate(known.run, known.baseline, agreed, known.update, known.junit, known.markdown, known.github)


def _reproduce(words: list[str]) -> int:
    known, overrides = parse("reproduce", words, "experiment")
    if known.limit is not None:
        overrides.append(f"limit={known.limit}")
    from gradcam_bench import reproduce

    configure = partial(configuration, folder=known.config_dir)
    places = dict(pair(word) for word in known.data)
    asked = reproduce.Asked(overrides, places, known.only, known.smoke, known.as_published, known.force)
    verb = reproduce.check if known.check else reproduce.reproduce
    return verb(known.experiment, asked, configure)


def _data(words: list[str]) -> int:
    known, overrides = parse("data", words, "action", "name")
    from gradcam_bench.data import verb

    chosen = {key: getattr(known, key) for key in ("root", "parts", "yes", "quick", "json", "out")}
    return verb.data(known.action, known.name, overrides, partial(configuration, folder=known.config_dir), **chosen)


def _train(words: list[str]) -> int:
    known, overrides = parse("train", words)
    if known.limit is not None:
        overrides.append(f"limit={known.limit}")
    from gradcam_bench.training.train import train

    train(configuration(overrides, known.config_dir, "train"), known.force)
    return 0


def _list(words: list[str]) -> int:
    known, _ = parse("list", words, "what")
    from gradcam_bench import listing

    return listing.listing(known.what, known.json)


def _completion(words: list[str]) -> int:
    known, _ = parse("completion", words, "shell")
    from gradcam_bench import completion

    return completion.completion(known.shell, known.install)


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
    "data": _data,
    "train": _train,
    "list": _list,
    "completion": _completion,
}


if __name__ == "__main__":
    sys.exit(main())
