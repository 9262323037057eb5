"""A finished run, played back: its cases and stored heatmaps, image by image, without the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from gradcam_bench.answers import Case
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.explain import heatmaps_of
from gradcam_bench.plan import Run, view_id
from gradcam_bench.samples import Picture, Sample, Samples, Skipped, as_tensor
from gradcam_bench.supplies import Supplies


@dataclass(frozen=True, eq=False)
class Played:
    """One image of a finished run. maps: method -> Q heatmaps [h,w], signed. picture: where it was decoded."""

    cases: list[Case]
    maps: dict[str, list[Tensor]]
    picture: Picture | None


def replay(
    job: Run, view: View, cases: pd.DataFrame, images: Collection[str] | None = None, pictures: bool = False
) -> Iterator[Played]:
    """The images of a run under one view. cases: its cases.parquet. images: only these ids. pictures: decode
    those that can be (a run of controls needs none).

    Heatmaps come from the store; those of methods that look at no network (controls) are made again where they were not
    kept. A method of the plan that has neither is missing from `maps`.
    """
    mine = cases[cases["view"] == view_id(view)]
    if not len(mine):
        raise UserError(
            f"{job.store.folder} holds no heatmaps under this view: run it (gradcam-bench run) with the preset"
        )
    index = job.store.index()
    index = index[(index["view"] == view_id(view)) & index["case_id"].isin(mine["case_id"])]
    index = index[index["stage"].astype(str) == "trained"]
    again = [m for m in job.plan.methods if not m.sees and m.label not in set(index["method"])]
    looking = any("images" in method.takes for method in again)
    numbers = {image_id: number for number, image_id in enumerate(job.dataset.ids)}
    stored = {str(image_id): group for image_id, group in index.groupby("image_id", sort=False, observed=True)}
    labels = {method.label for method in job.plan.methods}
    for name, group in mine.groupby("image_id", sort=False, observed=True):
        image_id = str(name)
        if images is not None and image_id not in images:
            continue
        if image_id not in numbers:
            raise UserError(f"image {image_id} of the run is no longer in the data set: was its root or split changed?")
        sample, picture = _sample(job, view, numbers[image_id], looking, pictures)
        played = [_case(sample, {str(k): v for k, v in row.items()}) for row in group.to_dict("records")]
        maps: dict[str, list[Tensor]] = {}
        if image_id in stored:
            entries = stored[image_id]
            order = {case.id: number for number, case in enumerate(played)}
            entries = entries.assign(order=entries["case_id"].map(order)).sort_values("order", kind="stable")
            for entry, heatmap in job.store.read(entries[entries["method"].isin(labels)]):
                maps.setdefault(str(entry["method"]), []).append(heatmap)
        if again:
            inputs = sample.pixels[None].expand(len(played), -1, -1, -1)
            made, _ = heatmaps_of(again, Supplies(inputs, [case.id for case in played], view.seed))
            maps |= {label: list(grids) for label, grids in made.items()}
        yield Played(played, {m.label: maps[m.label] for m in job.plan.methods if m.label in maps}, picture)


def _sample(job: Run, view: View, number: int, looking: bool, picture: bool) -> tuple[Sample, Picture | None]:
    """looking: a method looks at the pixels. picture: somebody would like to see the picture, if it is there."""
    if looking or picture or job.plan.pictures:
        try:
            found = job.dataset.read(number, job.plan.masks)
            pixels, frame = job.preprocessing(found.image, view)
            seen = as_tensor(found.image) if job.plan.pictures else None
            return Sample(number, pixels, frame, found.annotation, found.digest, seen), found
        except UserError:
            if looking:
                raise
    sample = Samples(job.dataset, job.preprocessing, view, [number], job.plan.masks, unseen=True)[0]
    if isinstance(sample, Skipped):
        raise UserError(sample.reason)
    return sample, None


def _case(sample: Sample, row: dict[str, object]) -> Case:
    def number(key: str) -> float | None:
        value = row[key]
        return None if value is None or pd.isna(value) else float(value)  # type: ignore[arg-type,call-overload]

    rank, predicted = number("rank"), number("predicted")
    return Case(
        sample,
        int(str(row["class_index"])),
        number("logit"),
        number("probability"),
        None if rank is None else int(rank),
        None if predicted is None else int(predicted),
    )
