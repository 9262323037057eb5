"""Archives that are whole, and those that are not or mean harm."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from gradcam_bench.data import unpack as module
from gradcam_bench.data.unpack import scratch, unpack
from gradcam_bench.errors import UserError


def tar(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for other in others:
            archive.addfile(other)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def there(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


FILES = {"Voc/a/1.txt": b"one", "Voc/b.txt": b"two"}


@pytest.mark.parametrize("kind", ["w", "w:gz", "zip"])
def test_an_archive_lands_in_its_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    zipped(path, FILES) if kind == "zip" else tar(path, FILES, mode=kind)
    seen: list[int] = []
    assert unpack(path, tmp_path / "root", "into", seen.append) == sum(seen) == 2
    assert there(tmp_path / "root") == {f"into/{name}": content for name, content in FILES.items()}
    assert not scratch(tmp_path / "root").exists()


def test_two_archives_share_a_folder(tmp_path: Path) -> None:
    """As VOC 2007's two do."""
    for name, files in (("one.tar", FILES), ("two.tar", {"Voc/a/2.txt": b"more", "Voc/b.txt": b"again"})):
        unpack(tar(tmp_path / name, files), tmp_path / "root", ".")
    assert there(tmp_path / "root") == {"Voc/a/1.txt": b"one", "Voc/a/2.txt": b"more", "Voc/b.txt": b"again"}


OUTSIDE = ["../evil.txt", "/evil.txt", "a/../../evil.txt", "a/../../../root-evil/x", "C:\\evil.txt", "..\\evil.txt"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_lands_outside(tmp_path: Path, kind: str, name: str) -> None:
    path = (tar if kind == "tar" else zipped)(tmp_path / "it", {"fine.txt": b"fine", name: b"evil"})
    with pytest.raises(UserError, match=r"refused, .* would be written outside its folder"):
        unpack(path, tmp_path / "a" / "root", ".")
    assert [name for name in there(tmp_path) if name != "it"] == []


@pytest.mark.parametrize(
    "entry",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "../../../evil"),
        special("link", tarfile.LNKTYPE, "../evil"),
        special("device", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
    ids=["absolute link", "link out", "hard link out", "device", "pipe"],
)
def test_links_out_and_devices_are_refused(tmp_path: Path, entry: tarfile.TarInfo) -> None:
    with pytest.raises(UserError, match="refused, "):
        unpack(tar(tmp_path / "it.tar", {}, entry), tmp_path / "root", ".")
    assert there(tmp_path / "root") == {}


def test_a_link_is_no_way_out(tmp_path: Path) -> None:
    """A link to a folder, then a file by way of it."""
    (tmp_path / "victim").mkdir()
    entries = special("way", tarfile.SYMTYPE, str(tmp_path / "victim")), special("way/evil.txt", tarfile.REGTYPE)
    with pytest.raises(UserError, match="refused, "):
        unpack(tar(tmp_path / "it.tar", {}, *entries), tmp_path / "root", ".")
    assert not any((tmp_path / "victim").iterdir())


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "it.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="'link' is a link or a device"):
        unpack(tmp_path / "it.zip", tmp_path / "root", ".")


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RATIO", 20)
    zeros = {"zeros": bytes(3 << 20)}  # three MB in a few KB; 64 KB at least are taken for the archive's size
    path = zipped(tmp_path / "it", zeros) if kind == "zip" else tar(tmp_path / "it", zeros, mode=kind)
    with pytest.raises(UserError, match=r"refused, its entries declare 3145728 bytes .* 1310720 are there"):
        unpack(path, tmp_path / "root", ".")
    assert there(tmp_path / "root") == {}


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = shutil.disk_usage(tmp_path)._replace(free=module.SPARE + 4)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: disk)
    with pytest.raises(UserError, match="declare 6 bytes and more, where 4 are there"):
        unpack(tar(tmp_path / "it.tar", FILES), tmp_path / "root", ".")


@pytest.mark.parametrize("kind", ["w", "w:gz", "zip"])
def test_a_damaged_archive_leaves_nothing_that_looks_whole(tmp_path: Path, kind: str) -> None:
    files = {f"Voc/{n}.txt": bytes([n]) * 3000 for n in range(40)}
    path = zipped(tmp_path / "it", files) if kind == "zip" else tar(tmp_path / "it", files, mode=kind)
    content = path.read_bytes()
    if kind == "zip":  # a byte of an entry's data; its list at the end is whole
        path.write_bytes(content[:60] + bytes([content[60] ^ 255]) + content[61:])
    else:
        path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError, match=r"is damaged|no tar or zip archive"):
        unpack(path, tmp_path / "root", ".")
    assert there(tmp_path / "root") == {}


def test_a_page_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "it.tar").write_text("<html>please log in</html>")
    with pytest.raises(UserError, match="no tar or zip archive; delete it"):
        unpack(tmp_path / "it.tar", tmp_path / "root", ".")


def test_what_a_killed_process_left_is_begun_anew(tmp_path: Path) -> None:
    left = scratch(tmp_path / "root") / "it.tar"
    left.mkdir(parents=True)
    (left / "half.txt").write_text("half")
    unpack(tar(tmp_path / "it.tar", FILES), tmp_path / "root", ".")
    assert set(there(tmp_path / "root")) == set(FILES)
