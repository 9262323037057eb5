"""The columns of a run's tables. They may grow, at the end; what they hold now stays readable.

rows: a statistic of one case (unit), method, metric and protocol. cases: what was asked, joined to rows by case_id (and
view, where a run has several). index: where a heatmap lies in the map store, by its content address.
"""

from __future__ import annotations

import pyarrow as pa

_name = pa.dictionary(pa.int32(), pa.string())
ROWS = pa.schema(
    [
        ("image_id", pa.string()),
        ("case_id", pa.string()),
        ("dataset", _name),
        ("model", _name),
        ("target", _name),
        ("stage", _name),
        ("draw", pa.int32()),
        ("method", _name),
        ("layer", _name),
        ("metric", _name),
        ("unit", _name),
        ("reference", _name),
        ("protocol", _name),
        ("value", pa.float64()),
        ("curve", pa.list_(pa.float32())),
        ("problem", _name),
        ("view", _name),
    ]
)
CASES = pa.schema(
    [
        ("image_id", pa.string()),
        ("case_id", pa.string()),
        ("dataset", _name),
        ("model", _name),
        ("target", _name),
        ("view", _name),
        ("class_index", pa.int32()),
        ("class_name", _name),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("n_instances", pa.int32()),
        ("area_fraction", pa.float64()),
        ("size", _name),
        ("difficult", pa.bool_()),
        ("logit", pa.float64()),
        ("probability", pa.float64()),
        ("rank", pa.int32()),
        ("predicted", pa.int32()),
        ("correct_top1", pa.bool_()),
        ("correct_top5", pa.bool_()),
        ("forwards", pa.float64()),
        ("head_forwards", pa.float64()),
        ("backwards", pa.float64()),
        ("seconds", pa.float64()),
        ("kind", _name),
    ]
)
INDEX = pa.schema(
    [
        ("key", pa.string()),
        ("image_id", pa.string()),
        ("case_id", pa.string()),
        ("model", _name),
        ("view", _name),
        ("stage", _name),
        ("draw", pa.int32()),
        ("method", _name),
        ("layer", _name),
        ("problem", _name),
        ("shard", _name),
        ("tensor", _name),
        ("row", pa.int32()),
        ("forwards", pa.float64()),
        ("head_forwards", pa.float64()),
        ("backwards", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
ORDER = {
    "cases": ["view", "image_id", "case_id"],
    "maps": ["view", "image_id", "case_id", "stage", "draw", "method"],
}
CELL = ["metric", "protocol", "method", "view", "model"]  # how rows are ordered: cell by cell,
WITHIN = ["stage", "draw", "image_id", "case_id"]  # and within a cell
