"""Files that are there whole or not at all: text, JSON and Parquet tables by an atomic rename."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from gradcam_bench.errors import UserError


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls write(temporary path), flushes the file to disk and renames it to `path`; a failure leaves no trace."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError, pa.ArrowException) as error:
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, default=str) + "\n")


def write_table(path: Path, table: pd.DataFrame, schema: pa.Schema) -> None:
    """The columns of `schema`, in its order and types, as Parquet (zstd)."""
    arrow = as_arrow(table, schema)
    atomically(path, lambda temporary: pq.write_table(arrow, temporary, compression="zstd"))


def as_arrow(table: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """A frame's columns in a schema's order and types; a column that it lacks, and whatever is missing, is null."""
    columns = []
    for column in schema:
        if column.name not in table:
            columns.append(pa.nulls(len(table), column.type))
            continue
        values = table[column.name].astype(object)
        columns.append(pa.array(values.where(values.notna(), None), type=column.type, from_pandas=True))
    return pa.table(columns, schema=schema)


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet table of a run; raises UserError naming the file where it is missing or damaged."""
    return _read_arrow(path).to_pandas()


def _read_arrow(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path} is not there: run or resume the experiment first") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again") from None
