"""`data prepare` and `data check` from the command line, on archives in the publishers' layout from this machine."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from file_server import Files, serving
from PIL import Image
from scipy.io import savemat

from gradcam_bench import cli
from gradcam_bench.catalogue import names
from gradcam_bench.data import check, prepare, sources
from gradcam_bench.data.sources import Archive, Source, source
from gradcam_bench.twins.layouts import WRITERS, scenes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as files:
        yield files


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["data", *words])
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return run


def packed(path: Path, root: Path, members: dict[str, Path]) -> bytes:
    """An archive of some files and folders, under their names in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, place in members.items():
                for file in [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file()):
                    archive.write(file, name if place.is_file() else f"{name}/{file.relative_to(place).as_posix()}")
    else:
        with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
            for name, place in members.items():
                archive.add(place, name)
    return path.read_bytes()


LISTS = ("image_ids", "class_labels", "image_sizes", "localization")
# By source: whose twin it is, and what each archive holds: name in the archive -> place below the twin's root.
TWINS: dict[str, tuple[str, str, dict[str, dict[str, str]]]] = {
    "imagenet": (
        "imagenet_devkit",
        "class",
        {"ILSVRC2012_img_val.tar": {"": "val"}, "ILSVRC2012_bbox_val_v3.tgz": {"": "bbox_val"}},
    ),
    "voc2012": ("voc", "all", {"VOCtrainval_11-May-2012.tar": {"VOCdevkit": "VOCdevkit"}}),
    "coco2017": (
        "coco",
        "all",
        {
            "annotations_trainval2017.zip": {"annotations": "annotations"},
            "val2017.zip": {"val2017": "val2017"},
        },
    ),
    "cub": (
        "cub_official",
        "one",
        {
            "CUB_200_2011.tgz": {
                f"CUB_200_2011/{part}": f"CUB_200_2011/{part}"
                for part in (
                    *("images", "images.txt", "classes.txt", "image_class_labels.txt"),
                    *("train_test_split.txt", "bounding_boxes.txt"),
                )
            },
            "segmentations.tgz": {"segmentations": "CUB_200_2011/segmentations"},
        },
    ),
    "cubv2": (
        "cubv2",
        "one",
        {"CUBV2.tar": {"": "CUB"}} | {f"val-{part}.txt": {"": f"metadata/CUB/val/{part}.txt"} for part in LISTS},
    ),
    "imagenetv2": (
        "imagenetv2",
        "class",
        {"imagenetv2-threshold0.7.tar.gz": {"imagenetv2-threshold0.7-format-val": "val2"}}
        | {f"{part}.txt": {"": f"metadata/ILSVRC/val/{part}.txt"} for part in LISTS},
    ),
    "openimages": (
        "openimages",
        "class",
        {
            "OpenImages_images.zip": {"test": "OpenImages/test"},
            "OpenImages_annotations.zip": {"test": "OpenImages/test", "val": "OpenImages/test"},
        }
        | {f"test-{part}.txt": {"": f"metadata/OpenImages/test/{part}.txt"} for part in LISTS},
    ),
    "oxford_pet": (
        "oxford_pet",
        "one",
        {"images.tar.gz": {"images": "images"}, "annotations.tar.gz": {"annotations": "annotations"}},
    ),
}


def offered(
    name: str, root: Path, server: Files, monkeypatch: pytest.MonkeyPatch, how: str = "ranges"
) -> tuple[Source, list[str]]:
    """The source with its archives from this machine, made of the twin; what people get by hand lies in root/hand."""
    twin, kind, contents = TWINS[name]
    written = WRITERS[twin][0](root / "twin", scenes(kind))
    real, archives = source(name), []
    for archive in (one for one in real.archives if one.file in contents):
        members = {inside: root / "twin" / place for inside, place in contents[archive.file].items()}
        if archive.place:
            content = next(iter(members.values())).read_bytes()
        else:
            whole = {i or f.name: f for i, p in members.items() for f in ([p] if i else p.iterdir())}
            content = packed(root / "hand" / archive.file, root, whole)
        server.files[archive.file] = content
        known = {"size": len(content), "md5": hashlib.md5(content).hexdigest(), "sha256": None}
        url = None if archive.by_hand else f"{server.address}/{how}/{archive.file}"
        holds = None if archive.file == "CUBV2.tar" else archive.holds and archive.holds.replace("00050000", "00000001")
        archives.append(replace(archive, url=url, holds=holds, **known))
    made = replace(real, archives=tuple(archives), counts={})
    for module in (prepare, check, sources):
        monkeypatch.setattr(module, "source", lambda asked: made)
    return made, written.ids


@pytest.mark.parametrize("name", TWINS)
def test_what_is_prepared_is_what_was_drawn(
    name: str, server: Files, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ids = offered(name, tmp_path / "made", server, monkeypatch)
    root = tmp_path / "a root"
    if name == "imagenet":  # it reads the 1000 classes off the annotations, which six scenes do not have
        listing = (tmp_path / "made/twin/LOC_synset_mapping.txt").read_text()
        root.mkdir()
        (root / "LOC_synset_mapping.txt").write_text(listing)
    hand = [archive.file for archive in made.archives if archive.by_hand]
    if hand:
        code, _, said = run("prepare", name, f"root={root}", "--yes")
        assert code == 2
        for file in hand:
            assert f"{root / 'archives' / file} (" in said
            (root / "archives").mkdir(parents=True, exist_ok=True)
            (tmp_path / "made/hand" / file).rename(root / "archives" / file)
    code, printed, said = run("prepare", name, "--root", str(root), "--yes")
    assert code == 0, said
    assert f"terms: {made.terms}" in said or hand
    assert f"{len(ids)} pictures listed" in said
    assert printed.startswith(f"gradcam-bench run {made.overrides[0]}")
    assert str(root) in printed
    fetched = len(server.requests)
    assert run("prepare", name, f"dataset.root={root}")[0] == 0, "what is done asks and fetches nothing"
    assert len(server.requests) == fetched
    code, printed, said = run("check", name, "--root", str(root), "--json", "--out", "out")
    assert code == 0, printed + said
    facts = json.loads(printed)
    assert (facts["counts"]["images"], facts["broken"]) == (len(ids), 0)
    manifest = pd.read_csv(tmp_path / "out/manifest.csv", dtype=str)
    assert sorted(manifest["image_id"]) == sorted(ids)


def test_a_killed_preparation_goes_on(server: Files, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while it unpacks the second archive: the first is not fetched again, and check says what happened."""
    offered("oxford_pet", tmp_path / "made", server, monkeypatch)
    whole = prepare.unpack._move

    def killed(source: Path, target: Path) -> None:
        if target.name == "annotations":
            raise KeyboardInterrupt
        whole(source, target)

    monkeypatch.setattr(prepare.unpack, "_move", killed)
    assert run("prepare", "oxford_pet", "root=it", "--yes")[0] == 130
    assert not (tmp_path / "it/annotations").exists(), "nothing half-unpacked is in its place"
    monkeypatch.setattr(prepare.unpack, "_move", whole)
    code, printed, said = run("prepare", "oxford_pet", "root=it", "--yes")
    assert code == 0, said
    assert [path for path, _ in server.requests] == ["/ranges/images.tar.gz", "/ranges/annotations.tar.gz"]
    (tmp_path / "it/.unpacking").mkdir()  # as SIGKILL leaves it
    code, printed, _ = run("check", "oxford_pet", "root=it", "--quick")
    assert code == 1
    assert "BROKEN, interrupted: 1" in printed


def test_terms_are_asked(server: Files, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered("oxford_pet", tmp_path / "made", server, monkeypatch)
    code, _, said = run("prepare", "oxford_pet", "root=it")
    assert code == 2
    assert (
        "nobody is there to accept its terms: read https://www.robots.ox.ac.uk/~vgg/data/pets/, then add --yes" in said
    )

    class Terminal:
        def __init__(self, answer: str) -> None:
            self.answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr(prepare.sys, "stdin", Terminal(answer))
        code, _, said = run("prepare", "oxford_pet", "root=it")
        assert (code, "its terms were not accepted, so nothing was fetched" in said) == (2, True)
    assert not server.requests
    assert not (tmp_path / "it").exists()
    monkeypatch.setattr(prepare.sys, "stdin", Terminal("y\n"))
    assert run("prepare", "oxford_pet", "root=it")[0] == 0


def test_a_persons_own_file_that_is_another_is_left_where_it_is(
    server: Files, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered("imagenet", tmp_path / "made", server, monkeypatch)
    path = tmp_path / "it/archives/ILSVRC2012_img_val.tar"
    path.parent.mkdir(parents=True)
    size = len(server.files["ILSVRC2012_img_val.tar"])
    path.write_bytes(bytes(size))
    code, _, said = run("prepare", "imagenet", "root=it", "--yes")
    assert (code, "its md5 is wrong; fetch it again" in said) == (2, True)
    assert path.is_file()


def test_too_small_a_disk_is_refused(server: Files, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered("oxford_pet", tmp_path / "made", server, monkeypatch)
    disk = prepare.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: disk)
    code, _, said = run("prepare", "oxford_pet", "root=it", "--yes")
    assert (code, "GB are needed for archives and pictures, 0.0 are free" in said) == (2, True)


def test_train_aug_is_sbds_and_vocs_masks_less_vocs_val(
    server: Files, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six pictures: VOC's segmentation train has 0 and 1, its val 2; SBD's train has 1, 2, 3, its val 4."""
    made, ids = offered("voc2012", tmp_path / "made", server, monkeypatch)
    home, twins = tmp_path / "made/twin/VOCdevkit/VOC2012", scenes("all")
    lists = {"train": ids[:2], "val": [ids[2]]}
    (home / "ImageSets/Segmentation").mkdir()
    for split, kept in lists.items():
        (home / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(kept))
    content = packed(tmp_path / "voc.tar", tmp_path, {"VOCdevkit": home.parent})
    sbd = tmp_path / "sbd/dataset"
    (sbd / "cls").mkdir(parents=True)
    for split, kept in (("train", ids[1:4]), ("val", [ids[4]])):
        (sbd / f"{split}.txt").write_text("\n".join(kept))
        for image_id in kept:
            size = twins[ids.index(image_id)].size
            drawn = np.full(size, 7, np.uint8)
            savemat(sbd / "cls" / f"{image_id}.mat", {"GTcls": {"Segmentation": drawn, "CategoriesPresent": [7]}})
    extra = packed(tmp_path / "benchmark.tgz", tmp_path, {"benchmark_RELEASE": sbd.parent})
    server.files |= {"VOCtrainval_11-May-2012.tar": content, "benchmark.tgz": extra}
    both = [
        replace(archive, url=f"{server.address}/plain/{archive.file}", size=None, md5=None, sha256=None)
        for archive in source("voc2012").archives
    ]
    monkeypatch.setattr(prepare, "source", lambda _: replace(made, archives=tuple(both)))
    code, printed, said = run("prepare", "voc2012", "root=it", "--with", "train_aug", "--yes")
    assert code == 0, said
    assert "dataset.lists=Segmentation dataset.split=train_aug dataset.masks=SegmentationClassAug" in printed
    monkeypatch.setattr(check, "source", source)
    words = ["dataset.lists=Segmentation", "dataset.split=train_aug", "dataset.masks=SegmentationClassAug"]
    code, printed, _ = run("check", "voc", "root=it", *words, "--json")
    facts = json.loads(printed)
    assert facts["counts"]["images"] == 4
    assert facts["published"]["images"] == 10582, "six scenes are not the published set"
    assert code == 1
    folder = tmp_path / "it/VOCdevkit/VOC2012/SegmentationClassAug"
    assert sorted(path.stem for path in folder.iterdir()) == [ids[n] for n in (0, 1, 3, 4)]
    for number, own in ((0, True), (1, True), (3, False), (4, False)):
        found = np.array(Image.open(folder / f"{ids[number]}.png"))
        theirs = np.array(Image.open(home / "SegmentationClass" / f"{ids[number]}.png"))
        assert np.array_equal(found, theirs if own else np.full_like(theirs, 7))


SENTENCES = [
    (["prepare", "vocc2012"], "unknown data set 'vocc2012': did you mean 'voc2012'?"),
    (["prepare", "voc"], "voc: say which, voc2007 or voc2012"),
    (["fetch", "voc2012"], "unknown data 'fetch'"),
    (["prepare", "voc2012", "dataset.split=train"], "data prepare takes a root alone"),
    (["prepare", "voc2012", "--with", "train_agu", "--yes"], "unknown part of voc2012 'train_agu': did you mean"),
    (["check", "nothing"], "unknown data set 'nothing'"),
    (["check", "voc2012"], "there is no data/voc2012: give dataset.root=DIR, or gradcam-bench data prepare voc2012"),
    (["check", "voc2012", "dataset.rot=x"], "there is no data/voc2012"),
    (["check", "folder"], "dataset.root is missing"),
    (["check"], "data: the following arguments are required"),
]


@pytest.mark.parametrize(("words", "sentence"), SENTENCES, ids=[" ".join(words) for words, _ in SENTENCES])
def test_wrong_words_are_one_sentence(run: Run, words: list[str], sentence: str) -> None:
    code, _, said = run(*words)
    assert (code, sentence in said) == (2, True), said


@pytest.mark.parametrize("name", names("data"))
def test_every_source(name: str) -> None:
    """Addresses are https, checksums have their hash's length and somebody who knows them."""
    made = source(name)
    assert made.terms.endswith(".")
    assert made.page.startswith("http")
    assert made.counts
    assert made.overrides[0].removeprefix("dataset=") in names("dataset")
    for archive in made.archives:
        assert (archive.url is None) != (archive.by_hand is None)
        assert archive.url is None or archive.url.startswith("https://")
        assert (archive.into is None) != (archive.place is None)
        assert all(len(value) == {"md5": 32, "sha256": 64}[key] for key, value in archive.checksums.items())
        assert bool(archive.checksums) == bool(archive.known_from)
        assert archive.place or archive.holds
    assert len({archive.file for archive in made.archives}) == len(made.archives)


def test_a_source_with_a_slip_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown key of conf/data/x\.yaml 'ulr': did you mean 'url'"):
        sources._archive("x", {"file": "a", "ulr": "b"})
    assert Archive("a").checksums == {}
