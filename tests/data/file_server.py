"""A server of files on this machine, with the ways in which servers and connections go wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """files: by path. The first part of a path says how it is served: `plain` (no ranges), `ranges`, `tagged` (ranges,
    and an ETag), `dropping` (ranges; each answer breaks off after `most` bytes), `busy` (503 until the third request),
    `page` (a web page), `moved` (to `target`), `slow` (ranges, 500 bytes at a time). requests: the path and
    the Range of each."""

    files: dict[str, bytes] = field(default_factory=dict)
    address: str = ""
    most: int = 1000
    tag: str = '"one"'
    target: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Files]:
    files = Files()

    class Handler(BaseHTTPRequestHandler):
        slow = False

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            how, _, name = self.path[1:].partition("?")[0].partition("/")
            asked = self.headers.get("Range")
            files.requests.append((self.path, asked))
            if how == "moved":
                return self.answer(302, b"", Location=files.target)
            if how == "page":
                return self.answer(200, b"<html>please log in</html>", **{"Content-Type": "text/html; charset=utf-8"})
            if how == "busy" and sum(path == self.path for path, _ in files.requests) < 3:
                return self.answer(503, b"")
            if name not in files.files:
                return self.answer(404, b"")
            content, start, status, head = files.files[name], 0, 200, {}
            same = self.headers.get("If-Range") in (None, files.tag)
            if asked and same and how in ("ranges", "tagged", "dropping", "slow"):
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                if start >= len(content):
                    return self.answer(416, b"")
                status, head = 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            if how == "tagged":
                head["ETag"] = files.tag
            self.slow = how == "slow"
            self.answer(status, content[start:], files.most if how == "dropping" else None, **head)

        def answer(self, status: int, body: bytes, most: int | None = None, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"Content-Type": "application/octet-stream", **headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for at in range(0, len(body) if self.slow else 0, 500):
                self.wfile.write(body[at : at + 500])
                time.sleep(0.05)
            self.wfile.write(b"" if self.slow else body[:most])
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    files.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
