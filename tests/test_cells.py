"""Rows cell by cell: one order whatever the parts, curves read back for any choice of rows, damage named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from gradcam_bench.cells import Damaged, Rows, merge_cells, write_cells
from gradcam_bench.errors import UserError
from gradcam_bench.files import as_arrow
from gradcam_bench.schemas import CELL, ROWS


def table(images: str, methods: tuple[str, ...] = ("b", "a"), value: float = 0.0) -> pd.DataFrame:
    """A row for each image and method; every second image has a curve, which says whose it is."""
    rows = []
    for image in images:
        for method in methods:
            curve = np.full(3, ord(image) + len(method) / 10, np.float32) if ord(image) % 2 else None
            row = {"image_id": image, "case_id": f"{image}#0", "method": method, "metric": "m", "protocol": "p"}
            rows.append(row | {"view": "v", "model": "n", "stage": "s", "draw": 0, "value": value, "curve": curve})
    return pd.DataFrame(rows)


def write(folder: Path, **tables: pd.DataFrame) -> dict[str, Path]:
    paths = {name: folder / f"{name}.parquet" for name in tables}
    for name, path in paths.items():
        write_cells(path, as_arrow(tables[name], ROWS))
    return paths


def test_a_row_group_is_a_cell_and_the_order_is_that_of_cells_then_images(tmp_path: Path) -> None:
    merge_cells(write(tmp_path, one=table("dac"), two=table("be", ("c", "a"))), tmp_path / "rows.parquet")
    file = pq.ParquetFile(tmp_path / "rows.parquet")
    groups = [file.read_row_group(number).to_pandas() for number in range(file.num_row_groups)]
    assert [len(group[CELL].drop_duplicates()) for group in groups] == [1, 1, 1]
    assert ["".join(group["image_id"]) for group in groups] == ["abcde", "acd", "be"]
    assert [group["method"].iloc[0] for group in groups] == ["a", "b", "c"]


def test_curves_come_back_for_any_choice_of_rows(tmp_path: Path) -> None:
    merge_cells(write(tmp_path, one=table("dacbe")), tmp_path / "rows.parquet")
    from_file = Rows.open(tmp_path / "rows.parquet")
    in_memory = Rows.of(pq.read_table(tmp_path / "rows.parquet").to_pandas())
    assert "curve" not in from_file.frame
    for chosen in (slice(None), [7, 0, 3, 9], [2], []):
        for rows in (from_file, in_memory):
            found = rows.with_curves(rows.frame.iloc[chosen])
            for image, curve in zip(found["image_id"], found["curve"], strict=True):
                assert (
                    (curve is None) if ord(image) % 2 == 0 else (np.asarray(curve)[0] == np.float32(ord(image) + 0.1))
                )
            assert list(found.index) == list(rows.frame.iloc[chosen].index)


def test_of_two_equal_rows_the_later_files_stays(tmp_path: Path) -> None:
    parts = write(tmp_path, early=table("ab", value=1.0), late=table("b", ("a",), value=2.0))
    merge_cells(parts, tmp_path / "rows.parquet")
    frame = Rows.open(tmp_path / "rows.parquet").frame
    assert frame["value"].tolist() == [1, 2, 1, 1]


def test_no_rows_make_an_empty_table(tmp_path: Path) -> None:
    merge_cells(write(tmp_path, none=pd.DataFrame()), tmp_path / "rows.parquet")
    rows = Rows.open(tmp_path / "rows.parquet")
    assert len(rows.frame) == 0
    assert len(rows.with_curves(rows.frame)) == 0
    assert pq.read_schema(tmp_path / "rows.parquet").equals(ROWS)


def test_damage_is_named(tmp_path: Path) -> None:
    parts = write(tmp_path, whole=table("a"), torn=table("b"))
    parts["torn"].write_bytes(b"no Parquet")
    with pytest.raises(Damaged) as raised:
        merge_cells(parts, tmp_path / "rows.parquet")
    assert raised.value.name == "torn"
    pq.write_table(as_arrow(table("b"), ROWS), parts["torn"])  # two cells in one row group
    with pytest.raises(Damaged, match="no cell"):
        merge_cells(parts, tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()
    for missing_or_damaged in (None, b"no Parquet"):
        if missing_or_damaged:
            (tmp_path / "rows.parquet").write_bytes(missing_or_damaged)
        with pytest.raises(UserError, match=r"rows\.parquet is (not there|damaged)"):
            Rows.open(tmp_path / "rows.parquet")
