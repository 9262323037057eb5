"""How well the classifier itself does, from the cases: half of what there is to know about a localization number."""

from __future__ import annotations

import pandas as pd


def accuracy(cases: pd.DataFrame) -> dict[str, float]:
    """Share of cases whose class is the model's first answer (`top1`) or among its first five (`top5`), in [0, 1].

    Of the first view where there are several. For one class an image this is the usual accuracy; empty without a model.
    """
    seen = cases[cases["view"] == cases["view"].iloc[0]] if len(cases) else cases
    seen = seen[seen["rank"].notna()]
    if not len(seen):
        return {}
    return {"top1": float((seen["rank"] < 1).mean()), "top5": float((seen["rank"] < 5).mean()), "n": float(len(seen))}
