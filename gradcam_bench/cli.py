"""The command line: `gradcam-bench VERB [positionals] [--flags] [overrides]`. The only file that knows Hydra.
Verbs import what they need when they are called, so that a wrong word is answered at once.

Hydra composes the configuration; here it becomes plain objects, once, and everything below gets those. Whatever the
user got wrong comes out as one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from gradcam_bench import listing
from gradcam_bench.catalogue import CONF, names
from gradcam_bench.errors import UserError, unknown

GROUPS = ("method", "metric", "preset", "dataset", "model", "experiment")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 done, 1 a gate or check failed, 2 the input was wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        code = _dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return code
    except UserError as error:
        if debug:
            raise
        print(f"gradcam-bench: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("gradcam-bench: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


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
        raise UserError(f"{self.prog}: {message}")


def _parse(verb: str, words: list[str], *positionals: str) -> tuple[argparse.Namespace, list[str]]:
    """Positionals and flags of a verb; what is left are overrides."""
    parser = _Parser(prog=f"gradcam-bench {verb}", description=DESCRIPTIONS[verb], allow_abbrev=False)
    for name in positionals:
        parser.add_argument(name)
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
    if verb == "list":
        parser.add_argument("--json", action="store_true", help="a JSON list of objects with `name`")
    known, rest = parser.parse_known_args(words)
    for word in rest:
        if verb in ("report", "list"):
            raise UserError(f"gradcam-bench {verb}: unexpected '{word}'")
        if word.startswith("-") and not (word == "-m" and verb == "run"):
            raise UserError(f"gradcam-bench {verb}: unknown flag {word}")
    return known, rest


def configuration(overrides: Sequence[str], folder: str | None = None) -> dict[str, Any]:
    """conf/config.yaml with the overrides, resolved, as plain values. folder: further config files, searched first."""
    searched = _search(folder)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            composed = compose("config", [*searched, *overrides], return_hydra_config=True)
            choice = OmegaConf.to_container(composed.hydra.runtime.choices)
            ours = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            plain: Any = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:  # Hydra's own slips too
        raise _sentence(error, overrides) from None
    plain["experiment"] = choice.get("experiment") if isinstance(choice, dict) else None
    if str(plain["experiment"]).startswith("paper/"):
        name = str(plain["experiment"]).removeprefix("paper/")
        raise UserError(f"experiment={plain['experiment']} is a paper's: gradcam-bench reproduce {name}")
    return plain


def _sentence(error: Exception, overrides: Sequence[str]) -> UserError:
    """Hydra's complaint as one sentence, with the nearest valid name where a choice does not exist."""
    text = " ".join(str(error).split())
    for override in overrides:
        group, _, value = override.partition("=")
        if group in GROUPS:
            for label in value.strip("[]").split(","):
                label = label.strip().strip("'\"")
                if label and label != "null" and f"{group}/{label}" in text:
                    return unknown(group, label, names(group))
        elif "Could not override" in text and f"'{group.lstrip('+~')}'" in text:
            return _unknown_setting(group.lstrip("+~"), overrides)
    if isinstance(error, MissingMandatoryValue):
        return UserError(f"a value is missing: give {error.full_key}=...")
    return UserError(f"the overrides do not make a configuration: {text[:400]}")


def _unknown_setting(key: str, overrides: Sequence[str]) -> UserError:
    """The error for a key that does not exist, with those beside it, under the groups that the overrides choose."""
    chosen = [override for override in overrides if override.partition("=")[0] in GROUPS]
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        composed = compose("config", chosen)
    parent, _, name = key.rpartition(".")
    beside = OmegaConf.select(composed, parent) if parent else composed
    if not OmegaConf.is_dict(beside):  # the first word is wrong already
        return unknown("setting", key.partition(".")[0], map(str, composed))
    return unknown(f"setting of {parent}" if parent else "setting", name, map(str, beside))


def _run(words: list[str]) -> int:
    known, overrides = _parse("run", words)
    if known.limit is not None:
        overrides.append(f"limit={known.limit}")
    if "-m" in overrides:
        return _multirun([word for word in overrides if word != "-m"], known.config_dir, known.force)
    from gradcam_bench import commands

    commands.run(configuration(overrides, known.config_dir), force=known.force)
    return 0


def _multirun(overrides: list[str], folder: str | None, force: bool) -> int:
    """Every combination of the overrides, by Hydra's own launchers; nothing of Hydra's is written. A folder's name ends
    in the overrides that vary. Wrong input of one run is said, the others go on; the exit code is then 2."""
    import hydra

    from gradcam_bench import commands

    @hydra.main(config_path=str(CONF.resolve()), config_name="config", version_base="1.3")
    def job(config: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        composed = HydraConfig.get()
        varying = [word.partition("=")[0] for word in overrides if _varies(word)]
        task = ",".join(word for word in composed.overrides.task if word.partition("=")[0] in varying)
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        plain["experiment"] = composed.runtime.choices.get("experiment")
        try:
            commands.run(plain, force, "-" + re.sub(r"[^\w.,=-]", "", task) if task else "")
        except UserError as error:
            print(f"gradcam-bench: {task}: {error}", file=sys.stderr)
            codes.append(2)

    codes = [0]
    overrides = [*_search(folder), *overrides]
    quiet = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.job.chdir=false"]
    with tempfile.TemporaryDirectory() as place:
        sys.argv = ["gradcam-bench", "-m", *quiet, f"hydra.sweep.dir={place}", "hydra.sweep.subdir=.", *overrides]
        job()
    return max(codes)


def _varies(override: str) -> bool:
    """Whether a sweep's override stands for several values: `a,b`, choice(...), range(...), but not a plain [a,b]."""
    value = override.partition("=")[2]
    depth, commas = 0, False
    for letter in value:
        depth += (letter in "[{(") - (letter in "]})")
        commas |= letter == "," and depth == 0
    return commas or value.startswith(("choice(", "range(", "interval(", "glob("))


def _search(folder: str | None) -> list[str]:
    """Hydra's override for further configuration files; raises UserError where the folder is not there."""
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise UserError(f"--config-dir {folder}: no such folder")
    return [f"hydra.searchpath=[file://{Path(folder).resolve()}]"]


def _show(words: list[str]) -> int:
    known, overrides = _parse("show", words, "image")
    from gradcam_bench import commands

    return commands.show(configuration(overrides, known.config_dir), known.image, known.target, known.out)


def _score(words: list[str]) -> int:
    known, overrides = _parse("score", words, "run")
    from gradcam_bench import commands

    return commands.score(known.run, overrides, partial(configuration, folder=known.config_dir))


def _report(words: list[str]) -> int:
    from gradcam_bench import commands

    return commands.report(_parse("report", words, "run")[0].run)


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


VERBS = {"run": _run, "show": _show, "score": _score, "report": _report, "reproduce": _reproduce, "list": _list}
DESCRIPTIONS = {
    "run": "Explain, score and report; with no arguments, the demo on scenes.",
    "show": "Heatmaps of one image, methods side by side, in one PNG.",
    "score": "Score a run's stored heatmaps again, under other metrics, presets or protocol axes; needs no model.",
    "report": "Write tables, plots and page of a run again.",
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
