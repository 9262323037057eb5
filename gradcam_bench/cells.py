"""rows.parquet, cell by cell. A cell is what a number is made of: all cases of one method, metric and protocol.

A row may hold a curve of a kilobyte, so the rows of millions of cases do not fit into memory, but those of one cell do:
its rows lie together in row groups of their own, and curves are read when their cell is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradcam_bench.errors import UserError
from gradcam_bench.files import atomically
from gradcam_bench.schemas import CELL, ROWS, WITHIN

Key = tuple[str, ...]


def write_cells(path: Path, table: pa.Table) -> None:
    """A table of rows as Parquet (zstd), a row group a cell."""
    keys = _text(table.select(CELL))
    groups = keys.groupby(CELL, sort=True).indices if len(keys) else {}
    pieces = (table.take(pa.array(where)) for _, where in sorted(groups.items()))
    atomically(path, partial(_write, pieces))


def merge_cells(parts: Mapping[str, Path], path: Path) -> None:
    """The files of `write_cells` as one, each cell sorted by image and case; of two equal rows the later file's.

    Raises Damaged, naming the part, for a file that cannot be read or whose row groups are no cells.
    """
    where: dict[Key, list[tuple[str, int]]] = {}
    for name, file in parts.items():
        for group, key in enumerate(_guarded(name, partial(_cells_of, file))):
            where.setdefault(key, []).append((name, group))

    def pieces() -> Iterator[pa.Table]:
        for key in sorted(where):
            tables = [_guarded(name, partial(_group, parts[name], group)) for name, group in where[key]]
            whole = pa.concat_tables([table.cast(ROWS) for table in tables])
            order = _text(whole.select(WITHIN)).drop_duplicates(keep="last").sort_values(WITHIN)
            yield whole.take(pa.array(order.index))

    atomically(path, partial(_write, pieces()))


class Damaged(Exception):
    """A part of a run that cannot be read; `name` says which."""

    def __init__(self, name: str, reason: object) -> None:
        super().__init__(str(reason))
        self.name = name


class Rows:
    """A run's rows. frame: all columns but the curves, numbered from 0; with_curves: some of it with them."""

    def __init__(self, frame: pd.DataFrame, curves: Callable[[Any], list[Any]]) -> None:
        self.frame, self._curves = frame, curves

    @classmethod
    def open(cls, path: Path) -> Rows:
        """Of a file that `merge_cells` has written; raises UserError naming it where it is missing or damaged."""
        try:
            file = pq.ParquetFile(path, read_dictionary=WITHIN)
            plain = file.read([name for name in ROWS.names if name != "curve"]).unify_dictionaries()
        except FileNotFoundError:
            raise UserError(f"{path} is not there: run or resume the experiment first") from None
        except (pa.ArrowException, OSError, KeyError) as error:
            raise UserError(f"{path} is damaged ({error}): repeat the run's command, which writes it anew") from None
        return cls(plain.to_pandas(split_blocks=True, self_destruct=True), partial(_curves_at, path))

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Rows:
        """Of a table in memory, curves included."""
        held = frame.reset_index(drop=True)
        return cls(held.drop(columns="curve"), lambda numbers: held["curve"].iloc[numbers].tolist())

    def with_curves(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """Rows of `frame` with the column `curve`: float32 arrays, None where there is none."""
        return chosen.assign(curve=pd.Series(self._curves(chosen.index.to_numpy()), chosen.index, dtype=object))


def lost(frame: pd.DataFrame) -> str:
    """Why rows of a table could not be scored, in words, the commonest reason first; empty where all were."""
    counts = frame["problem"].dropna().astype(str).value_counts()
    return ", ".join(f"{reason} ({n} case{'s' * (n > 1)})" for reason, n in counts.items())


def _curves_at(path: Path, numbers: Any) -> list[Any]:
    """The curves of a file's rows, in their order; only the row groups that hold them are read."""
    file = pq.ParquetFile(path)
    starts = np.cumsum([0, *(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))])
    groups = np.searchsorted(starts, numbers, side="right") - 1
    found: list[Any] = [None] * len(numbers)
    for group in np.unique(groups):
        column = file.read_row_group(int(group), ["curve"]).column("curve").to_pandas().to_numpy()
        for position in np.flatnonzero(groups == group):
            found[position] = column[numbers[position] - starts[group]]
    return found


def _write(pieces: Iterator[pa.Table], path: Path) -> None:
    with pq.ParquetWriter(path, ROWS, compression="zstd") as writer:
        for piece in pieces:
            writer.write_table(piece)


def _cells_of(path: Path) -> list[Key]:
    """The cell of each row group of a file."""
    file = pq.ParquetFile(path)
    keys = _text(file.read(CELL))
    starts = np.cumsum([0, *(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))])
    cells = []
    for start, end in pairwise(starts):
        mine = keys.iloc[start:end]
        if len(mine.drop_duplicates()) != 1:
            raise ValueError("a row group is no cell")
        cells.append(tuple(mine.iloc[0]))
    return cells


def _group(path: Path, group: int) -> pa.Table:
    return pq.ParquetFile(path).read_row_group(group)


def _guarded(name: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise Damaged(name, error) from None


def _text(keys: pa.Table) -> pd.DataFrame:
    """Columns as text, so that they sort the same whatever they are stored as."""
    frame: pd.DataFrame = keys.to_pandas(strings_to_categorical=False)
    return frame.astype(str)
