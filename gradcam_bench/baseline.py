"""A baseline: what a later run's numbers are judged against, in one small Parquet file that can be committed.

Kept is what the reductions need and no more, a line for each metric, protocol, method and case: its value as float32,
or its curve. Of a curve that is reduced at demanded IoUs (`mean_of_max`) that is how many of them each level reaches, a
byte a level, which gives the same accuracies exactly; of one whose mean is maximised the values as float16; what is
pooled (counts of pixels, detections) as float32. What the network answered is kept in the same way, under `shift.SHIFT`
and its own name. The file's metadata holds the provenance as JSON: configuration, versions, data set, weights,
heatmaps, and every protocol in full.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gradcam_bench.analysis.reductions import REDUCTIONS, Cell, Floats
from gradcam_bench.errors import UserError
from gradcam_bench.files import as_arrow, atomically
from gradcam_bench.finished import Finished, Protocol
from gradcam_bench.shift import answers
from gradcam_bench.store import Store

FORMAT = 2  # 1 had no answers of the network, and is read too
VALUES = ("mean", "class_mean")  # reductions that read no curve
META = b"gradcam_bench_baseline"
CODE = ("config_hash", "versions", "platform", "device", "git_commit", "model", "weights", "layer", "preprocessing")
FACTS = (*CODE, "dataset", "dataset_fingerprint", "images", "cases", "seed", "finished")
KEYS = ["metric", "protocol", "method", "case_id"]
_name = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("metric", _name),
        ("protocol", _name),
        ("method", _name),
        ("case_id", _name),
        ("value", pa.float32()),
        ("curve", pa.binary()),
    ]
)


@dataclass(frozen=True, eq=False)
class Baseline:
    """facts: provenance, with `protocols` (metric -> protocol id -> card) and `maps` (method -> hash of its heatmaps).
    cells: of every metric that ranks, protocol by protocol, each method's, holding what `kept` leaves of them; and,
    under `shift.SHIFT`, view by view, what the network answered."""

    facts: Mapping[str, Any]
    cells: Mapping[Protocol, Mapping[str, Cell]]

    def card(self, protocol: Protocol) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.facts["protocols"][protocol[0]][protocol[1]]
        return found


def baseline_of(run: Finished, hashed: bool = False) -> Baseline:
    """What a finished run leaves to later ones. hashed: its stored heatmaps are read for their hashes. Raises
    UserError where no metric of it ranks."""
    ranked = [one for one in run.protocols if run.card(*one)["higher_is_better"] is not None]
    if not ranked:
        raise UserError(f"{run.folder} has nothing to gate: no metric that ranks has a score")
    cards: dict[str, dict[str, Any]] = {}
    for metric, protocol in ranked:
        cards.setdefault(metric, {})[protocol] = dict(run.card(metric, protocol))
    facts = {name: run.facts.get(name) for name in FACTS}
    facts |= {"format": FORMAT, "protocols": cards, "maps": maps_hashes(run.folder) if hashed else {}}
    cells = {
        one: {method: kept(cell, cards[one[0]][one[1]]["reduce"]) for method, cell in run.cells(*one).items()}
        for one in ranked
    }
    for view, card, answered in answers(run):
        cards.setdefault(view[0], {})[view[1]] = card
        cells[view] = {network: kept(cell, card["reduce"]) for network, cell in answered.items()}
    return Baseline(facts, cells)


def kept(cell: Cell, reduce: str) -> Cell:
    """What a baseline keeps of a cell: the same numbers by the named reduction, up to float32 (float16 for
    `max_over_curve`)."""
    if reduce in VALUES or cell.curves is None:
        values = cell.values.astype(np.float32).astype(np.float64)
        return Cell(values, None, cell.classes, cell.images, cell.axes)
    packed = np.stack([np.frombuffer(row, np.uint8) for row in _pack(cell, reduce)])
    return Cell(np.full(len(packed), np.nan), _unpack(packed, reduce, cell.axes), cell.classes, cell.images, cell.axes)


def write(path: Path, baseline: Baseline) -> None:
    """The file, whole or not at all."""
    frame = pd.concat([pd.DataFrame(lines) for lines in _lines(baseline)], ignore_index=True)
    meta = {META: json.dumps(baseline.facts, sort_keys=True, default=str).encode()}
    table = as_arrow(frame, SCHEMA).replace_schema_metadata(meta)
    atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", compression_level=19))


def read(path: Path) -> Baseline:
    """A file of `write`; raises UserError naming it where it is missing, damaged, or something else."""
    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[META])
        if facts["format"] not in (1, FORMAT):
            raise UserError(f"{path} is a baseline of format {facts['format']}, this version reads {FORMAT}: --update")
        frame = table.to_pandas().astype(dict.fromkeys(KEYS, str))
        cells: dict[Protocol, dict[str, Cell]] = {}
        for (metric, protocol, method), group in frame.groupby(KEYS[:3], sort=False):
            card = facts["protocols"][metric][protocol]
            cells.setdefault((metric, protocol), {})[method] = _cell(group, card)
    except FileNotFoundError:
        raise UserError(f"{path} is not there: gradcam-bench gate RUN --baseline {path} --update writes it") from None
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} is no baseline, or damaged ({' '.join(str(error).split())}): --update") from None
    return Baseline(facts, cells)


def maps_hashes(folder: Path) -> dict[str, str]:
    """method -> sha256 (16 hex digits) over the values of its stored heatmaps, in the index' order. Not over the
    index' keys: those name what a map was made from, and stay the same when a library makes it differently."""
    store = Store(folder)
    index = store.index()
    found: dict[str, Any] = {}
    for entry, heatmap in store.read(index):
        mine = found.setdefault(str(entry["method"]), hashlib.sha256())
        mine.update(f"{entry['case_id']} {entry['view']} {list(heatmap.shape)}".encode())
        mine.update(heatmap.contiguous().numpy().tobytes())
    return {method: mine.hexdigest()[:16] for method, mine in found.items()}


def _lines(baseline: Baseline) -> Iterator[dict[str, Any]]:
    for (metric, protocol), cells in baseline.cells.items():
        reduce = baseline.card((metric, protocol))["reduce"]
        for method, cell in cells.items():
            ids = [f"{image}#{label}" for image, label in zip(cell.images, cell.classes, strict=True)]
            curves = None if cell.curves is None else _pack(cell, reduce)
            named = {"metric": metric, "protocol": protocol, "method": method}
            yield named | {"case_id": ids, "value": cell.values, "curve": curves}


def _pack(cell: Cell, reduce: str) -> list[bytes]:
    curves = np.asarray(cell.curves)
    if reduce != "mean_of_max":
        return [row.tobytes() for row in curves.astype(_kind(reduce))]
    reached = np.zeros(curves.shape, np.uint8)
    for iou in _demanded(cell.axes):
        reached += curves >= iou
    return [row.tobytes() for row in reached]


def _unpack(packed: NDArray[Any], reduce: str, axes: Mapping[str, Any]) -> Floats:
    """Curves [n,T] float32 from bytes: each level at the largest IoU demanded that it reaches, -1 where at none."""
    if reduce != "mean_of_max":
        return packed.view(_kind(reduce)).astype(np.float32)
    return np.concatenate([[np.float32(-1)], _demanded(axes)]).astype(np.float32)[packed]


def _kind(reduce: str) -> str:
    return "<f2" if reduce == "max_over_curve" else "<f4"


def _demanded(axes: Mapping[str, Any]) -> Floats:
    return np.sort(np.asarray(axes["iou_threshold"], np.float32))


def _cell(group: pd.DataFrame, card: Mapping[str, Any]) -> Cell:
    if card["reduce"] not in REDUCTIONS or card["higher_is_better"] not in (True, False):
        raise ValueError("a protocol that cannot be reduced")
    parts = group["case_id"].str.rsplit("#", n=1)
    curves = None
    if group["curve"].notna().all():
        packed = np.stack([np.frombuffer(row, np.uint8) for row in group["curve"]])
        curves = _unpack(packed, card["reduce"], card["axes"])
    values = group["value"].to_numpy(dtype=np.float64, na_value=np.nan)
    return Cell(values, curves, parts.str[-1].to_numpy(), parts.str[0].to_numpy(), card["axes"])
