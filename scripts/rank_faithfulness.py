"""How well each score of a run ranks its methods by where the objects are.

    gradcam-bench run experiment=faithfulness
    python scripts/rank_faithfulness.py results/faithfulness/RUN [--truth energy_pointing_game]

On scenes the truth is exact, so a score that needs no truth can be held against it: Spearman's correlation, over
methods, of each score (its sign turned where lower is better) with the truth, with and without the controls. A high
value says that the score prefers the methods that point at objects; whether it should is another question, as what a
network uses need not be the object alone. With few methods the values are coarse: of eight, 0.74 is where chance ends
(5 %, two-sided).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from gradcam_bench import catalogue


def ranking(summary: pd.DataFrame, truth: str, methods: list[str]) -> pd.Series:
    """Spearman's correlation of each (metric, protocol) with the truth's values, over the methods."""
    turned = summary.assign(value=summary["value"].where(summary["higher_is_better"].astype(bool), -summary["value"]))
    table = turned.pivot_table(index="method", columns=["metric", "protocol"], values="value").loc[methods]
    columns: list[Any] = list(table.columns)
    wanted = table[next(column for column in columns if column[0] == truth)]
    others = [column for column in columns if column[0] != truth]
    found = np.array([spearman(table[column], wanted) for column in others])
    return pd.Series(found, pd.MultiIndex.from_tuples(others))


def spearman(first: pd.Series, second: pd.Series) -> float:
    """Over the methods that have both; NaN where one of the two is the same for all."""
    both = first.notna() & second.notna()
    a, b = (rankdata(values[both].round(6)) for values in (first, second))
    return float(np.corrcoef(a, b)[0, 1]) if len(set(a)) > 1 and len(set(b)) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--truth", default="energy_pointing_game")
    given = parser.parse_args()
    summary = pd.read_csv(given.run / "summary.csv")
    summary = summary[summary["higher_is_better"].notna()]
    methods = list(dict.fromkeys(summary["method"]))
    known = set(catalogue.names("method"))
    controls = {m for m in methods if m in known and catalogue.spec("method", m).get("control")}
    everyone, looking = (
        ranking(summary, given.truth, some) for some in (methods, [m for m in methods if m not in controls])
    )
    table = pd.DataFrame(
        {f"all {len(methods)}": everyone, f"without controls, {len(methods) - len(controls)}": looking}
    )
    facts = json.loads((given.run / "run.json").read_text())
    print(f"{facts['dataset']} / {facts['model']}: rank correlation with {given.truth}, over methods")
    print(table.sort_values(table.columns[0], ascending=False).round(2).to_string())


if __name__ == "__main__":
    main()
