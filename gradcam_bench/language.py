"""What can be said of scenes: captions and questions from a small closed vocabulary, and which objects each word names.

A scene (`drawing`) has shapes and no colours with a name, so its objects are painted: each keeps its outline and its
texture and gets one of eight named colours. All arithmetic is on integers, from `RandomState`: a painted scene depends
on (VERSION, seed, index) alone. Scenes of one object, where every word means the same place, are passed over, and those
of which it could be argued what is largest, or what is left of what (`clear`): a caption is the only right one.

    a red ring left of a blue star            the largest object, and where it is from the next largest
    what colour is the ring? red              asked where there is one ring
    what is the blue one? star                where there is one blue object
    what is right of the ring? star           where one object is, and it is plain which others are not
    is there any heart? no                     as often as yes
    how many objects are there? two
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradcam_bench.drawing import CLASSES as SHAPES
from gradcam_bench.drawing import SPLIT_SEEDS, Scene, draw
from gradcam_bench.errors import UserError, unknown

VERSION = 2
COLOURS = {  # RGB
    "red": (214, 40, 40),
    "green": (46, 150, 60),
    "blue": (40, 80, 214),
    "yellow": (240, 214, 40),
    "pink": (250, 130, 180),
    "purple": (140, 50, 180),
    "black": (24, 24, 24),
    "white": (236, 236, 236),
}
RELATIONS = {"left": ("left", "of"), "right": ("right", "of"), "above": ("above",), "below": ("below",)}
NUMBERS = ("two", "three", "four")
ANSWERS = (*COLOURS, *SHAPES, "yes", "no", *NUMBERS)
START, END = "<start>", "<end>"
VOCABULARY = (START, END, "a", "of", *RELATIONS, *COLOURS, *SHAPES)  # of captions
ASKING = ("what", "colour", "is", "the", "one", "there", "any", "how", "many", "objects", "are")
QUESTION_WORDS = (*ASKING, "of", *RELATIONS, *COLOURS, *SHAPES)
CONTRAST = 170  # at least so far, summed over the channels, a colour is from what lies round the object
Objects = tuple[int, ...]  # numbers of a scene's objects
LARGER, FARTHER = (3, 2), (3, 2)  # ratios from which on an object is plainly larger, a direction plain


T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """An object as language sees it: names, the box's centre (x, y) in half pixels, visible pixels."""

    shape: str
    colour: str
    centre: tuple[int, int]
    area: int

    @property
    def noun(self) -> tuple[str, ...]:
        return "a", self.colour, self.shape


@dataclass(frozen=True)
class Painted:
    """A scene whose objects have named colours. image uint8 [H,W,3]."""

    index: int
    scene: Scene
    image: NDArray[np.uint8]
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Phrase:
    """Words start to the last of `words`, said after those before them. kind: of word (`colour`, `shape`, `position`,
    `function`), `phrase` (a colour and a shape with their article), `sentence`, and `absent colour`, `absent shape`:
    a word that is not true of the object whose it would be, nor of any other there."""

    words: tuple[str, ...]
    start: int
    kind: str

    @property
    def said(self) -> str:
        return " ".join(self.words[self.start :])


@dataclass(frozen=True)
class Question:
    """kind: `colour`, `shape`, `relation`, `existence`, `number`; `absent ...` where the answer is a wrong one."""

    words: tuple[str, ...]
    answer: str
    kind: str

    @property
    def said(self) -> str:
        return f"{' '.join(self.words)}? {self.answer}"


def relation(one: Thing, other: Thing) -> str | None:
    """Where the first is from the second, by their centres; None where it is as much beside as above or below."""
    dx, dy = (a - b for a, b in zip(one.centre, other.centre))
    if max(abs(dx), abs(dy)) * FARTHER[1] < min(abs(dx), abs(dy)) * FARTHER[0]:
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def clear(things: Sequence[Thing]) -> bool:
    """Whether there are several, and it is plain which is largest, which next, and where one is from the other."""
    order = sorted(things, key=lambda thing: -thing.area)
    plainly = [a.area * LARGER[1] >= b.area * LARGER[0] for a, b in pairwise(order[:3])]
    return len(order) > 1 and all(plainly) and relation(order[0], order[1]) is not None


def caption(things: Sequence[Thing]) -> list[tuple[str, str, Objects]]:
    """(word, kind, the objects that it names) of each word of the caption of things that are `clear`. An article stands
    for its own object, a place for both."""
    order = sorted(range(len(things)), key=lambda k: -things[k].area)[:2]
    nouns = [list(zip(things[k].noun, ("function", "colour", "shape"), [(k,)] * 3)) for k in order]
    between = RELATIONS[str(relation(things[order[0]], things[order[1]]))]
    both = [(word, "function" if word == "of" else "position", tuple(order)) for word in between]
    return [*nouns[0], *both, *nouns[1]]


def phrases(things: Sequence[Thing], rng: np.random.RandomState) -> list[tuple[Phrase, Objects]]:
    """What of a caption is explained, and the objects that it names: each word, each object's three words together, the
    sentence, and for each object a colour and a shape that are not in the scene in the place of its own."""
    told = caption(things)
    words = tuple(word for word, _, _ in told)
    found = [(Phrase(words[: t + 1], t, kind), objects) for t, (_, kind, objects) in enumerate(told)]
    for start in (0, len(words) - 3):
        found.append((Phrase(words[: start + 3], start, "phrase"), told[start][2]))
        for t, names in ((start + 1, tuple(COLOURS)), (start + 2, SHAPES)):
            there = {thing.colour if names is not SHAPES else thing.shape for thing in things}
            other = _one_of(rng, [name for name in names if name not in there])
            found.append((Phrase((*words[:t], other), t, f"absent {told[t][1]}"), told[t][2]))
    return [*found, (Phrase(words, 0, "sentence"), tuple(sorted({k for _, _, objects in told for k in objects})))]


def asked(things: Sequence[Thing], rng: np.random.RandomState) -> list[tuple[Question, Objects]]:
    """Questions with their answers, and the objects that the answers name: one of each kind for which the scene allows
    one, drawn by `rng`. A `no` names none."""
    everything = range(len(things))
    shapes, colours = [thing.shape for thing in things], [thing.colour for thing in things]
    found: list[tuple[Question, Objects]] = []
    single = [k for k in everything if shapes.count(shapes[k]) == 1]
    if single:
        k = _one_of(rng, single)
        found.append((Question(("what", "colour", "is", "the", shapes[k]), colours[k], "colour"), (k,)))
    alone = [k for k in everything if colours.count(colours[k]) == 1]
    if alone:
        k = _one_of(rng, alone)
        found.append((Question(("what", "is", "the", colours[k], "one"), shapes[k], "shape"), (k,)))
    beside = [pair for k in single for pair in _neighbours(things, k)]
    if beside:
        k, other, where = _one_of(rng, beside)
        words = ("what", "is", *RELATIONS[where], "the", shapes[k])
        found.append((Question(words, shapes[other], "relation"), (other,)))
    there = bool(rng.randint(0, 2))
    shape = _one_of(rng, sorted(set(shapes)) if there else [name for name in SHAPES if name not in shapes])
    named = tuple(k for k in everything if shapes[k] == shape)
    found.append((Question(("is", "there", "any", shape), "yes" if there else "no", "existence"), named))
    if len(things) > 2 or rng.randint(0, 2):  # of two objects every other time: as often as of three, or of four
        count = NUMBERS[len(things) - 2]
        found.append((Question(("how", "many", "objects", "are", "there"), count, "number"), tuple(everything)))
    return found


def _neighbours(things: Sequence[Thing], k: int) -> Iterator[tuple[int, int, str]]:
    """(k, other, relation) for each direction in which there is one object, if each other's direction is plain."""
    where = {other: relation(things[other], things[k]) for other in range(len(things)) if other != k}
    if None in where.values():
        return
    for name in RELATIONS:
        those = [other for other, found in where.items() if found == name]
        if len(those) == 1:
            yield k, those[0], name


def wrong(question: Question, things: Sequence[Thing], rng: np.random.RandomState) -> Question | None:
    """The question with an answer that names nothing in the scene, None of a number and of a right `no`."""
    if question.kind == "number" or question.answer == "no":
        return None
    names = {"colour": tuple(COLOURS), "existence": ("no",)}.get(question.kind, SHAPES)
    there = {name for thing in things for name in (thing.colour, thing.shape)}
    other = _one_of(rng, [name for name in names if name not in there])
    return Question(question.words, other, f"absent {question.kind}")


def _one_of(rng: np.random.RandomState, things: Sequence[T]) -> T:
    return things[int(rng.randint(0, len(things), dtype=np.int64))]


def painter(seed: int, index: int, what: int) -> np.random.RandomState:
    """The random numbers of one scene: what 0 its colours, 1 its phrases, 2 its questions."""
    return np.random.RandomState([VERSION, seed, index, what])


@lru_cache(64)
def painted(index: int, seed: int) -> Painted | None:
    """The `index`-th scene of stream `seed`, painted; None where it is not `clear`."""
    scene = draw(index, seed)
    boxes = [(int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in scene.boxes]
    bare = [
        Thing(SHAPES[label], "", (x0 + x1, y0 + y1), area)
        for label, (x0, y0, x1, y1), area in zip(scene.labels, boxes, scene.areas)
    ]
    if not clear(bare):
        return None
    rng, image, things = painter(seed, index, 0), scene.image.astype(np.int64), []
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        mask, around = scene.instances == k + 1, np.zeros(scene.instances.shape, dtype=bool)
        around[max(y0 - 4, 0) : y1 + 4, max(x0 - 4, 0) : x1 + 4] = True
        colour = _colour(rng, image[around & ~mask])
        _paint(image, mask, colour)
        things.append(replace(bare[k], colour=colour))
    return Painted(index, scene, image.clip(0, 255).astype(np.uint8), tuple(things))


def _colour(rng: np.random.RandomState, around: NDArray[np.int64]) -> str:
    """The first colour in a random order that stands out from the pixels round the object [N,3]."""
    mean = around.sum(0) // max(len(around), 1)
    order = [list(COLOURS)[k] for k in rng.permutation(len(COLOURS))]
    distances = {name: int(abs(np.array(COLOURS[name]) - mean).sum()) for name in order}
    return next((name for name in order if distances[name] >= CONTRAST), max(order, key=distances.__getitem__))


def _paint(image: NDArray[np.int64], mask: NDArray[np.bool_], colour: str) -> None:
    """The object's pixels in a colour, lighter and darker by a third of what they were, in place."""
    light = image[mask].sum(1) // 3
    shade = ((light - light.sum() // len(light)) // 3).clip(-30, 30)
    image[mask] = np.array(COLOURS[colour]) + shade[:, None]


def told(seed: int, count: int) -> Iterator[Painted]:
    """The first `count` scenes of a stream that are clear."""
    index = found = 0
    while found < count:
        scene = painted(index, seed)
        index += 1
        if scene is not None:
            found += 1
            yield scene


Said = TypeVar("Said", Phrase, Question)


@dataclass(frozen=True)
class Book(Generic[Said]):
    """What is asked of the first scenes of a split, each thing once. scenes: their indices in the stream of `seed`.
    named: for each scene its entries, as (number, the objects named). The entries of fewer scenes are the first of
    those of more."""

    seed: int
    scenes: tuple[int, ...]
    entries: tuple[Said, ...]
    named: tuple[tuple[tuple[int, Objects], ...], ...]


@lru_cache(4)
def phrasebook(split: str, count: int) -> Book[Phrase]:
    """The `phrases` of the captions of a split's first `count` clear scenes."""
    return _book(split, count, lambda scene, seed: phrases(scene.things, painter(seed, scene.index, 1)))


@lru_cache(4)
def questionnaire(split: str, count: int) -> Book[Question]:
    """The questions `asked` of a split's first `count` clear scenes, with their answers and with `wrong` ones, but for
    those whose answer names no object."""
    return _book(split, count, _answered)


def _answered(scene: Painted, seed: int) -> Iterator[tuple[Question, Objects]]:
    rng = painter(seed, scene.index, 2)
    for question, objects in asked(scene.things, rng):
        for one in (question, wrong(question, scene.things, rng)):
            if one is not None and objects:
                yield one, objects


def _book(split: str, count: int, entries_of: Callable[[Painted, int], Iterable[tuple[Said, Objects]]]) -> Book[Said]:
    if split not in SPLIT_SEEDS:
        raise unknown("split of scenes", split, SPLIT_SEEDS)
    if count < 1:
        raise UserError(f"count={count} scenes: give 1 or more")
    seed, place, scenes, named = SPLIT_SEEDS[split], {}, [], []  # type: ignore[var-annotated]
    for scene in told(seed, count):
        scenes.append(scene.index)
        found = {place.setdefault(entry, len(place)): objects for entry, objects in entries_of(scene, seed)}
        named.append(tuple(found.items()))
    return Book(seed, tuple(scenes), tuple(place), tuple(named))
