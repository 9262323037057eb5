"""Where data sets come from: conf/data/<name>.yaml, as objects.

What is not officially known (a checksum, a size) is null there, never guessed, and `known_from` says who knows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from gradcam_bench import catalogue
from gradcam_bench.errors import UserError, unknown

COUNTED = ("images", "classes", "boxes", "masks")


@dataclass(frozen=True)
class Archive:
    """One file of a data set.

    file: its name in root/archives/. url: where it is fetched from; by_hand: how a person gets it instead. size: bytes.
    into: the folder below root that it is unpacked in, `holds` something that is there afterwards; place: the path
    below root of a file that is no archive. part: None, or the word of `--with` that asks for it. then: a function
    of the root, run after unpacking. run: overrides of the data set that read it.
    """

    file: str
    url: str | None = None
    by_hand: str | None = None
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    known_from: str | None = None
    into: str | None = None
    holds: str | None = None
    place: str | None = None
    part: str | None = None
    then: str | None = None
    run: str | None = None

    @property
    def checksums(self) -> dict[str, str]:
        return {name: value for name, value in (("md5", self.md5), ("sha256", self.sha256)) if value}


@dataclass(frozen=True)
class Source:
    """A data set's files, terms and published counts, by split (`<list>/<split>` for VOC's segmentations; "" where
    there are none). overrides: what `run` takes to read it; {root} stands for the folder."""

    name: str
    about: str
    page: str
    terms: str
    overrides: tuple[str, ...]
    archives: tuple[Archive, ...]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    counted_by: str = ""

    @property
    def parts(self) -> list[str]:
        """The words that `--with` takes."""
        return list(dict.fromkeys(archive.part for archive in self.archives if archive.part))

    def chosen(self, parts: Sequence[str]) -> list[Archive]:
        """The archives that everybody needs, and those of some parts. Raises UserError for a part that is none."""
        for part in parts:
            if part not in self.parts:
                raise unknown(f"part of {self.name}", part, self.parts or ["none"])
        return [archive for archive in self.archives if archive.part is None or archive.part in parts]

    def words(self, root: str) -> list[str]:
        """The overrides that read it from a folder, as Hydra wants them."""
        words = [*self.overrides, "dataset.root={root}"]
        return [word if "{root}" not in word else quoted(*word.format(root=root).split("=", 1)) for word in words]


def quoted(key: str, value: str) -> str:
    """An override whose value Hydra takes as it stands, whatever is in it."""
    plain = re.fullmatch(r"[\w./@%+:~-]+", value) is not None
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}={value}" if plain else f"{key}='{escaped}'"


def source(name: str) -> Source:
    """The source of that name. Raises UserError with the nearest one."""
    names = catalogue.names("data")
    if name not in names:
        years = [known for known in names if known.startswith(name)] if name in ("voc", "coco") else []
        raise UserError(f"{name}: say which, {' or '.join(years)}") if years else unknown("data set", name, names)
    spec = catalogue.spec("data", name)
    counts = dict(spec.get("counts") or {})
    counted_by = str(counts.pop("source", ""))
    archives = tuple(_archive(name, entry) for entry in spec["archives"])
    about, page, terms = (str(spec[key]) for key in ("about", "page", "terms"))
    return Source(name, about, page, terms, tuple(spec["overrides"]), archives, counts, counted_by)


def _archive(name: str, entry: Mapping[str, Any]) -> Archive:
    given = {("part" if key == "with" else key): value for key, value in entry.items()}
    known = [one.name for one in fields(Archive)]
    for key in given:
        if key not in known:
            raise unknown(f"key of conf/data/{name}.yaml", key, known)
    return Archive(**given)
