"""Everything that can be wrong with pictures, annotations, weights and layers: refused in one sentence (exit code 2),
or left out, named and counted while the rest is scored (exit code 0; with on_error=raise the same sentence, code 2)."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from gradcam_bench import cli

SMALL = [
    "run", "model=squeezenet1_1", "model.weights=none", "model.num_classes=10", "workers=0", "batch_size=2", "name=one",
    "method=[grad_cam,center]", "preset=[default]", "metric=[pointing_game]", "stages=[explain,score]",
    "view.resize=warp", "view.size=64",
]  # fmt: skip


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.main(list(words))
    return code, capsys.readouterr().err


def sentence_of(err: str) -> str:
    """The one line that the program says of its own end."""
    (line,) = [line for line in err.splitlines() if line.startswith("gradcam-bench: ")]
    assert "Traceback" not in err
    assert err.rstrip().endswith(line)
    return line


def own_data(root: Path) -> Path:
    """Three pictures of 60 x 40 pixels, each with one box."""
    (root / "images").mkdir(parents=True)
    for number, name in enumerate("abc"):
        Image.new("RGB", (60, 40), (number * 60, 90, 30)).save(root / "images" / f"{name}.jpg")
    boxes(root, "a,1,5,5,30,30", "b,2,0,0,20,20", "c,3,10,10,50,30")
    return root


def boxes(root: Path, *lines: str) -> None:
    (root / "boxes.csv").write_text("\n".join(["image_id,class_index,x0,y0,x1,y1", *lines]) + "\n", encoding="utf-8")


def bomb(root: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, b"IDAT" + zlib.compress(b"\0"), b"IEND")
    ]
    (root / "images" / "b.jpg").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def shorten(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


LEFT_OUT: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated picture": (lambda root: shorten(root / "images/b.jpg", 300), "images/b.jpg: cannot be decoded"),
    "picture of no bytes": (
        lambda root: shorten(root / "images/b.jpg", 0),
        "images/b.jpg: cannot be decoded (its bytes are no picture)",
    ),
    "web page for a picture": (
        lambda root: (root / "images/b.jpg").write_text("<html>404</html>"),
        "images/b.jpg: cannot be decoded (its bytes are no picture)",
    ),
    "decompression bomb": (bomb, "images/b.jpg: refused, its header announces an image too large"),
    "folder for a picture": (
        lambda root: ((root / "images/b.jpg").unlink(), (root / "images/b.jpg").mkdir()),
        "images/b.jpg: cannot be decoded",
    ),
    "picture without a file": (lambda root: (root / "images/b.jpg").unlink(), "no picture named b in "),
    "box outside": (
        lambda root: boxes(root, "a,1,5,5,30,30", "b,2,70,50,90,60", "c,3,10,10,50,30"),
        "b: box (70, 50, 91, 61) of class 2 covers no pixel of the 60x40 image",
    ),
    "inverted box": (
        lambda root: boxes(root, "a,1,5,5,30,30", "b,2,20,20,5,5", "c,3,10,10,50,30"),
        "b: box (20, 20, 6, 6) of class 2 covers no pixel",
    ),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_a_broken_picture_or_box_is_left_out_named_and_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str
) -> None:
    spoil, sentence = LEFT_OUT[what]
    root = own_data(tmp_path / "data")
    spoil(root)
    words = [*SMALL, "dataset=folder", f"dataset.root={root}", f"results={tmp_path}"]
    code, err = call(capsys, *words, "on_error=raise", "name=strict")
    assert code == 2
    assert sentence in sentence_of(err)
    code, err = call(capsys, *words)
    assert code == 0, err
    facts = json.loads((tmp_path / "run/one/run.json").read_text())
    (said,) = [entry["reason"] for entry in facts["skipped"]] + facts["problems"]
    assert sentence in said
    rows = pd.read_parquet(tmp_path / "run/one/rows.parquet")
    assert {"a", "c"} == set(rows["image_id"][rows["value"].notna()])


def test_a_run_that_could_read_no_picture_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = own_data(tmp_path / "data")
    for path in (root / "images").iterdir():
        shorten(path, 0)
    words = [*SMALL, "dataset=folder", f"dataset.root={root}", f"results={tmp_path}"]
    assert cli.main([*words, "stages=[explain]", "name=maps"]) == 0  # it was not to score
    capsys.readouterr()
    assert cli.main([*words, "stages=[explain,score,report]"]) == 2
    printed = capsys.readouterr()
    assert "nothing was scored: 3 images were left out" in printed.out
    assert printed.err.splitlines()[-1].startswith("gradcam-bench: nothing was scored: ")
    assert "run.json says which images were left out" in printed.err


def test_a_picture_of_which_pil_only_warns_is_scored_in_silence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between PIL's limit (89 megapixels) and twice that; here the limit is lowered, not the picture raised."""
    root = own_data(tmp_path / "data")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    code, err = call(capsys, *SMALL, "dataset=folder", f"dataset.root={root}", f"results={tmp_path}")
    assert code == 0, err
    assert "Warning" not in err
    assert json.loads((tmp_path / "run/one/run.json").read_text())["skipped"] == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    code, err = call(
        capsys, *SMALL, "dataset=folder", f"dataset.root={root}", f"results={tmp_path}", "name=two", "on_error=raise"
    )
    assert code == 2
    assert "a.jpg: refused, its header announces an image too large" in sentence_of(err)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no picture at all": (lambda root: (shutil.rmtree(root), root.mkdir()), "data holds no pictures: put them in"),
    "two pictures of one id": (
        lambda root: Image.new("RGB", (9, 9)).save(root / "images/b.png"),
        "holds both b.jpg and b.png: image ids must differ",
    ),
    "class the model has not": (
        lambda root: boxes(root, "a,11,5,5,30,30"),
        "class 11 is asked for, and the model has 10 classes (0 to 9)",
    ),
    "box that is no number": (lambda root: boxes(root, "a,1,5,five,30,30"), "boxes.csv, line 2: no finite numbers in"),
    "box at infinity": (lambda root: boxes(root, "a,1,5,inf,30,30"), "boxes.csv, line 2: no finite numbers in"),
    "box without a column": (
        lambda root: (root / "boxes.csv").write_text("image_id,x0\na,1\n"),
        "boxes.csv: no column class_index, y0, x1, y1",
    ),
    "table in another encoding": (
        lambda root: (root / "boxes.csv").write_bytes(
            "image_id,class_index,x0,y0,x1,y1\né,1,2,3,4,5".encode("latin-1")
        ),
        "boxes.csv: no readable CSV in UTF-8",
    ),
    "table that is a picture": (
        lambda root: shutil.copy(root / "images/a.jpg", root / "boxes.csv"),
        "boxes.csv: no readable CSV in UTF-8",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_data_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str) -> None:
    spoil, sentence = REFUSED[what]
    root = own_data(tmp_path / "data")
    spoil(root)
    code, err = call(capsys, *SMALL, "dataset=folder", f"dataset.root={root}", f"results={tmp_path}")
    assert code == 2
    assert sentence in sentence_of(err)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("été\n".encode("latin-1"), "no readable list in UTF-8"), (b"", "names no class")],
    ids=["another encoding", "empty"],
)
def test_a_list_of_classes_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, sentence: str
) -> None:
    root = own_data(tmp_path / "data")
    (tmp_path / "classes.txt").write_bytes(content)
    words = ["dataset=folder", f"dataset.root={root}", f"dataset.classes={tmp_path}/classes.txt"]
    code, err = call(capsys, *SMALL, *words, f"results={tmp_path}")
    assert code == 2
    assert f"{tmp_path}/classes.txt" in err
    assert sentence in sentence_of(err)


XML_BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;&b;">]><annotation>&d;</annotation>'
ANNOTATIONS: dict[str, tuple[Callable[[str], str], str]] = {
    "XML bomb": (lambda xml: XML_BOMB, "scene_000001.xml: refused, it declares XML entities (bomb?)"),
    "half an XML": (lambda xml: xml[: len(xml) // 2], "scene_000001.xml: no readable XML"),
    "no XML": (lambda xml: "", "scene_000001.xml: no readable XML"),
    "unknown class": (
        lambda xml: xml.replace("<name>", "<name>un"),
        "scene_000001: object 0 (un",
    ),
    "box without a corner": (lambda xml: xml.replace("xmax", "xmaxx"), "has no known class or no whole box"),
}


@pytest.mark.parametrize("what", ANNOTATIONS)
def test_a_broken_annotation_is_left_out_named_and_counted(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path, what: str
) -> None:
    spoil, sentence = ANNOTATIONS[what]
    shutil.copytree(scenes_root, tmp_path / "copy")
    path = tmp_path / "copy/VOCdevkit/VOC2012/Annotations/scene_000001.xml"
    path.write_text(spoil(path.read_text()))
    words = [*SMALL, "dataset=scenes", f"dataset.root={tmp_path}/copy", f"results={tmp_path}", "limit=3"]
    code, err = call(capsys, *words, "on_error=raise", "name=strict")
    assert code == 2
    assert sentence in sentence_of(err)
    code, err = call(capsys, *words)
    assert code == 0, err
    facts = json.loads((tmp_path / "run/one/run.json").read_text())
    assert any(sentence in said for said in [e["reason"] for e in facts["skipped"]] + facts["problems"])
    rows = pd.read_parquet(tmp_path / "run/one/rows.parquet")
    assert {"scene_000000", "scene_000002"} <= set(rows["image_id"])


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("/tmp/never"),)  # type: ignore[return-value]


def tensors(classes: int = 10) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return dict(torchvision.models.squeezenet1_1(num_classes=classes).state_dict())


def without(last: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in last.items() if name not in names}


def truncated(path: Path) -> None:
    save_file(tensors(), path)
    shorten(path, path.stat().st_size // 2)


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "code in a pickle": ("w.pth", lambda p: p.write_bytes(pickle.dumps(Evil())), "w.pth cannot be read as weights"),
    "code in torch's file": ("w.pth", lambda p: torch.save({"a": Evil()}, p), "w.pth cannot be read as weights"),
    "half a safetensors": ("w.safetensors", truncated, "w.safetensors cannot be read as weights"),
    "no bytes": ("w.pth", lambda p: p.write_bytes(b""), "w.pth cannot be read as weights"),
    "a picture": ("w.pth", lambda p: Image.new("L", (9, 9)).save(p, "png"), "w.pth cannot be read as weights"),
    "a list": ("w.pth", lambda p: torch.save([torch.ones(2)], p), "w.pth holds no tensors by name"),
    "a folder": ("w.pth", lambda p: p.mkdir(), "w.pth is not there (a file"),
    "other network's": (
        "w.pth",
        lambda p: torch.save(torchvision.models.alexnet(num_classes=10).state_dict(), p),
        "does not fit SqueezeNet",
    ),
    "one missing": (
        "w.pth",
        lambda p: torch.save(without(tensors(), "features.0.bias"), p),
        "does not fit SqueezeNet: 1 missing (such as features.0.bias)",
    ),
    "wrong number of classes": (
        "w.pth",
        lambda p: torch.save(tensors(7), p),
        "has 7 classes, model.num_classes=10 asked",
    ),
}


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_file_that_holds_no_fitting_weights(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path, what: str
) -> None:
    name, write, sentence = CHECKPOINTS[what]
    write(tmp_path / name)
    code, err = call(
        capsys, *SMALL, f"dataset.root={scenes_root}", f"results={tmp_path}", f"model.weights={tmp_path / name}"
    )
    assert code == 2
    assert sentence in sentence_of(err)
    assert not (tmp_path / "run").exists()
    assert not Path("/tmp/never").exists()


def test_weights_that_are_not_numbers_score_nothing_and_say_so(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    spoilt = {name: torch.full_like(tensor, float("nan")) for name, tensor in tensors().items()}
    torch.save(spoilt, tmp_path / "w.pth")
    words = [*SMALL, f"dataset.root={scenes_root}", f"results={tmp_path}", f"model.weights={tmp_path}/w.pth", "limit=2"]
    code, err = call(capsys, *words)
    assert code == 0, err
    rows = pd.read_parquet(tmp_path / "run/one/rows.parquet").set_index("method")
    assert set(rows.loc["grad_cam", "problem"]) == {"heatmap not finite"}
    assert rows.loc["grad_cam", "value"].isna().all()
    assert rows.loc["center", "value"].notna().any()  # the control asks no network
    facts = json.loads((tmp_path / "run/one/run.json").read_text())
    assert facts["degenerate"]["grad_cam"]["not finite"] == len(rows.loc["grad_cam"])


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        ("feature", "unknown layer 'feature': did you mean 'features'?"),
        ("features.99", "unknown layer 'features.99'"),
        ("features@x", "layer features@x: after @ comes the number"),
        ("features@3", "layer features@3 took no part in the forward pass; layers of squeezenet1_1 that would do: "),
    ],
)
def test_a_layer_that_cannot_be_looked_at(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path, layer: str, sentence: str
) -> None:
    code, err = call(capsys, *SMALL, f"dataset.root={scenes_root}", f"results={tmp_path}", f'model.layer="{layer}"')
    assert code == 2
    assert sentence in sentence_of(err)


OWN_MODELS = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem, self.aside, self.fc = nn.Conv2d(3, 4, 3, 4), nn.Conv2d(3, 4, 3, 4), nn.Linear(4, classes)

    def forward(self, images):
        self.aside(images)
        return self.fc(self.stem(images).mean((2, 3)))

class Fails(Odd):
    def forward(self, images):
        raise KeyError("no such thing")

class Says(Odd):
    def forward(self, images):
        return super().forward(images).mean()

def odd(): return Odd()
def fails(): return Fails()
def says(): return Says()
def raises(): raise OSError("no network here")
def no_module(): return 3
"""


@pytest.mark.parametrize(
    ("target", "layer", "sentence"),
    [
        ("odd", "fc", "layer fc gives no grid: its output is (2, 10), not a map [B,C,h,w] or "),
        (
            "odd",
            "aside",
            "the score does not depend on layer aside: choose an earlier one; layers of odd that ",
        ),
        ("fails", "stem", "model fails fails on a 224x224 input: "),
        ("says", "stem", "the model's output holds no scores [B,K]"),
        ("raises", "stem", "model.target=own_models.raises failed: OSError: no network here"),
        ("no_module", "stem", "model.target=own_models.no_module returned int, not an nn.Module"),
        ("gone", "stem", "cannot import 'own_models.gone'"),
        ("odd", "null", "model.layer=NAME is needed for own_models.odd"),
    ],
)
def test_a_network_of_ones_own_that_cannot_be_explained(
    capsys: pytest.CaptureFixture[str],
    scenes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    layer: str,
    sentence: str,
) -> None:
    (tmp_path / "own_models.py").write_text(OWN_MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [word for word in SMALL if not word.startswith(("model", "view"))]
    own = ["model=custom", f"model.target=own_models.{target}", f"model.layer={layer}"]
    code, err = call(capsys, *words, *own, f"dataset.root={scenes_root}", f"results={tmp_path}")
    assert code == 2
    assert sentence in sentence_of(err)
