"""The papers' own numbers: results/published/<paper>.csv, with where each was seen and how sure it is.

A number's id is <paper>/<table>/<model>/[<dataset>/]<method>/<metric>, in lower case; it never changes.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gradcam_bench.errors import UserError, unknown

TABLES = Path(__file__).parent / "tables"  # in an installed package
if not TABLES.is_dir():
    TABLES = Path(__file__).parent.parent / "results" / "published"  # in a checkout
COLUMNS = (
    *("id", "table", "model", "weights", "dataset", "split", "method", "metric"),
    *("value", "unit", "protocol_notes", "source", "confidence"),
)
CONFIDENCE = ("verified", "secondary", "computed", "remembered")


@dataclass(frozen=True)
class Published:
    """A printed number with what the paper says of it.

    value: as printed; number: the same, None where it is no plain number. unit: `%`, or what else it is in.
    confidence: verified (seen with the authors), secondary (quoted by others), computed (from the published
    annotations, by the published rule), remembered (shown, judges nothing).
    """

    id: str
    table: str
    model: str
    weights: str
    dataset: str
    split: str
    method: str
    metric: str
    value: str
    unit: str
    protocol_notes: str
    source: str
    confidence: str

    @property
    def number(self) -> float | None:
        try:
            return float(self.value)
        except ValueError:
            return None

    @property
    def rounding(self) -> float:
        """Half a unit of the last digit printed."""
        return 0.5 * 10.0 ** -len(self.value.partition(".")[2])

    @property
    def scale(self) -> float:
        """By what a share in [0, 1] is multiplied to be in `unit`."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def name(self) -> str:
        """What it is, in words: model, data, method, metric."""
        parts = (self.model, self.dataset, self.method, self.metric)
        return ", ".join(part for part in parts if part and part not in ("-", "none"))


def papers() -> list[str]:
    """The tables that there are."""
    return sorted(path.stem for path in TABLES.glob("*.csv"))


@functools.cache
def table(paper: str) -> Mapping[str, Published]:
    """A paper's numbers by id (without the paper's name), in the order of the file."""
    path = TABLES / f"{paper}.csv"
    if not path.is_file():
        raise unknown("published table", paper, papers())
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: its columns must be {', '.join(COLUMNS)}")
        rows = [Published(**row) for row in reader]
    for row in rows:
        if row.confidence not in CONFIDENCE:
            raise unknown(f"confidence of {row.id} in {path.name}", row.confidence, CONFIDENCE)
    return {row.id: row for row in rows}


def find(paper: str, identity: str) -> Published:
    """The number of that id in that paper's table; raises UserError naming the nearest."""
    rows = table(paper)
    if identity not in rows:
        raise unknown(f"published number of {paper}", identity, rows)
    return rows[identity]
