"""The labels in conf/, and what their YAML files say: read without torch, so that a question is answered at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradcam_bench.errors import unknown

CONF = Path(__file__).parent / "conf"  # in an installed package
if not CONF.is_dir():
    CONF = Path(__file__).parent.parent / "conf"  # in a checkout


def names(group: str) -> list[str]:
    """The labels of a config group: `method`, `metric`, `preset`, `dataset`, `model`, `recipe`, `experiment`..."""
    folder = CONF / group
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def spec(group: str, label: str) -> dict[str, Any]:
    """The mapping in conf/<group>/<label>.yaml (below its label, for method, metric and preset; below `recipe`)."""
    import yaml

    path = CONF / group / f"{label}.yaml"
    if not path.is_file():
        raise unknown(group, label, names(group))
    loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if group in ("method", "metric", "preset", "recipe"):
        return dict(loaded["recipe" if group == "recipe" else label])
    return dict(loaded)


def about(group: str, label: str) -> str:
    """One line of description: the label's `about`, or the file's leading comment."""
    described = spec(group, label).get("about")
    if described:
        return " ".join(str(described).split())
    comments = [
        line.removeprefix("#").strip()
        for line in (CONF / group / f"{label}.yaml").read_text(encoding="utf-8").splitlines()
        if line.startswith("# ") and not line.startswith("# @package")
    ]
    return comments[0] if comments else ""
