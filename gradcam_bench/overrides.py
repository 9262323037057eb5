"""Overrides to plain values, by Hydra: one configuration, or a sweep of them. The only file that knows Hydra.

What Hydra finds wrong comes out as one sentence that names the nearest valid word.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra  # hydra.main reads sys.argv, exits by itself and drops what the jobs return
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.version import setbase
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from gradcam_bench.catalogue import CONF, names
from gradcam_bench.errors import UserError, unknown

GROUPS = ("method", "metric", "preset", "dataset", "model", "experiment", "recipe")
LISTS = ("method", "metric", "preset", "stages")
OPEN = ("recipe.lr_factors", "recipe.preprocessing")  # mappings whose keys are the user's
WRONG = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError)  # Hydra's own slips too
QUIET = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.job.chdir=false")
Outcome = tuple[int, str]  # exit code and, where it is not 0, the sentence
Task = Callable[[Mapping[str, Any], str], Outcome]


def configuration(overrides: Sequence[str], folder: str | None = None, name: str = "config") -> dict[str, Any]:
    """conf/<name>.yaml with the overrides, resolved, as plain values. folder: further config files, searched first."""
    searched = _search(folder)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            composed = compose(name, [*searched, *_ours(overrides, folder)], return_hydra_config=True)
            choice = OmegaConf.to_container(composed.hydra.runtime.choices)
            ours = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            plain = _plain(ours, choice.get("experiment") if isinstance(choice, dict) else None)
    except WRONG as error:
        raise _sentence(error, overrides, name, folder) from None
    if str(plain["experiment"]).startswith("paper/"):
        paper = str(plain["experiment"]).removeprefix("paper/")
        raise UserError(f"experiment={plain['experiment']} is a paper's: gradcam-bench reproduce {paper}")
    return plain


def _ours(overrides: Iterable[str], folder: str | None) -> list[str]:
    """Overrides in Hydra's words: `method=[all]` is the list of every method of ours (not of what adapts other
    libraries); a method's parameter may be given whether its YAML file names it or not (`catalogue` checks it)."""
    given = []
    for override in overrides:
        key, _, value = override.partition("=")
        group, _, rest = key.partition(".")
        if key == "method" and value.strip("[] ") == "all":
            given.append(f"method=[{','.join(name for name in names('method') if not name.startswith('external_'))}]")
        elif key.startswith(OPEN) and value != "null":
            given.append(f"++{override}")
        else:
            parameter = group == "method" and rest.partition(".")[0] in _known("method", folder)
            given.append(f"++{override}" if parameter else override)
    return given


def _known(group: str, folder: str | None) -> list[str]:
    """The names in a group, those of the user's own folder too."""
    own = [path.stem for path in (Path(folder) / group).glob("*.yaml")] if folder else []
    return [*names(group), *own]


def _plain(config: Any, experiment: Any) -> dict[str, Any]:
    """A composed configuration as plain values; a group of which nothing was chosen (`preset=[]`) is empty."""
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {"method": {}, "metric": {}, "preset": {}} | plain | {"experiment": experiment}


def _sentence(error: Exception, overrides: Sequence[str], name: str, folder: str | None) -> UserError:
    """Hydra's complaint as one sentence, with the nearest valid name where a choice does not exist."""
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return UserError(
            f"'{error.override}' cannot be read: give KEY=VALUE, a value with special characters in quotes of its own, "
            """as 'name="é"'"""
        )
    if isinstance(error, YAMLError):
        return UserError(f"a YAML file cannot be read: {text[:400]}")
    for override in overrides:
        group, _, value = override.partition("=")
        group = group.partition("@")[0]
        if group in GROUPS:
            for label in re.split(r"[\[\],\s'\"]+", value):
                if label and label != "null" and re.search(rf"{group}/{re.escape(label)}(?!\w)", text):
                    return unknown(group, label, _known(group, folder))
        elif "Could not override" in text and f"'{group.lstrip('+~')}'" in text:
            return _unknown_setting(group.lstrip("+~"), overrides, name, folder)
    several = re.search(r"Ambiguous value for argument '([^']*)'", text)
    if several:
        key, _, value = several[1].partition("=")
        form = f"'{key}=[{value}]' for a list" if key in LISTS else "one"
        return UserError(f"'{several[1]}' is several values: give {form}, or -m for a run of each")
    launcher = re.search(r"'hydra/launcher/(\w+)'", text)
    if launcher:
        return UserError(
            f"hydra/launcher={launcher[1]} is not here: it comes with `pip install 'gradcam-bench[slurm]'` "
            "(basic, joblib, submitit_local, submitit_slurm)"
        )
    if isinstance(error, MissingMandatoryValue):
        return UserError(f"a value is missing: give {error.full_key}=...")
    return UserError(f"the overrides do not make a configuration: {text[:400]}")


def _unknown_setting(key: str, overrides: Sequence[str], root: str, folder: str | None) -> UserError:
    """The error for a key that does not exist, with those beside it, under the groups that the overrides choose."""
    groups = [word for word in overrides if word.partition("=")[0] in GROUPS and not _varies(word)]
    chosen = [*_search(folder), *_ours(groups, folder)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        composed = compose(root, chosen)
    parent, _, name = key.rpartition(".")
    beside = OmegaConf.select(composed, parent) if parent else composed
    while not OmegaConf.is_dict(beside):  # a word before the last is wrong already
        parent, _, name = parent.rpartition(".")
        beside = OmegaConf.select(composed, parent) if parent else composed
    return unknown(f"setting of {parent}" if parent else "setting", name, map(str, beside))


def sweep(overrides: Sequence[str], task: Task, results: Path, folder: str | None = None) -> list[Outcome]:
    """Calls task(configuration, suffix of the run's name) for every combination of the overrides, by Hydra's launchers.

    Returns what the tasks returned. task: a module's function or a partial of one, since launchers pickle it; the
    suffix holds the overrides that vary. What a launcher writes itself (submitit: logs) stays in results/sweeps/.
    """
    setbase("1.3")
    made = [path for path in (results / "sweeps", results) if not path.exists()]
    place = results / "sweeps" / f"{dt.datetime.now():%Y-%m-%d-%H%M%S}-{os.getpid()}"
    GlobalHydra.instance().clear()
    try:
        hydra = Hydra.create_main_hydra2("gradcam-bench", create_config_search_path(str(CONF.resolve())))
        settings = [*QUIET, f"hydra.sweep.dir={place.resolve()}", "hydra.sweep.subdir=.", *_search(folder)]
        varying = [override.partition("=")[0] for override in overrides if _varies(override)]
        job = partial(_job, task, varying)
        batches = hydra.multirun("config", job, [*settings, *_ours(overrides, folder)], with_log_configuration=False)
        return [done.return_value for batch in batches for done in batch]
    except WRONG as error:
        raise error if isinstance(error, UserError) else _sentence(error, overrides, "config", folder) from None
    except Exception as error:
        if not any("submitit" in frame.filename for frame in traceback.extract_tb(error.__traceback__)):
            raise
        raise UserError(f"the launcher failed (logs of its jobs: {place}): {' '.join(str(error).split())}") from None
    finally:
        GlobalHydra.instance().clear()
        if not (place / ".submitit").is_dir():
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(OSError):  # where anything else is in it
                for empty in made:
                    empty.rmdir()


def _job(task: Task, varying: Sequence[str], config: Any) -> Outcome:
    """One job of a sweep, in whatever process or on whatever machine its launcher runs it."""
    composed = HydraConfig.get()
    mine = ",".join(word for word in composed.overrides.task if word.partition("=")[0] in varying)
    plain = _plain(config, composed.runtime.choices.get("experiment"))
    code, sentence = task(plain, "-" + re.sub(r"[^\w.,=-]", "", mine) if mine else "")
    return code, f"{mine}: {sentence}" if sentence else ""


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
