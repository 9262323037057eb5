"""data prepare: a data set from its publishers onto the disk, in the layout that `dataset=` reads.

1. what is fetched, how much, under which terms: shown, and asked; 2. each archive is downloaded to root/archives/, or
found there where only a person can get it, and its checksum compared; 3. unpacked; 4. the data set is opened, and its
pictures counted. What is done is not done again, so the same command goes on wherever the last one was stopped.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradcam_bench.building import locate
from gradcam_bench.data import unpack
from gradcam_bench.data.counts import expected
from gradcam_bench.data.download import Wanted, download, flaw
from gradcam_bench.data.sources import Archive, Source, source
from gradcam_bench.errors import UserError
from gradcam_bench.setup import make
from gradcam_bench.terminal import progress, say, transfer

Configure = Callable[[Sequence[str]], dict[str, Any]]


def prepare(
    name: str, root: str | None, parts: Sequence[str], agreed: bool, configure: Configure, pause: float = 1.0
) -> int:
    """Prepares a data set; returns 0. root: its folder (default: data/<name>). parts: further archives by their word.
    agreed: the terms were accepted beforehand. Raises UserError in a sentence that says what to do."""
    wanted, home = source(name), place(name, root)
    chosen = wanted.chosen(parts)
    todo = [archive for archive in chosen if not is_done(home, archive)]
    if todo:
        _announce(wanted, todo, home)
        _agree(wanted, agreed)
        _need_space(home, todo)
        home.mkdir(parents=True, exist_ok=True)
    missing = [archive for archive in todo if not _fetch(home, archive, pause)]
    if missing:
        raise UserError(_by_hand(wanted, missing, home))
    _opened(wanted, home, configure)
    runs = ["", *(archive.run for archive in chosen if archive.run)]
    for words in runs:
        print(shlex.join(["gradcam-bench", "run", *wanted.words(str(home)), *words.split(), "model=resnet50"]))
    say(f"checked more closely by: gradcam-bench data check {name} dataset.root={home}; {home / 'archives'} may go")
    return 0


def place(name: str, root: str | None) -> Path:
    return Path(root).expanduser() if root else Path("data") / name


def is_done(home: Path, archive: Archive) -> bool:
    """Whether an archive is unpacked whole, and still there."""
    if archive.place:
        return (home / archive.place).is_file()
    return unpack.marker(home, archive.file).is_file() and (archive.holds is None or (home / archive.holds).exists())


def _announce(wanted: Source, todo: Sequence[Archive], home: Path) -> None:
    say(f"{wanted.name}: {wanted.about}, into {home}")
    for archive in todo:
        size = "size not published" if archive.size is None else f"{archive.size / 1e6:.1f} MB"
        known = f"{'/'.join(archive.checksums)} from {archive.known_from}" if archive.checksums else "no known checksum"
        say(f"  {archive.file}: {size}, {known}; {'by hand' if archive.by_hand else archive.url}")
    say(f"terms: {wanted.terms} ({wanted.page})")


def _agree(wanted: Source, agreed: bool) -> None:
    if agreed:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{wanted.name}: nobody is there to accept its terms: read {wanted.page}, then add --yes")
    print("Do you accept these terms? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(f"{wanted.name}: its terms were not accepted, so nothing was fetched")


def _need_space(home: Path, todo: Sequence[Archive]) -> None:
    """Refuses a disk that cannot hold what is to come: the archives, and pictures of about the same size again."""
    above = next(path for path in (home, *home.resolve().parents) if path.is_dir())
    fetched = sum(
        (archive.size or 0) - _bytes(home / "archives" / archive.file) for archive in todo if not archive.by_hand
    )
    unpacked = sum(archive.size or 0 for archive in todo if archive.into)
    free = shutil.disk_usage(above).free
    if fetched + unpacked > free:
        need = (fetched + unpacked) / 1e9
        raise UserError(f"{above}: about {need:.1f} GB are needed for archives and pictures, {free / 1e9:.1f} are free")


def _bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in (path, path.with_name(f"{path.name}.part")) if one.is_file())


def _fetch(home: Path, archive: Archive, pause: float) -> bool:
    """Downloads and unpacks one archive; False where a person has to get it first."""
    path = home / archive.place if archive.place else home / "archives" / archive.file
    wanted = Wanted(archive.url or "", path, archive.size, archive.checksums)
    if archive.by_hand:
        path = next((one for one in (path, home / archive.file) if one.is_file()), path)
        if not path.is_file():
            return False
        say(f"comparing the checksum of {path}")
        if what := flaw(wanted, path):
            raise UserError(f"{path}: {what}; fetch it again")
    else:
        with transfer() as bar:
            task = bar.add_task(archive.file, total=archive.size)
            download(wanted, lambda done, total: bar.update(task, completed=done, total=total), pause)
    if archive.into is not None:
        _unpack(home, archive, path)
    return True


def _unpack(home: Path, archive: Archive, path: Path) -> None:
    with progress() as bar:
        task = bar.add_task(f"unpack {archive.file}", total=None)
        count = unpack.unpack(path, home, archive.into or ".", lambda n: bar.advance(task, n))
    if archive.holds and not (home / archive.holds).exists():
        raise UserError(
            f"{path}: unpacked, but {home / archive.holds} is not there: is it another archive of that name?"
        )
    if archive.then:
        locate(archive.then)(home)
    unpack.mark(home, archive.file, {"entries": count, "bytes": path.stat().st_size, **archive.checksums})


def _by_hand(wanted: Source, missing: Sequence[Archive], home: Path) -> str:
    each = "; ".join(f"{home / 'archives' / archive.file} ({archive.by_hand})" for archive in missing)
    return f"{wanted.name}: put there by hand what cannot be fetched, then repeat the command: {each} [{wanted.page}]"


def _opened(wanted: Source, home: Path, configure: Configure) -> None:
    """Opens the data set as a run will, and says whether as many pictures are listed as were published."""
    config = configure(wanted.words(str(home.resolve())))["dataset"]
    dataset = make(config, "dataset")
    published = expected(wanted, config).get("images")
    whether = (
        "" if published is None else "as published" if published == len(dataset.ids) else f"published: {published}"
    )
    beside = f" ({whether})" if whether else ""
    say(f"{home}: {len(dataset.ids)} pictures listed{beside}, {len(dataset.classes)} classes")
