"""Labels, the split, order and augmentation: functions of seed, epoch and picture, of nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from gradcam_bench.choices import View
from gradcam_bench.datasets.folder import folder
from gradcam_bench.datasets.voc import Voc
from gradcam_bench.drawing import CLASSES
from gradcam_bench.errors import UserError
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.training.augmentation import Augmentation, augmentation, augmented
from gradcam_bench.training.data import Batch, Labels, Order, Pictures, collate, held_out, labels, loader
from gradcam_bench.training.scores import Tally, losses, mean_average_precision, right

WARP = Preprocessing("warp", 32, None)


def a_folder(root: Path, counts: dict[str, int]) -> Path:
    noise = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for k in range(count):
            pixels = noise.integers(0, 256, (24, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


def some(count: int, classes: int = 3) -> Labels:
    return Labels(tuple(range(count)), torch.eye(classes)[torch.arange(count) % classes])


def test_labels_of_class_folders(tmp_path: Path) -> None:
    known = labels(folder(str(a_folder(tmp_path, {"a": 2, "b": 1}))), several=False, limit=None, seed=0)
    assert known.targets.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert known.left_out == ()


def test_labels_of_scenes_with_several_classes(scenes_root: Path) -> None:
    dataset = Voc(scenes_root, split="test", classes=CLASSES)
    known = labels(dataset, several=True, limit=None, seed=0)
    for index, target in zip(known.indices, known.targets, strict=True):
        assert set(target.nonzero().flatten().tolist()) == set(dataset.annotate(index).classes)
    single = labels(dataset, several=False, limit=None, seed=0)
    crowded = (known.targets.sum(1) != 1).sum()
    assert (len(single), len(single.left_out)) == (12 - crowded, crowded)
    assert "takes one" in single.left_out[0]


def test_a_limit_takes_every_class_and_the_same_pictures_each_time(tmp_path: Path) -> None:
    dataset = folder(str(a_folder(tmp_path, {"a": 12, "b": 12})))
    one, again = (labels(dataset, several=False, limit=12, seed=5) for _ in range(2))
    assert one.indices == again.indices == tuple(sorted(one.indices))
    assert 0 < one.targets[:, 0].sum() < 12
    assert labels(dataset, several=False, limit=12, seed=6).indices != one.indices


def test_nothing_to_train_on(scenes_root: Path, tmp_path: Path) -> None:
    dataset = folder(str(a_folder(tmp_path, {"a": 1})))
    (tmp_path / "a/0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"no picture is left .*0.png"):
        labels(dataset, several=False, limit=None, seed=0)


def test_the_split_takes_its_share_of_each_class() -> None:
    known = Labels(tuple(range(40)), torch.eye(2)[torch.tensor([0] * 30 + [1] * 10)])
    ids = [f"picture {k}" for k in range(40)]
    train, validate = held_out(known, ids, 0.2, seed=1)
    assert sorted(train.indices + validate.indices) == list(range(40))
    assert validate.targets.sum(0).tolist() == [6, 2]
    assert held_out(known, ids, 0.2, seed=1)[1].indices == validate.indices
    assert held_out(known, ids, 0.2, seed=2)[1].indices != validate.indices
    shuffled = list(reversed(range(40)))
    again = held_out(known.only(shuffled), ids, 0.2, seed=1)[1]
    assert set(again.indices) == set(validate.indices), "a picture's side depends on its id, not on its place"


def test_small_splits_keep_someone_on_either_side() -> None:
    train, validate = held_out(some(2, 2), ["a", "b"], 0.01, seed=0)
    assert (len(train), len(validate)) == (1, 1)
    train, validate = held_out(some(3, 3), ["a", "b", "c"], 0.99, seed=0)
    assert len(train) >= 1 <= len(validate)
    with pytest.raises(UserError, match="more are needed"):
        held_out(some(1, 1), ["a"], 0.5, seed=0)


def test_permuted_labels_are_the_same_labels_elsewhere() -> None:
    known = Labels(tuple(range(50)), torch.eye(50))
    dealt = known.permuted(3)
    assert dealt.indices == known.indices
    assert not torch.equal(dealt.targets, known.targets)
    assert torch.equal(dealt.targets.sum(0), known.targets.sum(0))
    assert torch.equal(known.permuted(3).targets, dealt.targets)


def test_an_order_is_of_its_epoch_and_shared_out() -> None:
    order = Order(11, seed=0, shuffled=True)
    first = list(order)
    order.set_epoch(1)
    assert sorted(position for _, position in first) == list(range(11))
    assert [p for _, p in first] != [p for _, p in order]
    assert {epoch for epoch, _ in order} == {1}
    parts = [list(Order(11, 0, True, rank, 3)) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4] == [len(Order(11, 0, True, rank, 3)) for rank in range(3)]
    assert [p for trio in zip(*parts, strict=True) for p in trio] == [*first, first[0]], "one begins again"
    whole = [list(Order(11, 0, False, rank, 3)) for rank in range(3)]
    assert sorted(p for part in whole for _, p in part) == list(range(11)), "none is validated twice"


def test_a_picture_in_an_epoch_is_the_same_whoever_asks(tmp_path: Path) -> None:
    dataset = folder(str(a_folder(tmp_path, {"a": 3, "b": 2})))
    known = labels(dataset, several=False, limit=None, seed=0)
    pictures = Pictures(dataset, known, WARP, 7, Augmentation("crop_flip", 32))
    state = torch.get_rng_state()
    one = pictures[2, 3][0]
    torch.rand(5)
    assert torch.equal(pictures[2, 3][0], one)
    assert not torch.equal(pictures[3, 3][0], one), "another epoch, another crop"
    torch.set_rng_state(state)
    pictures[0, 0]
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers stay as they are"
    batches = [list(loader(pictures, Order(5, 7, True), 2, workers)) for workers in (0, 2)]
    for here, there in zip(*batches, strict=True):
        for (x, y), (u, v) in zip(here.groups, there.groups, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_validation_sees_what_a_run_would_see(tmp_path: Path) -> None:
    dataset = folder(str(a_folder(tmp_path, {"a": 1})))
    known = labels(dataset, several=False, limit=None, seed=0)
    seen = Pictures(dataset, known, WARP, 7)[0, 0][0]
    assert torch.equal(seen, WARP(dataset.read(0).image, View())[0])


def test_a_broken_picture_is_a_sentence_in_its_batch(tmp_path: Path) -> None:
    dataset = folder(str(a_folder(tmp_path, {"a": 2})))
    known = labels(dataset, several=False, limit=None, seed=0)
    (tmp_path / "a/1.png").write_bytes(b"no picture")
    batch = next(iter(loader(Pictures(dataset, known, WARP, 7), Order(2, 0, False), 2, 0)))
    assert [images.shape for images, _ in batch.groups] == [(1, 3, 32, 32)]
    assert "1.png: cannot be decoded" in batch.broken[0]


def test_batches_are_grouped_by_size() -> None:
    examples = [(torch.full((3, s, 4), float(k)), torch.tensor([float(k)])) for k, s in enumerate((4, 5, 4))]
    batch = collate([*examples, "broken"])
    assert [(tuple(x.shape), y.flatten().tolist()) for x, y in batch.groups] == [
        ((2, 3, 4, 4), [0, 2]),
        ((1, 3, 5, 4), [1]),
    ]
    assert batch.broken == ("broken",)
    assert batch.to(torch.device("cpu")) == Batch(batch.groups, batch.broken)


def test_no_epoch_ends_in_a_batch_of_one(tmp_path: Path) -> None:
    dataset = folder(str(a_folder(tmp_path, {"a": 5})))
    pictures = Pictures(dataset, labels(dataset, False, None, 0), WARP, 0)
    assert [len(b.groups[0][0]) for b in loader(pictures, Order(5, 0, True), 2, 0)] == [2, 2]
    assert [len(b.groups[0][0]) for b in loader(pictures, Order(5, 0, False), 2, 0)] == [2, 2, 1]
    assert [len(b.groups[0][0]) for b in loader(pictures, Order(1, 0, True), 2, 0)] == [1]


@pytest.mark.parametrize(
    ("name", "preprocessing", "size"),
    [
        ("none", WARP, (32, 32)),
        ("flip", WARP, (32, 32)),
        ("shapes", WARP, (32, 32)),
        ("crop_flip", WARP, (32, 32)),
        ("crop_flip", Preprocessing(), (224, 224)),
        ("warp_crop_flip", WARP, (32, 32)),
        ("long_side", replace(WARP, resize="none", size=None), (512, 512)),
    ],
)
def test_every_augmentation(name: str, preprocessing: Preprocessing, size: tuple[int, int]) -> None:
    grey = tuple(round(255 * mean) for mean in preprocessing.mean)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pixels = augmented(Image.new("RGB", (50, 40), grey), augmentation(name, preprocessing), preprocessing)
    assert pixels.shape == (3, *size)
    assert type(pixels) is torch.Tensor
    if name != "shapes":
        assert pixels.abs().max() < 0.02, "the mean colour is 0 once it is normalised, and so is IRN's ground"


def test_a_picture_on_irns_ground_is_whole() -> None:
    """50x40 pixels become 320 to 640 wide: all of it, or 512 columns, lie on the 512x512 canvas."""
    white = Image.new("RGB", (50, 40), (255, 255, 255))
    for seed in range(4):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            seen = augmented(white, Augmentation("long_side"), replace(WARP, resize="none", size=None))[0] > 0
        rows, columns = seen.any(1).sum(), seen.any(0).sum()
        assert seen.sum() == rows * columns, "a rectangle"
        assert 320 <= columns <= 512
        assert min(rows, 512) >= 0.79 * columns


def test_a_crop_needs_a_size() -> None:
    with pytest.raises(UserError, match="crops to a size"):
        augmentation("crop_flip", replace(WARP, resize="none", size=None))


def test_losses_are_torchs() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(4, 5), torch.randint(0, 2, (4, 5)).float()
    torch.testing.assert_close(losses(logits, truth, True).mean(), F.multilabel_soft_margin_loss(logits, truth))
    single = F.one_hot(torch.tensor([1, 0, 4, 2]), 5).float()
    assert torch.equal(losses(logits, single, False).mean(), F.cross_entropy(logits, torch.tensor([1, 0, 4, 2])))


def test_right_answers() -> None:
    logits = torch.tensor([[1.0, -1], [1, 2], [-1, -2]])
    truth = torch.tensor([[1.0, 0], [1, 0], [0, 0]])
    assert right(logits, truth, True).tolist() == [True, False, True]
    assert right(logits[:2], truth[:2], False).tolist() == [True, False]


def test_mean_average_precision_by_hand() -> None:
    """Class 0: hits at ranks 1 and 3, (1/1 + 2/3) / 2; class 1 never occurs; class 2: one hit at rank 2."""
    logits = torch.tensor([[4.0, 0, 1], [3, 0, 2], [2, 0, 3], [1, 0, 0]])
    truth = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
    assert mean_average_precision(logits, truth) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert mean_average_precision(logits, torch.zeros(4, 3)) is None


def test_tallies_of_processes_add_up() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(6, 3), torch.eye(3).repeat(2, 1)
    whole, parts = Tally(True, keep=True), [Tally(True, keep=True) for _ in range(2)]
    whole.add(logits, truth, losses(logits, truth, True))
    for tally, rows in zip(parts, (slice(0, 4), slice(4, 6)), strict=True):
        tally.add(logits[rows], truth[rows], losses(logits[rows], truth[rows], True))
    assert Tally(True, keep=True).merged(parts).row() == pytest.approx(whole.row())
    assert whole.row()["pictures"] == 6
