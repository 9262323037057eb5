"""Pictures and their labels for training: which train and which validate, in what order, augmented how.

Everything random is a function of the seed, the epoch and the picture alone: neither workers, nor processes, nor an
interruption change what a picture looks like in an epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.loading import as_worker, start_method
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.samples import Dataset
from gradcam_bench.training.augmentation import Augmentation, augmented

Example = tuple[Tensor, Tensor] | str  # pixels [3,H,W] and target [K], or the sentence that says why there are none


@dataclass(frozen=True)
class Labels:
    """What is known of pictures `indices` of a data set: targets [N,K] float32 of 0 and 1. left_out: sentences."""

    indices: tuple[int, ...]
    targets: Tensor
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def only(self, positions: Sequence[int]) -> Labels:
        return replace(self, indices=tuple(self.indices[i] for i in positions), targets=self.targets[list(positions)])

    def permuted(self, seed: int) -> Labels:
        """The same pictures with one another's labels (Adebayo et al. 2018, section 4.2)."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(number(seed, "labels")))
        return replace(self, targets=self.targets[order])


def number(*words: object) -> int:
    """A seed from words, the same everywhere and for ever."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "big") >> 1


def labels(dataset: Dataset, several: bool, limit: int | None, seed: int, strict: bool = False) -> Labels:
    """The labels of a data set. several: a picture may have any number of classes; else those that do not have exactly
    one are left out, and said. limit: so many pictures, those with the lowest hash of seed and id. strict: an
    annotation that cannot be read stops the training."""
    indices = list(range(len(dataset.ids)))
    if limit is not None:
        indices = sorted(sorted(indices, key=lambda i: number(seed, "limit", dataset.ids[i]))[:limit])
    kept, rows, left_out = [], [], []
    for index in indices:
        try:
            classes = dataset.annotate(index).classes
        except UserError as error:
            if strict:
                raise
            left_out.append(str(error))
            continue
        if not several and len(classes) != 1:
            left_out.append(f"{dataset.ids[index]}: {len(classes)} classes, recipe.loss=cross_entropy takes one")
            continue
        kept.append(index)
        rows.append(torch.zeros(len(dataset.classes)).index_fill_(0, torch.tensor(classes, dtype=torch.int64), 1))
    if not kept:
        why = f" ({left_out[0]})" if left_out else ""
        raise UserError(f"dataset {dataset.name}: no picture is left to train or validate on{why}")
    return Labels(tuple(kept), torch.stack(rows), tuple(left_out))


def held_out(known: Labels, ids: Sequence[str], share: float, seed: int) -> tuple[Labels, Labels]:
    """(train, validate) of one data set: of each class, by a picture's first one, the `share` with the lowest hash of
    seed and id, rounded, validates; at least one picture in all, and never all."""
    strata: dict[int, list[int]] = {}
    for position, target in enumerate(known.targets):
        strata.setdefault(int(target.argmax()) if target.any() else -1, []).append(position)
    ranked = {k: sorted(v, key=lambda p: number(seed, "held_out", ids[known.indices[p]])) for k, v in strata.items()}
    chosen = {p for mine in ranked.values() for p in mine[: min(round(share * len(mine)), len(mine) - 1)]}
    everyone = range(len(known))
    if not chosen and len(known) > 1:
        chosen = {min(everyone, key=lambda p: number(seed, "held_out", ids[known.indices[p]]))}
    if not chosen:
        raise UserError("one picture cannot both train and validate: more are needed")
    return known.only([p for p in everyone if p not in chosen]), known.only(sorted(chosen))


@dataclass(frozen=True)
class Pictures(TorchDataset[Example]):
    """Labelled pictures, asked for by (epoch, position). augment: None for validation, which sees every picture as the
    network's preprocessing has it."""

    dataset: Dataset
    known: Labels
    preprocessing: Preprocessing
    seed: int
    augment: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, position = key
        index = self.known.indices[position]
        try:
            image = self.dataset.read(index).image
            if self.augment is None:
                pixels, _ = self.preprocessing(image, View())
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(number(self.seed, "augment", epoch, self.dataset.ids[index]))
                    pixels = augmented(image, self.augment, self.preprocessing)
        except UserError as error:
            return str(error)
        return pixels, self.known.targets[position]


@dataclass
class Order(torch.utils.data.Sampler[tuple[int, int]]):
    """(epoch, position) of this process' share of `count` pictures: shuffled anew each epoch, or as they come.

    rank, world: processes take turns; a shuffled order begins again for the last of them, so that all have as many
    steps.
    """

    count: int
    seed: int
    shuffled: bool
    rank: int = 0
    world: int = 1
    epoch: int = field(default=0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.count))
        if self.shuffled:
            generator = torch.Generator().manual_seed(number(self.seed, "order", self.epoch))
            order = torch.randperm(self.count, generator=generator).tolist()
            order += order[: -self.count % self.world]
        return iter([(self.epoch, position) for position in order[self.rank :: self.world]])

    def __len__(self) -> int:
        if self.shuffled:
            return -(-self.count // self.world)
        return len(range(self.rank, self.count, self.world))


@dataclass(frozen=True)
class Batch:
    """Pictures of one or several sizes: groups of (images [B,3,H,W], targets [B,K]), and why others are not there."""

    groups: tuple[tuple[Tensor, Tensor], ...]
    broken: tuple[str, ...] = ()

    def to(self, device: torch.device, **options: Any) -> Batch:
        moved = tuple((images.to(device, **options), targets.to(device, **options)) for images, targets in self.groups)
        return replace(self, groups=moved)


def collate(examples: Sequence[Example]) -> Batch:
    """One batch, grouped by size in order of first appearance."""
    groups: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
    for example in examples:
        if not isinstance(example, str):
            groups.setdefault(example[0].shape, []).append(example)
    stacked = [tuple(torch.stack(part) for part in zip(*group, strict=True)) for group in groups.values()]
    return Batch(tuple((images, targets) for images, targets in stacked), tuple(e for e in examples if type(e) is str))


def loader(pictures: Pictures, order: Order, batch_size: int, workers: int) -> DataLoader[Example]:
    """Batches in the order's order, decoded in `workers` processes. A last batch of one picture, which batch norm
    cannot be trained on, is left out of a shuffled epoch of several."""
    sole = len(order) % batch_size == 1 and len(order) > batch_size
    return DataLoader(
        pictures,
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        multiprocessing_context=start_method() if workers else None,
        collate_fn=collate,
        drop_last=order.shuffled and sole,
        worker_init_fn=as_worker,
        generator=torch.Generator(),  # the workers' seeds: not drawn from the caller's random state
    )
