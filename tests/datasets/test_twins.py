"""The same scenes in the true layout of every data set: the same boxes and masks come back from each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradcam_bench import cli
from gradcam_bench.cli import configuration
from gradcam_bench.setup import make
from gradcam_bench.twins.layouts import COUNT, WRITERS, Written, scenes


def opened(written: Written, **settings: object):
    """The data set by its YAML file and the command line's overrides, as a user gets it."""
    both = {**written.settings, **settings}
    words = [f"dataset.{key}={'null' if value is None else value}" for key, value in both.items()]
    return make(configuration([f"dataset={written.dataset}", *words])["dataset"], "dataset")


HELD = [(name, kind) for name, (_, kinds, _) in WRITERS.items() for kind in kinds]


@pytest.mark.parametrize(("name", "kind"), HELD, ids=[f"{name}-{kind}" for name, kind in HELD])
def test_every_layout_gives_what_was_drawn(tmp_path: Path, name: str, kind: str) -> None:
    write, _, holds = WRITERS[name]
    twins = scenes(kind)
    written = write(tmp_path, twins)
    dataset = opened(written)
    assert sorted(dataset.ids) == sorted(written.ids)
    for image_id, twin in zip(written.ids, twins, strict=True):
        index = list(dataset.ids).index(image_id)
        found = dataset.annotate(index, masks="masks" in holds)
        assert (found.image_id, found.size, found.problems) == (image_id, twin.size, ())
        assert found.classes == tuple(dict.fromkeys(twin.labels))
        if "boxes" in holds:
            assert found.boxes.tolist() == twin.boxes
            assert found.labels.tolist() == twin.labels
            assert not found.difficult.any()
        if "masks" in holds:
            assert np.array_equal(found.masks.numpy(), np.stack(twin.masks))
            assert found.mask_labels.tolist() == twin.labels
    read, alone = dataset.read(0), dataset.annotate(0)
    assert (read.image.height, read.image.width) == read.annotation.size == alone.size
    assert torch.equal(read.annotation.boxes, alone.boxes)
    assert alone.masks is None


@pytest.mark.parametrize("name", WRITERS)
def test_a_fingerprint_is_the_same_twice_and_follows_the_annotations(tmp_path: Path, name: str) -> None:
    write, kinds, _ = WRITERS[name]
    twins = list(scenes(kinds[0]))
    for place in ("one", "two"):
        write(tmp_path / place, tuple(twins))
    twins[2] = twins[3]
    write(tmp_path / "three", tuple(twins))
    prints = [opened(write(tmp_path / place, scenes(kinds[0]))).fingerprint() for place in ("one", "two")]
    assert prints[0] == prints[1] != opened(write(tmp_path / "three", tuple(twins))).fingerprint()


@pytest.mark.parametrize("name", WRITERS)
def test_a_run_on_every_layout(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write, kinds, holds = WRITERS[name]
    written = write(tmp_path / "data", scenes(kinds[0]))
    region = "box" if "boxes" in holds else "mask"
    words = [f"dataset={written.dataset}", *(f"dataset.{key}={value}" for key, value in written.settings.items())]
    asked = ["model=none", "method=[center,noise]", "metric=[pointing_game]", "preset=[default]"]
    place = [f"results={tmp_path / 'results'}", "name=it", "workers=0", "stages=[explain,score]"]
    code = cli.main(["run", *words, *asked, f"protocol.region={region}", *place])
    assert code == 0, capsys.readouterr().err
    rows = pd.read_parquet(tmp_path / "results/run/it/rows.parquet")
    units = sum(len(set(twin.labels)) for twin in scenes(kinds[0]))
    assert len(rows) == 2 * units
    assert rows["problem"].isna().all()
    assert rows["image_id"].nunique() == COUNT
    assert set(rows["dataset"]) == {written.dataset}
