"""Downloads from a server on this machine that does what servers do: nothing here touches the network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Files, serving

from gradcam_bench.data import download as module
from gradcam_bench.data.download import Wanted, download
from gradcam_bench.errors import UserError

CONTENT = bytes(range(256)) * 20
MD5, SHA = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as files:
        files.files["it.tar"] = CONTENT
        yield files


def wanted(server: Files, tmp_path: Path, how: str = "ranges", name: str = "it.tar", **known: object) -> Wanted:
    return Wanted(f"{server.address}/{how}/{name}", tmp_path / "archives" / "it.tar", **known)


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "archives").iterdir())


@pytest.mark.parametrize("how", ["plain", "ranges", "tagged", "dropping", "busy"])
def test_a_file_comes_whole_whatever_the_server_does(server: Files, tmp_path: Path, how: str) -> None:
    seen: list[tuple[int, int | None]] = []
    one = wanted(server, tmp_path, how, size=len(CONTENT), checksums={"md5": MD5, "sha256": SHA})
    path = download(one, lambda done, total: seen.append((done, total)), pause=0.001)
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == ["it.tar"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    if how == "dropping":  # 5120 bytes, 1000 at a time
        assert [range_ for _, range_ in server.requests] == [None, *(f"bytes={n}000-" for n in range(1, 6))]


def test_what_is_there_is_not_fetched_again(server: Files, tmp_path: Path) -> None:
    download(wanted(server, tmp_path))
    download(wanted(server, tmp_path))
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:-1] + b"?"], ids=["cut short", "altered"])
def test_what_lies_there_is_compared_before_it_is_used(server: Files, tmp_path: Path, content: bytes) -> None:
    one = wanted(server, tmp_path, size=len(CONTENT), checksums={"sha256": SHA})
    one.path.parent.mkdir()
    one.path.write_bytes(content)
    with pytest.raises(UserError, match=r"it\.tar: .*delete it, and repeat the command"):
        download(one)
    assert one.path.read_bytes() == content
    assert server.requests == []


def test_a_killed_download_goes_on_where_it_was(server: Files, tmp_path: Path) -> None:
    one = wanted(server, tmp_path, checksums={"sha256": SHA})
    one.path.parent.mkdir()
    one.part.write_bytes(CONTENT[:1234])
    assert download(one).read_bytes() == CONTENT
    assert server.requests == [("/ranges/it.tar", "bytes=1234-")]


@pytest.mark.slow
def test_a_process_killed_by_sigkill_leaves_what_can_be_resumed(server: Files, tmp_path: Path) -> None:
    server.files["it.tar"] = many = CONTENT * 100  # half a MB, at 10 KB a second
    one = wanted(server, tmp_path, "slow", checksums={"sha256": hashlib.sha256(many).hexdigest()})
    code = (
        "import pathlib; from gradcam_bench.data import download as d; d.BLOCK = 1000; "
        f"d.download(d.Wanted({one.url!r}, pathlib.Path({str(one.path)!r}), None, {one.checksums!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    while (not one.part.is_file() or one.part.stat().st_size < 8192) and time.monotonic() < until:
        time.sleep(0.05)
    child.kill()
    child.wait()
    kept = one.part.stat().st_size
    assert 8192 <= kept < len(many)
    assert not one.path.exists()
    there = Wanted(one.url.replace("slow", "ranges"), one.path, None, one.checksums)
    assert download(there).read_bytes() == many
    assert server.requests[-1] == ("/ranges/it.tar", f"bytes={kept}-")


def test_a_download_killed_at_its_last_byte_is_only_checked(server: Files, tmp_path: Path) -> None:
    one = wanted(server, tmp_path, size=len(CONTENT), checksums={"sha256": SHA})
    one.path.parent.mkdir()
    one.part.write_bytes(CONTENT)
    assert download(one).read_bytes() == CONTENT
    assert not server.requests


def test_a_server_without_ranges_sends_all_again(server: Files, tmp_path: Path) -> None:
    one = wanted(server, tmp_path, "plain", checksums={"sha256": SHA})
    one.path.parent.mkdir()
    one.part.write_bytes(CONTENT[:1234])
    assert download(one).read_bytes() == CONTENT
    assert server.requests == [("/plain/it.tar", "bytes=1234-")]


def test_two_versions_of_a_file_are_never_joined(server: Files, tmp_path: Path) -> None:
    one = wanted(server, tmp_path, "tagged")
    one.path.parent.mkdir()
    one.part.write_bytes(b"x" * 1234)
    one.tag.write_text('"another"')
    assert download(one).read_bytes() == CONTENT
    bare = wanted(server, tmp_path / "bare")  # neither checksum nor tag: nothing could tell, so it begins anew
    bare.path.parent.mkdir(parents=True)
    bare.part.write_bytes(b"x" * 1234)
    assert download(bare).read_bytes() == CONTENT
    assert server.requests[-1] == ("/ranges/it.tar", None)


def test_more_than_the_server_has_is_thrown_away(server: Files, tmp_path: Path) -> None:
    one = wanted(server, tmp_path, checksums={"sha256": SHA})
    one.path.parent.mkdir()
    one.part.write_bytes(b"x" * (len(CONTENT) + 5))
    assert download(one, pause=0.001).read_bytes() == CONTENT


@pytest.mark.parametrize("checksums", [{"md5": "0" * 32}, {"md5": MD5, "sha256": "0" * 64}])
def test_a_wrong_checksum_puts_the_file_aside(server: Files, tmp_path: Path, checksums: dict[str, str]) -> None:
    with pytest.raises(UserError, match=rf"its {list(checksums)[-1]} is wrong; put aside as .*it\.tar\.bad"):
        download(wanted(server, tmp_path, checksums=checksums))
    assert left(tmp_path) == ["it.tar.bad"]


def test_another_size_is_refused_before_it_is_fetched(server: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 5120 bytes where 77 were expected: its publisher changed it"):
        download(wanted(server, tmp_path, size=77))
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("how", "name", "sentence"),
    [
        ("ranges", "none.tar", "the server answers 404 Not Found"),
        ("page", "it.tar", "a web page came in place of the file"),
    ],
)
def test_what_is_no_file_is_one_sentence(server: Files, tmp_path: Path, how: str, name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        download(wanted(server, tmp_path, how, name))
    assert len(server.requests) == 1
    assert left(tmp_path) == []


def test_no_network_is_one_sentence_and_what_came_is_kept(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    one = Wanted("http://127.0.0.1:9/it.tar", tmp_path / "it.tar", checksums={"md5": MD5})  # nobody listens
    one.part.write_bytes(b"abc")
    with pytest.raises(UserError, match=r"cannot be fetched \(.*refused.*\): is there a network\?; 3 bytes are kept"):
        download(one, pause=0.001)
    assert one.part.read_bytes() == b"abc"


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/it.tar", "file:///etc/passwd", "http://example.org/it.tar"])
def test_a_redirection_leads_nowhere_else(server: Files, tmp_path: Path, target: str) -> None:
    server.target = target
    with pytest.raises(UserError, match=r"only https is fetched from|is not allowed"):  # urllib's own words
        download(wanted(server, tmp_path, "moved"))


def test_a_redirection_is_followed(server: Files, tmp_path: Path) -> None:
    server.target = f"{server.address}/ranges/it.tar"
    assert download(wanted(server, tmp_path, "moved")).read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://example.org/it.tar", "ftp://example.org/it.tar", "file:///etc/passwd"])
def test_only_https(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="only https is fetched from"):
        download(Wanted(url, tmp_path / "it.tar"))
