"""data check: whether a data set on the disk is what was published, and whole.

Exit code 0: it is; 1: something is broken, or the counts are others; 2: it cannot be opened at all.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradcam_bench import catalogue
from gradcam_bench.data import unpack
from gradcam_bench.data.counts import expected
from gradcam_bench.data.inspect import BROKEN, Finding, Stock, inspect
from gradcam_bench.data.prepare import place
from gradcam_bench.data.sources import COUNTED, Source, source
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.files import atomically, write_json
from gradcam_bench.samples import Dataset
from gradcam_bench.setup import make
from gradcam_bench.terminal import progress

Configure = Callable[[Sequence[str]], dict[str, Any]]
SHOWN = 5  # findings of a kind that are printed


def check(
    name: str, overrides: Sequence[str], configure: Configure, quick: bool, as_json: bool, out: str | None
) -> int:
    """Checks the data set `name`: one that `data prepare` knows, or any `dataset=` name. Writes check.json,
    findings.csv and manifest.csv into `out` (default: results/check/<name>). Returns the exit code."""
    known, config = _configuration(name, overrides, configure)
    dataset: Dataset = make(config["dataset"], "dataset")
    with progress() as bar:
        task = bar.add_task("headers" if quick else "decode", total=len(dataset.ids))
        stock = inspect(dataset, quick, int(config["workers"]), lambda: bar.advance(task))
    split = "-".join(str(config["dataset"].get(key)) for key in ("year", "split") if config["dataset"].get(key))
    home = (
        Path(out) if out else Path(str(config["results"])) / "check" / (f"{name}-{Path(split).stem}" if split else name)
    )
    published = expected(known, config["dataset"])
    stock.findings += [*_counted(stock, published), *_interrupted(config["dataset"]), *_changed(stock, home)]
    facts = _facts(name, dataset, stock, published, quick)
    _write(home, facts, stock)
    print(json.dumps(facts, indent=1) if as_json else _text(facts, stock, known, home))
    return 1 if facts["broken"] else 0


def _configuration(
    name: str, overrides: Sequence[str], configure: Configure
) -> tuple[Source | None, Mapping[str, Any]]:
    """The source, where the name is one's, and the configuration that reads it; the overrides come last."""
    sources, datasets = catalogue.names("data"), catalogue.names("dataset")
    if name not in (*sources, *datasets):
        raise unknown("data set", name, [*sources, *datasets])
    rooted = any(word.lstrip("+").startswith("dataset.root=") for word in overrides)
    given = [word for word in overrides if word.lstrip("+").startswith("dataset.root=")]
    if name in sources:
        known = source(name)
        root = given[-1].partition("=")[2].strip("'\"") if given else str(place(name, None))
        if not rooted and not Path(root).is_dir():
            raise UserError(f"{name}: there is no {root}: give dataset.root=DIR, or gradcam-bench data prepare {name}")
        words = [word for word in known.words(root) if not word.startswith("dataset.root=") or not rooted]
        lists = [word for word in words if word.startswith("dataset.metadata=")]
        if lists and not Path(lists[0].partition("=")[2].strip("'\"")).is_dir():
            words.remove(lists[0])
        return known, configure([*words, *overrides])
    config = configure([f"dataset={name}", *overrides])
    return _same_kind(config["dataset"], sources), config


def _same_kind(dataset: Mapping[str, Any], sources: Sequence[str]) -> Source | None:
    """The source whose files a configuration reads: voc of 2007 is voc2007, coco with a split of 2014 coco2014."""
    name = str(dataset.get("name"))
    year = dataset.get("year") or next((y for y in (2014, 2017) if str(dataset.get("split", "")).endswith(str(y))), "")
    found = next((one for one in (name, f"{name}{year}") if one in sources), None)
    return source(found) if found else None


def _counted(stock: Stock, published: Mapping[str, int]) -> list[Finding]:
    there = {**stock.counts, "classes": len(stock.classes)}
    differing = [key for key in COUNTED if key in published and published[key] != there.get(key, 0)]
    differing = [key for key in differing if key != "masks" or there.get("masks")]  # a quick look decodes none
    return [Finding("count", "", f"{there.get(key, 0)} {key}, published: {published[key]}") for key in differing]


def _interrupted(dataset: Mapping[str, Any]) -> list[Finding]:
    root = dataset.get("root")
    left = isinstance(root, str) and unpack.scratch(Path(root).expanduser()).is_dir()
    return (
        [Finding("interrupted", "", f"{root}: unpacking was stopped half way: repeat `data prepare`")] if left else []
    )


def _changed(stock: Stock, home: Path) -> list[Finding]:
    """Pictures whose bytes are not those of the check before."""
    path = home / "manifest.csv"
    if not path.is_file() or not stock.manifest:
        return []
    with path.open(newline="", encoding="utf-8") as file:
        before = {row["image_id"]: row["sha256"] for row in csv.DictReader(file)}
    return [
        Finding("changed", image_id, f"its bytes are others than at the check before ({path})")
        for image_id, digest in stock.manifest.items()
        if before.get(image_id, digest) != digest
    ]


def _facts(name: str, dataset: Dataset, stock: Stock, published: Mapping[str, int], quick: bool) -> dict[str, Any]:
    kinds = Counter(finding.kind for finding in stock.findings)
    counts = {"images": 0, "cases": 0, "boxes": 0, "masks": 0, **stock.counts, "classes": len(stock.classes)}
    return {
        "name": name,
        "dataset": dataset.name,
        "counts": counts,
        "published": dict(published),
        "pictures": stock.pictures,
        "annotations": dataset.fingerprint(),
        "decoded": not quick,
        "findings": dict(sorted(kinds.items())),
        "broken": sum(count for kind, count in kinds.items() if kind in BROKEN),
    }


def _write(home: Path, facts: Mapping[str, Any], stock: Stock) -> None:
    write_json(home / "check.json", facts)
    rows = [(one.kind, "broken" if one.kind in BROKEN else "odd", one.image_id, one.what) for one in stock.findings]
    _table(home / "findings.csv", ("kind", "weight", "image_id", "what"), sorted(rows, key=lambda row: row[1]))
    if stock.manifest and not any(finding.kind == "changed" for finding in stock.findings):
        _table(home / "manifest.csv", ("image_id", "sha256"), sorted(stock.manifest.items()))


def _table(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *rows])

    atomically(path, write)


def _text(facts: Mapping[str, Any], stock: Stock, known: Source | None, home: Path) -> str:
    lines = [f"{facts['name']}: {facts['dataset']}"]
    for key in ("images", "cases", "boxes", "masks", "classes"):
        published = facts["published"].get(key)
        beside = "" if published is None else f"   published: {published}"
        lines.append(f"  {key:8} {facts['counts'][key]:>8}{beside}")
    if known and facts["published"]:
        lines.append(f"  (published: {known.counted_by})")
    hashed = facts["pictures"] or "not hashed (--quick)"
    lines.append(f"  pictures: sha256 {hashed}; annotations: sha256 {facts['annotations']}")
    for kind, count in sorted(facts["findings"].items(), key=lambda one: one[0] not in BROKEN):
        lines.append(f"  {'BROKEN' if kind in BROKEN else 'odd'}, {kind}: {count}")
        some = [finding for finding in stock.findings if finding.kind == kind][:SHOWN]
        lines += [f"    {finding.image_id}{': ' if finding.image_id else ''}{finding.what}" for finding in some]
    verdict = f"{facts['broken']} broken" if facts["broken"] else "nothing is broken"
    return "\n".join([*lines, f"{verdict}; all findings: {home / 'findings.csv'}"])
