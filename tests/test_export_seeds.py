"""Seeds in other programs' files, read back by other means: the same labels, and so the same mean IoU as was scored."""

from __future__ import annotations

import ast
import io
import json
import pickle
import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from gradcam_bench import cli
from gradcam_bench.annotations import coco
from gradcam_bench.datasets.voc import Voc
from gradcam_bench.errors import UserError
from gradcam_bench.seed_files import Coco, Numbers, Seed, irn, png, psa

METHODS = ("grad_cam", "center")
IRN_NAMES = {"torch._utils _rebuild_tensor_v2", "torch.storage _load_from_bytes", "collections OrderedDict"}
SMALL = [
    "model=scenes_gap", "limit=4", "workers=0", "batch_size=2",
    "method=[grad_cam,center]", "metric=[seed_miou,seed_miou_best]", "view.resize=warp", "view.size=96",
    "view.augment=none", "name=seeds",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(scenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each preset on four scenes, and its seeds in every format."""
    made = {}
    for preset in ("psa_2018,psa_2018_crf", "sec_2016"):
        results = tmp_path_factory.mktemp(preset.partition(",")[0])
        metrics = ["metric=[seed_miou]"] if preset == "sec_2016" else []
        words = ["run", *SMALL, *metrics, f"preset=[{preset}]", f"dataset.root={scenes_root}", f"results={results}"]
        assert cli.main(words) == 0
        made[preset.partition(",")[0]] = run = results / "run" / "seeds"
        assert cli.main(["seeds", str(run), "--format", "irn,psa,sec,png,coco-rle"]) == 0
    return made


@pytest.fixture(scope="module")
def scenes(scenes_root: Path) -> Voc:
    return Voc(scenes_root, split="test", classes=["disc", "square", "triangle", "cross", "star", "ring", "crescent",
                                                   "heart", "arrow", "hourglass"])  # fmt: skip


def scored(run: Path, method: str, crf: bool = False) -> float:
    summary = pd.read_csv(run / "summary.csv")
    mine = summary[(summary["method"] == method) & (summary["metric"] == "seed_miou")]
    cards = json.loads((run / "run.json").read_text())["protocols"]["seed_miou"]
    (value,) = [
        value for name, value in zip(mine["protocol"], mine["value"]) if (cards[name]["axes"]["crf"] > 0) == crf
    ]
    return float(value)


def mean_iou(labels: dict[str, np.ndarray], scenes: Voc) -> float:
    """Of whole label maps against the devkit's own pictures."""
    confusion = np.zeros((12, 12))
    for image_id, predicted in labels.items():
        with Image.open(scenes.home / "SegmentationClass" / f"{image_id}.png") as picture:
            truth = np.array(picture)
        there = truth != 255
        np.add.at(confusion, (truth[there], np.minimum(predicted, 11)[there]), 1)  # 11: unknown
    hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return float(np.mean([a / b for a, b in zip(hits[:11], union[:11]) if b]))


def decoded(segmentation: dict) -> np.ndarray:
    with warnings.catch_warnings():  # of pycocotools' own arrays, which know NumPy 1's protocol alone
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(rle.decode(segmentation), dtype=bool)


def files(run: Path, method: str, kind: str) -> list[Path]:
    return sorted((run / "seeds" / method / kind).iterdir())


def read_as_they_do(path: Path) -> dict:
    """The one line by which IRN and PSA load a file; it unpickles, which is fine for a file that this test wrote."""
    return np.load(path, allow_pickle=True).item()


@pytest.mark.parametrize("method", METHODS)
def test_irn_reads_its_dictionary(runs: dict[str, Path], scenes: Voc, method: str) -> None:
    labels = {}
    for path in files(runs["psa_2018"], method, "irn"):
        cam_dict = read_as_they_do(path)  # then eval_cam.py's own lines
        cams = np.pad(cam_dict["high_res"], ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=0.2)
        keys = np.pad(cam_dict["keys"] + 1, (1, 0), mode="constant")
        labels[path.stem] = keys[np.argmax(cams, axis=0)]
        height, width = cam_dict["high_res"].shape[1:]
        assert list(cam_dict) == ["keys", "cam", "high_res"]
        assert cam_dict["keys"].dtype == torch.int64
        asked = scenes.annotate(scenes.ids.index(path.stem)).classes
        assert cam_dict["keys"].tolist() == sorted(asked)  # the reader, not the file, adds the background
        assert cam_dict["cam"].shape == (len(keys) - 1, -(-height // 4), -(-width // 4))
        assert cam_dict["cam"].cpu().dtype == torch.float32  # a tensor: make_sem_seg_labels.py calls .cuda() on it
        assert (type(cam_dict["high_res"]), cam_dict["high_res"].dtype) == (np.ndarray, np.float32)
    assert len(labels) == 4
    assert mean_iou(labels, scenes) == pytest.approx(scored(runs["psa_2018"], method), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_psa_reads_maps_by_class(runs: dict[str, Path], scenes: Voc, method: str) -> None:
    labels = {}
    for path in files(runs["psa_2018"], method, "psa"):
        cam = read_as_they_do(path)
        assert all(type(k) is int and v.dtype == np.float32 for k, v in cam.items())
        full = np.zeros((11, *next(iter(cam.values())).shape), np.float32)
        for k, v in cam.items():
            full[k + 1] = v
        full[0] = 0.2
        labels[path.stem] = full.argmax(0)
    assert mean_iou(labels, scenes) == pytest.approx(scored(runs["psa_2018"], method), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", ["psa_2018", "sec_2016"])
def test_pictures_hold_the_scored_labels_in_vocs_colours(
    runs: dict[str, Path], scenes: Voc, method: str, preset: str
) -> None:
    labels = {}
    for path in files(runs[preset], method, "png"):
        with Image.open(path) as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[: 3 * 4] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
            labels[path.stem] = np.array(picture)
    assert mean_iou(labels, scenes) == pytest.approx(scored(runs[preset], method), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_coco_results_decode_to_the_scored_labels(runs: dict[str, Path], scenes: Voc, method: str) -> None:
    path = runs["psa_2018"] / "seeds" / method / "coco-rle" / "results.json"
    labels = {image_id: np.zeros(scenes.annotate(n).size, int) for n, image_id in enumerate(scenes.ids[:4])}
    for entry in json.loads(path.read_text()):
        assert 0 <= entry["score"] <= 1
        labels[entry["image_id"]][decoded(entry["segmentation"])] = entry["category_id"]
    assert mean_iou(labels, scenes) == pytest.approx(scored(runs["psa_2018"], method), rel=1e-9)


class Plain(pickle.Unpickler):
    """Refuses whatever is no plain dictionary, list, text or number."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"{module}.{name}")


@pytest.mark.parametrize("method", METHODS)
def test_secs_pickle_holds_nothing_but_plain_values(runs: dict[str, Path], scenes: Voc, method: str) -> None:
    folder = runs["sec_2016"] / "seeds" / method / "sec"
    content = (folder / "localization_cues.pickle").read_bytes()
    assert content[:2] == b"\x80\x02"  # protocol 2, which Python 2 reads
    data = Plain(io.BytesIO(content)).load()
    labels = {}
    for line in (folder / "input_list.txt").read_text().splitlines():
        name, number = line.split()
        cues = np.zeros((12, 41, 41))  # as AnnotationLayer fills its blobs, with a channel for unknown
        classes, rows, columns = data[f"{int(number)}_cues"]
        cues[classes, rows, columns] = 1.0
        assert cues.sum(0).max() <= 1
        cues[11] = 1 - cues.sum(0)
        image_id = name.removesuffix(".jpg")
        asked = scenes.annotate(scenes.ids.index(image_id)).classes
        assert data[f"{int(number)}_labels"] == sorted(label + 1 for label in asked)
        height, width = scenes.annotate(scenes.ids.index(image_id)).size
        at = [((np.arange(side) + 0.5) * 41 / side).astype(int) for side in (height, width)]
        labels[image_id] = cues.argmax(0)[at[0]][:, at[1]]
    assert mean_iou(labels, scenes) == pytest.approx(scored(runs["sec_2016"], method), rel=1e-9)


def test_another_level_of_the_background(runs: dict[str, Path], scenes: Voc) -> None:
    run = runs["psa_2018"]
    assert cli.main(["seeds", str(run), "--format", "png", "--background", "0.5", "--method", "center"]) == 0
    facts = json.loads((run / "seeds" / "seeds.json").read_text())
    assert facts["protocol"]["background"] == 0.5
    assert facts["images"] == {"center": 4}
    labels = {path.stem: np.array(Image.open(path)) for path in files(run, "center", "png")}
    for path in files(run, "center", "psa"):
        highest = np.stack(list(read_as_they_do(path).values())).max(0)
        assert ((labels[path.stem] > 0) == (highest > np.float32(0.5))).all()
    assert cli.main(["seeds", str(run), "--format", "png", "--method", "center"]) == 0


def test_another_methods_maps_may_tell_secs_background(runs: dict[str, Path]) -> None:
    run = runs["sec_2016"]
    own = (run / "seeds/grad_cam/sec/localization_cues.pickle").read_bytes()
    assert cli.main(["seeds", str(run), "--format", "sec", "--method", "grad_cam", "--saliency", "center"]) == 0
    path = run / "seeds/grad_cam/sec/localization_cues.pickle"
    data = Plain(io.BytesIO(path.read_bytes())).load()
    rows, columns = (np.array(data["0_cues"][n]) for n in (1, 2))
    calm = np.array(data["0_cues"][0]) == 0
    far = np.hypot(rows - 20, columns - 20)
    assert calm.any()
    assert far[calm].min() > 20  # of a Gaussian in the centre the corners are lowest
    assert path.read_bytes() != own
    path.write_bytes(own)


def test_a_random_field_gives_what_psa_calls_la_crf(runs: dict[str, Path], scenes: Voc) -> None:
    run = runs["psa_2018"]
    assert cli.main(["seeds", str(run), "--format", "psa,png", "--method", "grad_cam"]) == 0
    maps = {path.stem: read_as_they_do(path) for path in files(run, "grad_cam", "psa")}
    assert cli.main(["seeds", str(run), "--format", "psa,png", "--method", "grad_cam", "--crf", "4"]) == 0
    assert json.loads((run / "seeds" / "seeds.json").read_text())["crf"] == 4
    labels = {}
    for path in files(run, "grad_cam", "psa"):
        crf_dict = read_as_they_do(path)
        assert list(crf_dict) == [0, *(1 + k for k in maps[path.stem])]  # PSA's voc12/data.py counts on this order
        keys, beliefs = sorted(crf_dict), np.stack([crf_dict[k] for k in sorted(crf_dict)])
        assert beliefs.sum(0) == pytest.approx(np.ones(beliefs.shape[1:]), abs=1e-5)
        labelled = np.array(Image.open(run / "seeds/grad_cam/png" / f"{path.stem}.png"))
        labels[path.stem] = np.array(keys)[beliefs.argmax(0)]
        assert (labelled == labels[path.stem]).all()
    assert mean_iou(labels, scenes) == pytest.approx(scored(run, "grad_cam", crf=True), rel=1e-9)
    assert scored(run, "grad_cam", crf=True) != scored(run, "grad_cam")
    words = ["seeds", str(run), "--format", "psa", "--method", "grad_cam", "--preset", "psa_2018_crf"]
    assert cli.main(words) == 0  # the preset says so itself
    assert json.loads((run / "seeds" / "seeds.json").read_text())["crf"] == 4
    assert cli.main(["seeds", str(run), "--format", "psa,png", "--method", "grad_cam"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "png", "--crf", "0"], "--crf 0: the background's exponent must lie between 0 and 1000"),
        (["--format", "iirn"], "unknown format of seeds 'iirn': did you mean 'irn'?"),
        (["--format", "png", "--method", "grad_cm"], "unknown method of this run 'grad_cm': did you mean 'grad_cam'?"),
        (["--format", "png", "--saliency", "cam"], "unknown method of this run 'cam'"),
        (["--format", "png", "--background", "2"], "protocol.background must lie in [0, 1], got 2"),
        (["--format", "png", "--background", "low"], "argument --background: invalid float value: 'low'"),
        (["--format", "png", "--preset", "irn_2019"], "unknown preset of this run's seeds 'irn_2019'"),
        (["--format", "png", "limit=3"], "seeds: unexpected 'limit=3'"),
        ([], "the following arguments are required: --format"),
    ],
)
def test_wrong_words(runs: dict[str, Path], capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert cli.main(["seeds", str(runs["psa_2018"]), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_random_field_leaves_nothing_unknown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [*SMALL, "metric=[seed_miou]", "preset=[sec_2016]", "protocol.crf=4", f"results={tmp_path}"]
    assert cli.main(["run", *words]) == 2
    assert "protocol.crf=4 does not go with protocol.seed_rule=sec" in capsys.readouterr().err


def test_a_run_without_maps_has_no_seeds(scenes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", *SMALL, "method=[grad_cam]", "preset=[psa_2018]", "store=none", "limit=1"]
    assert cli.main([*words, f"dataset.root={scenes_root}", f"results={tmp_path}"]) == 0
    assert cli.main(["seeds", str(tmp_path / "run" / "seeds"), "--format", "png"]) == 2
    assert "holds none of these heatmaps (store=none): run it again with store=all" in capsys.readouterr().err


def seed(classes: list[int], size: tuple[int, int] = (5, 6)) -> Seed:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(len(classes), *size, generator=generator)
    labels = torch.randint(len(classes) + 1, size, generator=generator).to(torch.uint8)
    return Seed("some/where", classes, maps, labels, labels, [0.5] * len(classes))


def test_image_ids_may_hold_folders(tmp_path: Path) -> None:
    for write, suffix in ((irn, "npy"), (psa, "npy"), (png, "png")):
        write(tmp_path / suffix, seed([0, 3]))
        assert (tmp_path / suffix / "some" / f"where.{suffix}").is_file()


@pytest.mark.parametrize(("write", "theirs"), [(irn, IRN_NAMES), (psa, set())])
def test_old_programs_find_what_the_pickles_name(tmp_path: Path, write: Callable, theirs: set[str]) -> None:
    """The file of a NumPy 2 names no module that NumPy 1 lacks, and nothing beyond arrays and IRN's tensors."""
    write(tmp_path, seed([0, 3]))
    content = (tmp_path / "some/where.npy").read_bytes()
    assert content[:8] == b"\x93NUMPY\x01\x00"
    length = int.from_bytes(content[8:10], "little")
    assert ast.literal_eval(content[10 : 10 + length].decode()) == {"descr": "|O", "fortran_order": False, "shape": ()}
    codes = [(code.name, value) for code, value, _ in pickletools.genops(content[10 + length :])]
    assert codes[0] == ("PROTO", 3)
    assert {value for name, value in codes if name == "GLOBAL"} == {"numpy ndarray", "numpy dtype"} | theirs
    assert not any(name == "STACK_GLOBAL" for name, _ in codes)


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    given = seed([2, 5])
    psa(tmp_path, given)
    found = read_as_they_do(tmp_path / "some/where.npy")
    assert list(found) == [2, 5]
    for label, one in zip((2, 5), given.maps.numpy()):
        np.testing.assert_array_equal(found[label], one)
        assert found[label].flags.writeable
    irn(tmp_path, given)
    found = read_as_they_do(tmp_path / "some/where.npy")
    np.testing.assert_array_equal(found["high_res"], given.maps.numpy())
    assert found["keys"].tolist() == [2, 5]


def test_eight_bits_name_no_more_than_254_classes(tmp_path: Path) -> None:
    png(tmp_path, seed([253]))
    assert np.array(Image.open(tmp_path / "some/where.png")).max() == 254
    with pytest.raises(UserError, match="class 254: a label map of 8 bits names classes 0 to 253"):
        png(tmp_path, seed([254]))


def test_coco_has_its_own_numbers(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 139, "file_name": "some/where.jpg", "height": 5, "width": 6}],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 2, "name": "bicycle"}],
        "annotations": [],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    truth = coco.read(tmp_path / "instances.json")
    writer = Coco(tmp_path, Numbers(truth.numbers, truth.categories))
    given = seed([0, 1])
    writer.add(given)
    writer.close()
    entries = json.loads((tmp_path / "results.json").read_text())
    assert [(entry["image_id"], entry["category_id"]) for entry in entries] == [(139, 2), (139, 90)]
    for q, entry in enumerate(entries):
        assert entry["segmentation"]["size"] == [5, 6]
        assert (decoded(entry["segmentation"]) == (given.labels == q + 1).numpy()).all()


def test_the_experiment_on_few_scenes(scenes_root: Path, tmp_path: Path) -> None:
    words = ["experiment=seeds", "limit=2", "workers=0", f"dataset.root={scenes_root}", f"results={tmp_path}", "name=a"]
    assert cli.main(["run", *words, "method=[cam,center]"]) == 0
    run = tmp_path / "seeds" / "a"
    summary = pd.read_csv(run / "summary.csv").set_index(["method", "metric", "protocol"])["value"]
    for method in ("cam", "center"):
        fixed, best = (summary[method, metric, "irn_2019"] for metric in ("seed_miou", "seed_miou_best"))
        assert 0 < fixed <= best <= 1
    assert summary["cam", "seed_miou_best", "irn_2019"] > 2 * summary["center", "seed_miou_best", "irn_2019"]
    assert ("cam", "seed_miou", "sec_2016") in summary
    assert "IoU of each class" in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "plots" / "seeds-seed_miou_best-irn_2019.svg").is_file()
    assert cli.main(["seeds", str(run), "--format", "irn", "--preset", "irn_2019", "--method", "cam"]) == 0
    assert len(list((run / "seeds" / "cam" / "irn").iterdir())) == 2
