"""What a data set's publishers count, for the split that a configuration reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradcam_bench.data.sources import Source


def expected(source: Source | None, dataset: Mapping[str, Any]) -> Mapping[str, int]:
    """The published counts (see `sources.COUNTED`), empty where there are none or only a subset is read."""
    if source is None or dataset.get("subset") or dataset.get("blacklist"):
        return {}
    split, lists = str(dataset.get("split") or ""), dataset.get("lists")
    key = f"{lists}/{split}" if lists not in (None, "Main") else split
    return source.counts.get(key, {})
