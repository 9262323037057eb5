"""Archives into folders, so that nothing lands outside, nothing is half there, and no bomb fills the disk.

An archive is unpacked into root/.unpacking/<file>/ first; only when that is whole its entries are moved to their place,
and root/.prepared/<file>.json says so. Whoever is killed in between begins this archive anew.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from gradcam_bench.errors import UserError
from gradcam_bench.files import write_json

RATIO = 200  # an archive that claims to hold more than so many times its own size is a bomb
SPARE = 64 << 20  # bytes that are left free on the disk
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
)
Advance = Callable[[int], None]


def marker(root: Path, file: str) -> Path:
    return root / ".prepared" / f"{file}.json"


def scratch(root: Path) -> Path:
    """Where archives are unpacked first; it is there only while that goes on, or after it was stopped."""
    return root / ".unpacking"


def unpack(archive: Path, root: Path, into: str, advance: Advance = lambda n: None) -> int:
    """The archive's files in root/into; returns their number. advance(n): called as n more are unpacked.

    Raises UserError naming the archive where it is damaged, or an entry would land outside the folder (absolute, `..`,
    a link out of it), is a device, or there is less room than the entries declare.
    """
    place = scratch(root) / archive.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        count = _fill(archive, place, advance)
        for entry in sorted(place.iterdir()):
            _move(entry, root / into / entry.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if not any(scratch(root).iterdir()):
            scratch(root).rmdir()
    return count


def mark(root: Path, file: str, facts: dict[str, Any]) -> None:
    """Says that an archive is unpacked whole."""
    write_json(marker(root, file), facts)


def _fill(archive: Path, place: Path, advance: Advance) -> int:
    opened = _tar if tarfile.is_tarfile(archive) else _zip if zipfile.is_zipfile(archive) else None
    if opened is None:
        raise UserError(f"{archive}: no tar or zip archive; delete it, and repeat the command to fetch it anew")
    room = min(shutil.disk_usage(place).free - SPARE, RATIO * max(archive.stat().st_size, 1 << 16))
    count = declared = 0
    try:
        with opened(archive) as entries:
            for name, size, extract in entries:
                _inside(archive, name)
                declared += size
                if declared > room:
                    raise UserError(
                        f"{archive}: refused, its entries declare {declared} bytes and more, where "
                        f"{max(room, 0)} are there for them (a full disk, or a bomb)"
                    )
                extract(place)
                count += 1
                advance(1)
    except tarfile.FilterError as error:
        raise UserError(f"{archive}: refused, {error}") from None
    except UserError:
        raise
    except DAMAGED as error:
        if isinstance(error, OSError) and error.filename:  # the disk's, not the archive's
            raise
        raise UserError(f"{archive} is damaged ({error}): delete it, and repeat the command to fetch it anew") from None
    return count


Entries = Iterator[tuple[str, int, Callable[[Path], Any]]]


@contextmanager
def _tar(archive: Path) -> Iterator[Entries]:
    with tarfile.open(archive) as tar:
        yield (
            (member.name, member.size, lambda place, member=member: tar.extract(member, place, filter="data"))  # type: ignore[misc]
            for member in tar
        )


@contextmanager
def _zip(archive: Path) -> Iterator[Entries]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{archive}: refused, {info.filename!r} is a link or a device")
        yield (
            (info.filename, info.file_size, lambda place, info=info: file.extract(info, place))  # type: ignore[misc]
            for info in file.infolist()
        )


def _inside(archive: Path, name: str) -> None:
    """Refuses a name that leads out of the folder, on whatever system."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.anchor or ".." in path.parts:
            raise UserError(f"{archive}: refused, {name!r} would be written outside its folder")


def _move(source: Path, target: Path) -> None:
    """Puts a file, or a folder's entries where it is there already, in its place. A folder that is new comes whole."""
    if source.is_dir() and not source.is_symlink() and target.is_dir():
        for entry in sorted(source.iterdir()):
            _move(entry, target / entry.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
