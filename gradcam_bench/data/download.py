"""One file from the network: resumed where it broke off, checked while it comes, there whole or not at all.

FILE.part grows; FILE.part.tag keeps what the server calls this version of it (its ETag), so that two versions are never
joined. When everything is there and the checksum is right, FILE.part becomes FILE; when it is wrong, FILE.bad.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradcam_bench.errors import UserError
from gradcam_bench.terminal import say

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte
TRIES = 6  # in a row that brought no byte
LOOPBACK = ("127.0.0.1", "localhost", "::1")
BROKEN = (urllib.error.URLError, http.client.HTTPException, OSError)  # what a connection may end with
AGAIN = (408, 425, 429, 500, 502, 503, 504)
Advance = Callable[[int, int | None], None]  # (bytes that are there, bytes in all if known)


class _Again(Exception):
    """This try failed, another may not."""


@dataclass(frozen=True)
class Wanted:
    """A file to fetch. size: its bytes, None where not known. checksums: by hash, md5 or sha256; empty where no one
    publishes any."""

    url: str
    path: Path
    size: int | None = None
    checksums: Mapping[str, str] | None = None

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def tag(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part.tag")


def download(wanted: Wanted, advance: Advance = lambda *_: None, pause: float = 1.0) -> Path:
    """Fetches the file unless it is there already, and compares size and checksums either way; returns its path.

    pause: seconds before the first repetition, doubled for each further one. Raises UserError in a sentence: no
    network, no such file, a web page in its place, not the expected size, wrong checksum.
    """
    if wanted.path.is_file():
        if what := flaw(wanted, wanted.path):
            raise UserError(f"{wanted.path}: {what}; delete it, and repeat the command to fetch it anew")
        return wanted.path
    _allowed(wanted.url)
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    _repeatedly(wanted, advance, pause)
    if what := flaw(wanted, wanted.part):
        bad = wanted.path.with_name(f"{wanted.path.name}.bad")
        wanted.part.replace(bad)
        wanted.tag.unlink(missing_ok=True)
        raise UserError(f"{wanted.url}: {what}; put aside as {bad}; repeat the command to fetch it anew")
    wanted.part.replace(wanted.path)
    wanted.tag.unlink(missing_ok=True)
    return wanted.path


def flaw(wanted: Wanted, path: Path) -> str | None:
    """What is wrong with a file that is all there: its size, or a checksum; None where neither is."""
    found = path.stat().st_size
    if wanted.size not in (None, found):
        return f"it has {found} bytes where {wanted.size} were expected"
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in wanted.checksums or {}}
    with path.open("rb") as file:
        while digests and (block := file.read(BLOCK)):
            for digest in digests.values():
                digest.update(block)
    wrong = [name for name, digest in digests.items() if digest.hexdigest() != (wanted.checksums or {})[name]]
    return f"its {wrong[0]} is wrong" if wrong else None


def _repeatedly(wanted: Wanted, advance: Advance, pause: float) -> None:
    """Tries until all is there; only tries in a row that brought nothing count."""
    failed = 0
    while True:
        before = _there(wanted)
        try:
            return _once(wanted, advance)
        except _Again as error:
            failed = 1 if _there(wanted) > before else failed + 1
            if failed >= TRIES:
                kept = f"; {_there(wanted)} bytes are kept, the same command goes on" if _there(wanted) else ""
                raise UserError(f"{wanted.url}: cannot be fetched ({error}): is there a network?{kept}") from None
            say(f"{wanted.path.name}: {error}; trying again")
            time.sleep(pause * 2 ** (failed - 1))


def _there(wanted: Wanted) -> int:
    return wanted.part.stat().st_size if wanted.part.is_file() else 0


def _once(wanted: Wanted, advance: Advance) -> None:
    """One request, from where the last one broke off."""
    start = _resumable(wanted)
    if start and start == wanted.size:
        return
    headers = {"User-Agent": "gradcam-bench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if wanted.tag.is_file():
            headers["If-Range"] = wanted.tag.read_text(encoding="latin-1")
    try:
        with _opener().open(urllib.request.Request(wanted.url, headers=headers), timeout=TIMEOUT) as answer:
            _take(wanted, answer, start, advance)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # what is there is longer than the file, so it is another one
            wanted.part.unlink()
            raise _Again("the server has another version of it") from None
        if error.code in AGAIN:
            raise _Again(f"the server answers {error.code}") from None
        raise UserError(f"{wanted.url}: the server answers {error.code} {error.reason}") from None
    except BROKEN as error:
        if isinstance(error, OSError) and error.filename:  # our own file, not the network
            raise
        raise _Again(str(getattr(error, "reason", None) or error) or type(error).__name__) from None


def _resumable(wanted: Wanted) -> int:
    """How many bytes can be kept: none where nothing could tell a mixture of two versions."""
    start = _there(wanted)
    if start and not wanted.checksums and not wanted.tag.is_file():
        wanted.part.unlink()
        return 0
    return start


def _take(wanted: Wanted, answer: Any, start: int, advance: Advance) -> None:
    """Appends what the server sends, or begins again where it sends everything."""
    headers: Message = answer.headers
    if headers.get_content_type() == "text/html" and not wanted.path.suffix.startswith(".htm"):
        raise UserError(
            f"{wanted.url}: a web page came in place of the file: does it ask for a login, or has it moved?"
        )
    if answer.status != 206:
        start = 0
    elif not (headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
        wanted.part.unlink(missing_ok=True)
        raise _Again("the server sends another part than was asked for")
    length = headers.get("Content-Length")
    total = start + int(length) if length and length.isdecimal() else wanted.size
    if wanted.size is not None and total != wanted.size:
        raise UserError(f"{wanted.url} has {total} bytes where {wanted.size} were expected: its publisher changed it")
    if tag := headers.get("ETag"):
        wanted.tag.write_text(tag, encoding="latin-1")
    with wanted.part.open("ab" if start else "wb") as file:
        while block := answer.read(BLOCK):
            file.write(block)
            start += len(block)
            advance(start, total)
    if total is not None and start < total:
        raise _Again(f"the connection broke off after {start} of {total} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to where a file may be fetched from."""

    def redirect_request(self, request: Any, *answer: Any) -> Any:
        target = answer[-1]
        _allowed(target)
        if _loopback(target) and not _loopback(request.full_url):
            raise UserError(f"{request.full_url} leads to this machine itself ({target}): refused")
        return super().redirect_request(request, *answer)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects)


def _loopback(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


def _allowed(url: str) -> None:
    """https alone; plain http only from this machine itself."""
    scheme = urlsplit(url).scheme
    if scheme != "https" and not (scheme == "http" and _loopback(url)):
        raise UserError(f"{url}: only https is fetched from")
