"""The store: whole parts or none, one order whatever happened, nothing pickled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from gradcam_bench import store
from gradcam_bench.errors import UserError
from gradcam_bench.files import atomically
from gradcam_bench.store import CASES, INDEX, ROWS, Part, Store, map_key


def row(image: str, method: str, value: float | None, **more: object) -> dict[str, object]:
    return {
        "image_id": image, "case_id": f"{image}#3", "dataset": "d", "model": "m", "target": "gt", "stage": "trained",
        "draw": 0, "method": method, "layer": "l", "metric": "hit", "unit": "case", "reference": None,
        "protocol": "default", "value": value, "curve": None, "problem": None if value is not None else "difficult",
        "view": "v",
    } | more  # fmt: skip


def entry(image: str, method: str, view: str = "v") -> dict[str, object]:
    return {
        "key": map_key(image, "m", {"view": view}, [method, {}, 1], 3), "image_id": image, "case_id": f"{image}#3",
        "model": "m", "view": view, "stage": "trained", "draw": 0, "method": method, "layer": "l", "problem": None,
    }  # fmt: skip


def part(*images: str, value: float = 1.0) -> Part:
    made = Part()
    for number, image in enumerate(images):
        made.done.append(number)
        made.rows.append(row(image, "grad_cam", value))
        made.rows.append(row(image, "cam", None))
        made.maps.append((entry(image, "grad_cam"), torch.full((2, 3), float(ord(image[0])))))
    return made


def merged(folder: Store) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, cases = folder.merge()
    return rows.with_curves(rows.frame), cases


def test_parts_in_any_order_merge_to_the_same_tables(tmp_path: Path) -> None:
    for name, parts in (("one", ["ab", "c"]), ("other", ["c", "b", "a"])):
        folder = Store(tmp_path / name)
        for number, images in enumerate(parts):
            folder.add(f"p{number}", part(*images))
        folder.merge()
    one, other = (pq.read_table(tmp_path / name / "rows.parquet") for name in ("one", "other"))
    assert one.equals(other)
    assert one.num_rows == 6
    assert one.column("image_id").to_pylist() == ["a", "b", "c"] * 2
    assert one.column("method").to_pylist() == ["cam"] * 3 + ["grad_cam"] * 3


def test_files_have_the_published_schema(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.add("p", part("a"))
    folder.merge()
    assert pq.read_schema(tmp_path / "rows.parquet").equals(ROWS)
    assert pq.read_schema(tmp_path / "cases.parquet").equals(CASES)
    assert pq.read_schema(tmp_path / "maps" / "index.parquet").equals(INDEX)


def test_schemas_only_grow() -> None:
    """Frozen: what is stored today must be readable by whatever comes later."""
    assert " ".join(ROWS.names) == (
        "image_id case_id dataset model target stage draw method layer metric unit reference protocol value curve"
        " problem view"
    )
    assert " ".join(CASES.names) == (
        "image_id case_id dataset model target view class_index class_name width height n_instances area_fraction size"
        " difficult logit probability rank predicted correct_top1 correct_top5 forwards head_forwards backwards seconds"
        " kind"
    )


def test_a_later_part_replaces_rows_of_the_same_key(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.add("a-run", part("a", "b", value=0.25))
    again = Part(rows=[row("a", "grad_cam", 0.75)])
    folder.add("score-x", again)
    rows, _ = merged(folder)
    values = dict(zip(rows["image_id"].astype(str) + rows["method"].astype(str), rows["value"], strict=True))
    assert values["agrad_cam"] == 0.75
    assert values["bgrad_cam"] == 0.25
    assert len(rows) == 4


def test_a_part_without_its_list_does_not_count(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.add("whole", part("a"))
    folder.add("torn", part("b"))
    (folder.parts / "torn.json").unlink()
    assert list(folder.finished()) == ["whole"]
    rows, _ = merged(folder)
    assert set(rows["image_id"]) == {"a"}


@pytest.mark.parametrize("damage", ["torn.json", "torn.rows.parquet", "torn.cases.parquet"])
def test_a_damaged_part_is_made_again(tmp_path: Path, damage: str) -> None:
    folder = Store(tmp_path)
    folder.add("torn", part("b"))
    (folder.parts / damage).write_bytes(b"no such thing")
    assert folder.finished() == {}
    folder.add("torn", part("b"))
    assert list(folder.finished()) == ["torn"]


def test_a_part_of_another_versions_columns_is_made_again(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.add("old", part("b"))
    place = folder.parts / "old.cases.parquet"
    pq.write_table(pq.read_table(place).drop_columns(["seconds"]), place)
    with pytest.raises(UserError, match=r"old was damaged .* repeat the command"):
        folder.merge()
    assert folder.finished() == {}


def test_maps_come_back_by_entry_from_large_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 90)  # four maps of 24 bytes fill one: several shards
    monkeypatch.setattr(store, "MAPS_AT_ONCE", 2)
    folder = Store(tmp_path)
    folder.add("p0", part("a", "b", "c"))
    folder.add("p1", part("d", "e", "f"))
    folder.merge()
    index = folder.index()
    assert len(index["shard"].unique()) == 2
    got = {entry["image_id"]: heatmap for entry, heatmap in folder.read(index.iloc[::-1])}
    for image in "abcdef":
        assert torch.equal(got[image], torch.full((2, 3), float(ord(image))))
    assert not list(folder.maps.glob("p*"))  # the parts' own files are gone once the index stands


def test_merging_twice_changes_nothing(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.add("p0", part("a", "b"))
    folder.merge()
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    folder.merge()
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_maps_added_after_a_merge_join_the_merged_ones(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.add("p0", part("a", "b"))
    folder.merge()
    folder.add("p1", part("c"))
    folder.merge()
    index = folder.index()
    assert sorted(index["image_id"]) == ["a", "b", "c"]
    for entry_, heatmap in folder.read(index):
        assert torch.equal(heatmap, torch.full((2, 3), float(ord(str(entry_["image_id"])))))


def test_curves_and_missing_values_survive(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    curve = np.linspace(0, 1, 256, dtype=np.float32).tolist()
    made = Part(done=[0], rows=[row("a", "x", None, curve=curve, problem=None), row("b", "x", 0.1)])
    folder.add("p", made)
    rows, _ = merged(folder)
    assert np.array_equal(rows["curve"][0], np.linspace(0, 1, 256, dtype=np.float32))
    assert np.isnan(rows["value"][0])
    assert rows["curve"][1] is None


def test_map_key_depends_on_everything_that_the_values_do() -> None:
    base = ("image", "model", {"resize": "warp"}, ["grad_cam", {}, 1], 3, "")
    changed = [
        ("other", *base[1:]),
        (base[0], "other", *base[2:]),
        (*base[:2], {"resize": "none"}, *base[3:]),
        (*base[:3], ["grad_cam", {}, 2], *base[4:]),
        (*base[:3], ["grad_cam", {"a": 1}, 1], *base[4:]),
        (*base[:4], 4, ""),
        (*base[:5], "cascade_down/1:fc"),
    ]
    keys = {map_key(*arguments) for arguments in (base, *changed)}  # type: ignore[arg-type]
    assert len(keys) == len(changed) + 1


def test_a_failing_write_leaves_no_trace(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*kept.txt: No space left on device"):
        atomically(tmp_path / "kept.txt", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.add("p", part("a"))
    folder.merge()
    (folder.maps / "shard-0000.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(UserError, match=r"shard-0000\.safetensors is damaged"):
        list(folder.read(folder.index()))


def test_json_of_a_part_is_plain(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.add("p", Part(done=[3, 1], notes={"skipped": [{"image_id": "x", "reason": "why"}]}))
    assert json.loads((folder.parts / "p.json").read_text()) == {
        "done": [3, 1],
        "skipped": [{"image_id": "x", "reason": "why"}],
    }
    rows, cases = merged(folder)
    assert isinstance(rows, pd.DataFrame)
    assert len(rows) == len(cases) == 0
