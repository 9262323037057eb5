"""What `data check` finds in a data set that something happened to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from gradcam_bench import cli
from gradcam_bench.data.counts import expected
from gradcam_bench.data.sources import source
from gradcam_bench.samples import annotation
from gradcam_bench.twins.layouts import WRITERS, scenes

Check = Callable[..., tuple[int, dict, pd.DataFrame]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Check:
    def check(*words: str) -> tuple[int, dict, pd.DataFrame]:
        capsys.readouterr()
        code = cli.main(["data", "check", *words, "--json", "--out", str(tmp_path / "out")])
        said = capsys.readouterr()
        assert said.out, said.err
        return code, json.loads(said.out), pd.read_csv(tmp_path / "out/findings.csv", dtype=str).fillna("")

    return check


def test_what_is_whole_is_counted_and_hashed(check: Check, tmp_path: Path) -> None:
    twins = scenes("all")
    WRITERS["voc"][0](tmp_path / "voc", twins)
    code, facts, findings = check("voc", f"root={tmp_path / 'voc'}", "dataset.name=mine")
    objects, classes = sum(len(t.labels) for t in twins), {label for t in twins for label in t.labels}
    assert code == 0
    assert facts["counts"] == {
        "images": 6,
        "cases": sum(len(set(t.labels)) for t in twins),
        "boxes": objects,
        "masks": objects,
        "classes": len(classes),
    }
    assert set(findings["kind"]) == {"class without a picture"}
    assert len(findings) == 20 - len(classes)
    again = check("voc", f"root={tmp_path / 'voc'}", "dataset.name=mine", "workers=0")[1]
    assert again["pictures"] == facts["pictures"]
    quick = check("voc", f"root={tmp_path / 'voc'}", "dataset.name=mine", "--quick")[1]
    assert (quick["pictures"], quick["counts"]["boxes"], quick["decoded"]) == (None, objects, False)


def test_published_counts_are_compared(check: Check, tmp_path: Path) -> None:
    WRITERS["voc"][0](tmp_path / "voc", scenes("all"))
    code, facts, findings = check("voc2012", f"dataset.root={tmp_path / 'voc'}")
    counted = findings[findings["kind"] == "count"]["what"].tolist()
    assert code == 1
    assert counted[0] == "6 images, published: 5823"
    assert facts["published"] == {"images": 5823, "classes": 20}


def test_every_broken_thing_is_found(check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = WRITERS["voc"][0](tmp_path / "voc", scenes("all"))
    home = tmp_path / "voc/VOCdevkit/VOC2012"
    cut, gone, page, xml, flat = (home / "JPEGImages" / f"{image_id}.jpg" for image_id in written.ids[:5])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    gone.unlink()
    page.write_text("<html>")
    (home / "Annotations" / f"{xml.stem}.xml").write_text("<annotation><object>")
    with Image.open(flat) as picture:
        size = picture.size
    corners = [(9, 9, 3, 12), (-40, 2, -20, 9), (5, 5, 4, 9), (2, 2, size[0] + 60, 30), (1, 1, *size), (2, 2, 8, 8)]
    boxes = "".join(
        f"<object><name>cat</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in corners
    )
    declared = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    (home / "Annotations" / f"{flat.stem}.xml").write_text(f"<annotation>{declared}{boxes}</annotation>")
    code, facts, findings = check("voc", f"root={tmp_path / 'voc'}", "dataset.name=mine")
    by_image = findings[findings["image_id"] != ""].groupby("image_id")["kind"].apply(list).to_dict()
    assert code == 1
    assert [by_image[path.stem] for path in (cut, gone, page, xml)] == [
        ["picture"],
        ["picture"],
        ["picture"],
        ["annotation"],
    ]
    assert sorted(by_image[flat.stem]) == ["beyond the edge", "empty", "inverted", "outside", "whole picture"]
    assert facts["broken"] == 4 + 3
    assert set(findings[findings["kind"] == "whole picture"]["weight"]) == {"odd"}
    words = ["data", "check", "voc", f"root={tmp_path / 'voc'}", "dataset.name=mine", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 1
    printed = capsys.readouterr().out
    assert "BROKEN, picture: 3" in printed
    assert f"{gone}: no such image" in printed
    assert "7 broken; all findings: " in printed
    quick = check("voc", f"root={tmp_path / 'voc'}", "dataset.name=mine", "--quick")[1]
    assert quick["findings"]["picture"] == 2, "a header does not show that the rest is missing"


def test_pictures_and_annotations_without_the_other(check: Check, tmp_path: Path) -> None:
    written = WRITERS["imagenet_devkit"][0](tmp_path, scenes("class"))
    Image.new("RGB", (8, 8)).save(tmp_path / "val/ILSVRC2012_val_00000099.JPEG", format="JPEG")
    (tmp_path / "val" / f"{written.ids[0]}.JPEG").unlink()
    code, _, findings = check("imagenet", f"root={tmp_path}", "dataset.name=mine")
    kinds = dict(zip(findings["image_id"], findings["kind"], strict=True))
    assert code == 1
    assert kinds[written.ids[0]] == "picture"
    assert kinds["ILSVRC2012_val_00000099"] == "annotation"
    listed = WRITERS["imagenetv2"][0](tmp_path / "v2", scenes("class"))
    (tmp_path / "v2/val2/7").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "v2/val2/7/none.jpeg", format="JPEG")
    words = ["imagenetv2", f"root={tmp_path / 'v2'}", f"dataset.metadata={tmp_path / 'v2/metadata'}"]
    findings = check(*words)[2]
    assert findings[findings["kind"] == "unlisted"]["image_id"].tolist() == ["7/none"]
    assert len(listed.ids) == 6


def test_a_picture_that_changed_since_the_last_check(check: Check, tmp_path: Path) -> None:
    home = tmp_path / "o'neil, (coco)"
    written = WRITERS["coco"][0](home, scenes("all"))
    words = ["coco", "--root", str(home), "dataset.name=mine"]
    assert check(*words)[0] == 0
    path = home / "val2017" / f"{written.ids[3]}.jpg"
    with Image.open(path) as picture:
        copy = picture.copy()
    copy.save(path, quality=30)
    for _ in range(2):  # and it stays found: the manifest is of the pictures as they were
        code, _, findings = check(*words)
        assert code == 1
        assert findings[findings["kind"] == "changed"]["image_id"].tolist() == [written.ids[3]]


def test_hashed_names_of_imagenetv2_are_paired_by_the_mapping(check: Check, tmp_path: Path) -> None:
    written = WRITERS["imagenetv2"][0](tmp_path, scenes("class"))
    rows = []
    for number, image_id in enumerate(written.ids):
        path = tmp_path / "val2" / f"{image_id}.jpeg"
        path.rename(path.with_name(f"{number:040x}.jpeg"))
        rows.append(f"{image_id}.jpeg, {path.parent.name}/{number:040x}.jpeg")
    words = ["imagenetv2", f"root={tmp_path}", f"dataset.metadata={tmp_path / 'metadata'}", "dataset.name=mine"]
    assert check(*words)[1]["findings"]["picture"] == 6
    (tmp_path / "metadata/ILSVRC/val/mapping.txt").write_text("\n".join(rows))
    facts = check(*words)[1]
    assert "picture" not in facts["findings"]
    assert facts["counts"]["images"] == 6


@pytest.mark.parametrize(
    ("settings", "images"),
    [
        ({"split": "val", "lists": "Main"}, 5823),
        ({"split": "train_aug", "lists": "Segmentation"}, 10582),
        ({"split": "mine.txt", "lists": "Main"}, None),
        ({"split": "val", "lists": "Main", "subset": "present"}, None),
    ],
)
def test_counts_are_of_the_split_that_is_read(settings: dict[str, str], images: int | None) -> None:
    assert expected(source("voc2012"), settings).get("images") == images


BOXES = [
    ((2, 3, 10, 10), None),
    ((5, 3, 2, 10), "inverted"),
    ((5, 3, 5, 10), "empty"),
    ((20, 3, 30, 10), "outside"),
    ((-5, -5, 0, 4), "outside"),
    ((-3, 0, 10, 8), "beyond the edge"),
    ((-1, 0, 21, 9), None),  # one pixel: whether one counts from 0 or from 1
    ((0, 0, 20, 10), "whole picture"),
]


@pytest.mark.parametrize(("box", "kind"), BOXES)
def test_odd_boxes(box: tuple[float, ...], kind: str | None) -> None:
    made = annotation("it", (10, 20), [(3, box, False)])
    assert [entry.partition(":")[0] for entry in made.odd] == ([kind] if kind else [])
    assert bool(made.problems) == (kind in ("inverted", "empty", "outside"))
