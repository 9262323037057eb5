"""A run's folder and its records: which folder, what was resolved, with what it ran."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import UnionType
from typing import Any

import yaml

from gradcam_bench.choices import digest
from gradcam_bench.errors import UserError
from gradcam_bench.files import write_json, write_text
from gradcam_bench.store import Store

# What does not change a number may differ between a run and its continuation.
OPERATIONAL = ("name", "results", "workers", "batch_size", "max_memory", "on_error", "multiverse")
CONFIG: dict[str, type | UnionType] = dict.fromkeys(("dataset", "method", "metric", "preset", "model"), dict)
CONFIG |= {"view": dict | None, "protocol": dict | None, "precision": str, "seed": int, "store": str, "stages": list}
FACTS: dict[str, type | UnionType] = dict.fromkeys(
    ("preprocessing", "protocols", "refused", "degenerate", "views"), dict
)
FACTS |= {"skipped": list, "problems": list, "accuracy": list, "model": str, "dataset": str, "layer": str | None}
ANEW = "repeat the run's command with --force, which begins anew"
PACKAGES = (
    "gradcam-bench",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "numba",
    "pillow",
    "hydra-core",
)


def config_hash(config: Mapping[str, Any]) -> str:
    """8 hex digits over the resolved configuration, without what cannot change a number."""
    return digest(_chosen(config))


def _chosen(config: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen, as {"a.b.c": leaf}: null is no choice, so that a run goes on when a new choice has appeared."""
    told = {key: value for key, value in _plain(config).items() if key not in OPERATIONAL}
    return {key: value for key, value in flatten(told).items() if value is not None}


def open_folder(
    config: Mapping[str, Any],
    experiment: str,
    force: bool = False,
    suffix: str = "",
    needed: Mapping[str, type | UnionType] = CONFIG,
) -> Path:
    """The folder of this configuration's run, with config.yaml in it: new, or the one that it goes on with.

    Without a name the folder is <date>-<hash>, and a run of the same configuration is found again by its hash on a
    later date. A named folder that holds another configuration is refused, saying what differs. force: starts anew.
    needed: what such a configuration has.
    """
    home = Path(str(config["results"])).expanduser() / experiment
    given = config.get("name")
    if given is not None and (Path(str(given)).name != str(given) or str(given) in ("", ".", "..")):
        raise UserError(f"name={given}: it names one folder in {home}, so it holds no path")
    marker = config_hash(config)
    found = sorted(home.glob(f"*-{marker}{suffix}")) if not given and home.is_dir() else []
    name = f"{given or f'{dt.date.today().isoformat()}-{marker}'}{suffix}"
    name = found[-1].name if found else name
    folder = home / name
    if force and folder.exists():
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} holds no run (no config.yaml): --force deletes only runs")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"results folder {folder} cannot be made: {error.strerror}; give results=DIR") from None
    stored = folder / "config.yaml"
    if stored.is_file():
        _refuse_other(folder, load_config(folder, needed), config)
    else:
        write_text(stored, yaml.safe_dump(_plain(config), sort_keys=True))
    return folder


def _refuse_other(folder: Path, stored: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    if config_hash(stored) == config_hash(config):
        return
    before, now = _chosen(stored), _chosen(config)
    different = [key for key in sorted(set(before) | set(now)) if before.get(key) != now.get(key)]
    shown = "; ".join(f"{key}: there {before.get(key)!r}, now {now.get(key)!r}" for key in different[:4])
    raise UserError(f"{folder} holds another run ({shown}): give another name=, or --force to delete it")


def same_inputs(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes what the numbers depend on beside the configuration (data, weights, methods' versions) into inputs.json,
    or refuses to go on with a run that began with something else, naming it."""
    path, plain = folder / "inputs.json", _plain(facts)
    if not path.is_file():
        write_json(path, plain)
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): {ANEW}") from None
    changed = [key for key in sorted({*before, *plain}) if before.get(key) != plain.get(key)]
    if changed:
        raise UserError(f"{folder} began with other inputs ({', '.join(changed)} changed since): use --force")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as {"a.b.c": leaf}."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for name, part in value.items() for k, v in flatten(part, f"{prefix}.{name}".lstrip(".")).items()}


def load_config(folder: Path, needed: Mapping[str, type | UnionType] = CONFIG) -> dict[str, Any]:
    """The resolved configuration of a run; raises UserError where the folder holds none."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run folder: it has no config.yaml")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): {ANEW}") from None
    return _mapping(path, loaded, needed)


def load_run(folder: Path) -> dict[str, Any]:
    """run.json of a run; raises UserError where it is missing or damaged."""
    path = folder / "run.json"
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there: the run is not finished; repeat its command") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and repeat the run's command") from None
    return _mapping(path, loaded, FACTS)


def _mapping(path: Path, loaded: Any, needed: Mapping[str, type | UnionType]) -> dict[str, Any]:
    """A file's mapping, if it has what is needed of it, each of its kind."""
    for key, kind in needed.items():
        if not isinstance(loaded, Mapping) or not isinstance(loaded.get(key), kind):
            raise UserError(f"{path} is damaged: its {key} is not what a run writes; {ANEW}")
    return dict(loaded)


def save_run(folder: Path, facts: Mapping[str, Any]) -> None:
    write_json(folder / "run.json", facts)


def environment(device: str) -> dict[str, Any]:
    """Versions, platform, device and code: what a number may depend on beside its protocol."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions | {"python": platform.python_version()},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the checkout that this package lies in, with a + where it was changed; None outside one."""
    here = Path(__file__).parent
    try:
        if not (here.parent / ".git").exists():
            return None
        command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _barrier() -> None:
    import torch.distributed

    try:
        torch.distributed.barrier()
    except RuntimeError:  # the connection to a process that has ended
        raise UserError("another process of this run has ended; once its fault is mended, repeat the command") from None


def need_space(folder: Path, wanted: int) -> None:
    """Refuses to start where the disk has less free space than the run is going to take, in bytes."""
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise UserError(
            f"{folder}: the run needs about {wanted / 1e6:.1f} MB and {free / 1e6:.1f} are free (store=none?)"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process at a time works in a run's folder; another one is refused. What a killed one left is removed."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no config.yaml")
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: another process is at work here; wait for it, or give another name=") from None
        Store(folder).tidy()
        yield


@contextmanager
def ranks() -> Iterator[tuple[int, int, Callable[[], None]]]:
    """(rank, world size, wait for all ranks) under torchrun; (0, 1, nothing) otherwise."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield rank, world, lambda: None
        return
    import torch.distributed

    torch.distributed.init_process_group("gloo", timeout=dt.timedelta(days=7))  # ranks may finish hours apart
    try:
        yield rank, world, _barrier
    finally:
        torch.distributed.destroy_process_group()


def _plain(value: Any) -> Any:
    """Mappings and sequences as dicts and lists of plain values, as YAML has them."""
    return json.loads(json.dumps(value, default=list))
