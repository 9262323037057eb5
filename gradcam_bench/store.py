"""The run folder's files: heatmaps, rows and cases, written in parts that either exist whole or not at all.

A part is what a run has finished since the last one: heatmaps (safetensors and a Parquet index), rows, cases, and last
a small JSON file that lists the samples done. Only parts with that file count, so a run killed at any moment goes on
from the last whole part. `merge` turns the parts into rows.parquet, cases.parquet and large map shards, in an order
that depends on neither batches, shards nor interruptions. Every file appears by an atomic rename. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gradcam_bench.cells import Damaged, Rows, merge_cells, write_cells
from gradcam_bench.choices import digest
from gradcam_bench.errors import UserError
from gradcam_bench.files import as_arrow, atomically, read_table, write_json, write_table
from gradcam_bench.schemas import CASES, INDEX, ORDER, ROWS

SHARD_BYTES = 128 * 2**20
MAPS_AT_ONCE = 1024  # how many are moved in one go
GRID_LIMIT = 32  # `store=grid` keeps maps up to this side


def map_key(image: str, model: str, view: Mapping[str, Any], method: list[Any], target: int, stage: str = "") -> str:
    """The content address of a heatmap: sha256 over everything that its values depend on, 32 hex digits.

    image: sha256 of the file; model: sha256 of architecture and weights; view: its resolved choices; method: label,
    parameters and version (`catalogue.Method.key`); target: the class; stage: the randomised stage and draw.
    """
    return digest([image, model, dict(view), method, target, stage], 32)


@dataclass
class Part:
    """What one stretch of a run has made. maps: (index entry without shard, tensor and row; heatmap [h,w])."""

    done: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)
    maps: list[tuple[dict[str, Any], Tensor]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def extend(self, other: Part) -> None:
        """Adds another part; its samples count as done when all the rest is there."""
        self.rows += other.rows
        self.cases += other.cases
        self.maps += other.maps
        self.notes = _sum(self.notes, other.notes)
        self.done += other.done


def _sum(one: Any, other: Any) -> Any:
    """Two notes as one: counts added, lists joined, mappings by key."""
    if isinstance(other, Mapping):
        return {**one, **{key: _sum(one[key], value) if key in one else value for key, value in other.items()}}
    return one + other


class Store:
    """The parts and merged tables of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts, self.maps = folder, folder / "rows", folder / "maps"

    def add(self, name: str, part: Part) -> None:
        """Writes a part whole: its maps, rows and cases first, the list of what is done last."""
        _save_maps(self.maps, name, part.maps)
        write_cells(self.parts / f"{name}.rows.parquet", as_arrow(pd.DataFrame(part.rows), ROWS))
        write_table(self.parts / f"{name}.cases.parquet", pd.DataFrame(part.cases), CASES)
        write_json(self.parts / f"{name}.json", {"done": part.done, **part.notes})

    def tidy(self) -> None:
        """Removes what a killed process has left: temporary files, and files of parts that never became whole."""
        whole = {path.stem for path in self.parts.glob("*.json")}
        torn = [*self.parts.glob("*.parquet"), *self.maps.glob("*.index.parquet"), *self.maps.glob("*.safetensors")]
        for path in torn:
            if not path.name.startswith("shard-") and path.name.partition(".")[0] not in whole:
                path.unlink(missing_ok=True)
        for path in self.folder.rglob(".*.tmp"):
            path.unlink(missing_ok=True)

    def finished(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """The whole parts by name, with what their JSON files say; damaged ones are dropped, to be made again."""
        parts = {}
        for path in sorted(self.parts.glob(f"{prefix}*.json")):
            try:
                parts[path.stem] = dict(json.loads(path.read_text(encoding="utf-8")))
                parts[path.stem]["done"] = [int(index) for index in parts[path.stem]["done"]]
                for kind in ("rows", "cases"):
                    pq.read_metadata(self.parts / f"{path.stem}.{kind}.parquet")
            except (OSError, ValueError, TypeError, KeyError, pa.ArrowException):
                parts.pop(path.stem, None)
                path.unlink(missing_ok=True)
        return parts

    def merge(self) -> tuple[Rows, pd.DataFrame]:
        """rows.parquet, cases.parquet and the map shards from all whole parts, of two equal keys the later part's;
        returns rows and cases. Of the rows no more than a cell is in memory at a time."""
        names = list(self.finished())
        try:
            merge_cells({name: self.parts / f"{name}.rows.parquet" for name in names}, self.folder / "rows.parquet")
        except Damaged as error:
            raise self._dropped(error.name, error) from None
        cases = pa.concat_tables([self._part(name, "cases") for name in names] or [CASES.empty_table()])
        cases = cases.take(_order(cases.select(ORDER["cases"])))
        atomically(self.folder / "cases.parquet", partial(pq.write_table, cases, compression="zstd"))
        self._merge_maps(names)
        return Rows.open(self.folder / "rows.parquet"), cases.to_pandas()

    def _part(self, name: str, kind: str) -> pa.Table:
        """A part's table; one that turns out damaged, or of another version's columns, is dropped, so that the same
        command makes it again."""
        try:
            table = pq.read_table(self.parts / f"{name}.{kind}.parquet")
            return table.cast(CASES) if kind == "cases" else table
        except (ValueError, pa.ArrowException, OSError) as error:
            raise self._dropped(name, error) from None

    def _part_maps(self, name: str) -> pd.DataFrame:
        """The index of a part's maps, all of which can be read; else the part is dropped as above."""
        path = self.maps / f"{name}.index.parquet"
        try:
            entries = read_table(path)
            for shard, tensor in entries[["shard", "tensor"]].drop_duplicates().itertuples(index=False):
                _open_tensor(self.maps / str(shard), str(tensor))
        except UserError as error:
            path.unlink(missing_ok=True)
            raise self._dropped(name, error) from None
        return entries

    def _dropped(self, name: str, error: Exception) -> UserError:
        (self.parts / f"{name}.json").unlink(missing_ok=True)
        return UserError(f"{self.parts / name} was damaged ({error}) and is dropped: repeat the command")

    def _merge_maps(self, names: list[str]) -> None:
        """Parts' maps join those merged before, in shards of SHARD_BYTES; the old files go once the index stands."""
        parts = [name for name in names if (self.maps / f"{name}.index.parquet").is_file()]
        if not parts:
            return
        tables = [pa.Table.from_pandas(table, INDEX) for table in (self.index(), *map(self._part_maps, parts))]
        entries = pa.concat_tables(tables).unify_dictionaries()
        entries = entries.take(_order(entries.select(ORDER["maps"])))
        old = {path.name for path in self.maps.glob("shard-*.safetensors")}
        first = 1 + max((int(name[6:10]) for name in old), default=-1)
        index = pa.concat_tables(list(self._shards(entries, first)))
        atomically(self.maps / "index.parquet", partial(pq.write_table, index, compression="zstd"))
        for name in (*old, *(f"{part}.index.parquet" for part in parts), *(f"{part}.safetensors" for part in parts)):
            (self.maps / name).unlink(missing_ok=True)

    def _shards(self, entries: pa.Table, first: int) -> Iterator[pa.Table]:
        """Writes the maps of an index in its order, a shard after the other; yields each shard's new index."""
        loaded: dict[tuple[str, str], Tensor] = {}
        stacks: dict[str, list[Tensor]] = {}
        rows: list[pd.DataFrame] = []
        for batch in entries.to_batches(max_chunksize=MAPS_AT_ONCE):
            frame = batch.to_pandas()
            places = frame[["shard", "tensor", "row"]].astype({"shard": str, "tensor": str})
            for (shard, tensor), group in places.groupby(["shard", "tensor"], sort=False):
                if (shard, tensor) not in loaded:
                    loaded = {place: held for place, held in loaded.items() if place[0] == shard}
                    loaded[shard, tensor] = _open_tensor(self.maps / str(shard), str(tensor))
                stack = stacks.setdefault(str(tensor), [])
                places.loc[group.index, "row"] = (sum(map(len, stack)) + np.arange(len(group))).astype(np.int32)
                stack.append(loaded[shard, tensor][group["row"].tolist()])
            rows.append(frame.assign(row=places["row"], shard=f"shard-{first:04d}.safetensors"))
            if sum(held.nbytes for stack in stacks.values() for held in stack) >= SHARD_BYTES:
                yield self._shard(f"shard-{first:04d}", stacks, rows)
                stacks, rows, first = {}, [], first + 1
        if rows:
            yield self._shard(f"shard-{first:04d}", stacks, rows)

    def _shard(self, name: str, stacks: dict[str, list[Tensor]], rows: list[pd.DataFrame]) -> pa.Table:
        tensors = {tensor: torch.cat(stack) for tensor, stack in stacks.items()}
        atomically(self.maps / f"{name}.safetensors", lambda temporary: save_file(tensors, temporary))
        return pa.concat_tables([as_arrow(frame, INDEX) for frame in rows])

    def index(self) -> pd.DataFrame:
        """The merged maps' index, empty where none were kept."""
        path = self.maps / "index.parquet"
        try:
            found = read_table(path) if path.is_file() else INDEX.empty_table().to_pandas()
            return found.reindex(columns=INDEX.names)  # an older one has fewer
        except UserError:
            raise UserError(f"{path} is damaged: repeat the run's command with --force, which begins anew") from None

    def read(self, entries: pd.DataFrame) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """Heatmaps [h,w] float32 for entries of the index, in their order."""
        for entry, heatmap in self._read(entries):
            yield entry, heatmap.float()

    def _read(self, entries: pd.DataFrame) -> Iterator[tuple[dict[str, Any], Tensor]]:
        loaded: dict[tuple[str, str], Tensor] = {}
        for entry in entries.to_dict("records"):
            place = (str(entry["shard"]), str(entry["tensor"]))
            if place not in loaded:
                loaded = {k: v for k, v in loaded.items() if k[0] == place[0]}  # one shard in memory at a time
                loaded[place] = _open_tensor(self.maps / place[0], place[1])
            yield {str(k): v for k, v in entry.items()}, loaded[place][int(entry["row"])]


def _order(keys: pa.Table) -> pa.Array:
    """The numbers of a table's rows, sorted by its columns as text, of equal rows the last. Every value is held once
    (as a category), whatever the number of rows."""
    frame = keys.to_pandas(strings_to_categorical=True)
    for name, column in frame.items():
        values = column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype(str).astype("category")
        frame[name] = values.cat.reorder_categories(sorted(values.cat.categories), ordered=True)
    return pa.array(frame.drop_duplicates(keep="last").sort_values(list(frame)).index)


def _open_tensor(path: Path, tensor: str) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(tensor)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is damaged ({error}): repeat the run's command with --force, which begins anew"
        ) from None


def _save_maps(folder: Path, name: str, maps: Iterable[tuple[dict[str, Any], Tensor]]) -> None:
    maps = list(maps)
    if maps:
        write_table(folder / f"{name}.index.parquet", _save_shard(folder, name, maps), INDEX)


def _save_shard(folder: Path, name: str, maps: list[tuple[dict[str, Any], Tensor]]) -> pd.DataFrame:
    """One safetensors file: maps of one size and type stacked into one tensor; returns their index entries."""
    stacks: dict[str, list[Tensor]] = {}
    entries = []
    for entry, heatmap in maps:
        tensor = f"{heatmap.shape[0]}x{heatmap.shape[1]}-{str(heatmap.dtype).removeprefix('torch.')}"
        stack = stacks.setdefault(tensor, [])
        entries.append(entry | {"shard": f"{name}.safetensors", "tensor": tensor, "row": len(stack)})
        stack.append(heatmap)
    tensors = {tensor: torch.stack(stack).contiguous() for tensor, stack in stacks.items()}
    atomically(folder / f"{name}.safetensors", lambda temporary: save_file(tensors, temporary))
    return pd.DataFrame(entries)
