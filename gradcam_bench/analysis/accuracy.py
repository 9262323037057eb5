"""How well the classifier itself does, from the cases: half of what there is to know about a localization number."""

from __future__ import annotations

from typing import Any

import pandas as pd


def classifiers(cases: pd.DataFrame) -> list[dict[str, Any]]:
    """Top-1 and top-5 accuracy, shares of images in [0, 1], of each model on each dataset under each view.

    An image of several classes counts as right where any of them is the model's answer. Entries: dataset, model, view,
    images, top1, top5; none without a model.
    """
    names = ["dataset", "model", "view"]
    known = cases[cases["correct_top1"].notna()]
    known = known.assign(**{name: known[name].astype(str) for name in names})
    made = []
    for (dataset, model, view), mine in known.groupby(names, sort=False):
        right = mine[["correct_top1", "correct_top5"]].astype(float).groupby(mine["image_id"].astype(str)).max()
        top1, top5 = (float(right[name].mean()) for name in ("correct_top1", "correct_top5"))
        made.append(
            {"dataset": dataset, "model": model, "view": view, "images": len(right), "top1": top1, "top5": top5}
        )
    return made
