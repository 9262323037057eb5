"""What is said of scenes, worked out by hand on made-up things; and that drawn ones are what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from gradcam_bench import language
from gradcam_bench.drawing import SPLIT_SEEDS
from gradcam_bench.errors import UserError
from gradcam_bench.language import COLOURS, SHAPES, Phrase, Thing

RING = Thing("ring", "red", (100, 100), 1200)
STAR = Thing("star", "blue", (300, 120), 700)
HEART = Thing("heart", "red", (110, 400), 400)
THINGS = (STAR, HEART, RING)


def words(things: tuple[Thing, ...]) -> str:
    return " ".join(word for word, _, _ in language.caption(things))


@pytest.mark.parametrize(
    ("centre", "expected"),
    [((300, 120), "left"), ((-100, 90), "right"), ((90, 300), "above"), ((90, -300), "below"), ((200, 210), None)],
)
def test_relation(centre: tuple[int, int], expected: str | None) -> None:
    assert language.relation(RING, Thing("star", "blue", centre, 1)) == expected


def test_the_ratio_from_which_a_direction_is_plain() -> None:
    assert language.relation(Thing("ring", "red", (0, 0), 1), Thing("ring", "red", (60, 40), 1)) == "left"
    assert language.relation(Thing("ring", "red", (0, 0), 1), Thing("ring", "red", (59, 40), 1)) is None


def test_a_caption_by_hand() -> None:
    assert language.caption(THINGS) == [
        ("a", "function", (2,)),
        ("red", "colour", (2,)),
        ("ring", "shape", (2,)),
        ("left", "position", (2, 0)),
        ("of", "function", (2, 0)),
        ("a", "function", (0,)),
        ("blue", "colour", (0,)),
        ("star", "shape", (0,)),
    ]
    assert words((HEART, RING)) == "a red ring above a red heart"


def test_what_is_clear() -> None:
    assert language.clear(THINGS)
    assert not language.clear((RING,))  # one object: every word would mean the same place
    assert not language.clear((RING, Thing("star", "blue", (300, 120), 900)))  # 1200 and 900 are too much alike
    assert not language.clear((RING, Thing("star", "blue", (200, 200), 700)))  # left and above
    assert not language.clear((RING, STAR, Thing("heart", "red", (110, 400), 500)))  # the second or the third?


def test_phrases_by_hand() -> None:
    found = language.phrases(THINGS, np.random.RandomState(0))
    by_kind: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for phrase, objects in found:
        by_kind.setdefault(phrase.kind, []).append((phrase.said, objects))
    assert by_kind["phrase"] == [("a red ring", (2,)), ("a blue star", (0,))]
    assert by_kind["sentence"] == [("a red ring left of a blue star", (0, 2))]
    assert by_kind["shape"] == [("ring", (2,)), ("star", (0,))]
    assert by_kind["position"] == [("left", (2, 0))]
    for (said, objects), object_ in zip(by_kind["absent shape"], (2, 0), strict=True):
        assert said in SHAPES
        assert said not in ("ring", "star", "heart")
        assert objects == (object_,)
    assert all(said in COLOURS and said not in ("red", "blue") for said, _ in by_kind["absent colour"])
    absent = next(phrase for phrase, _ in found if phrase.kind == "absent shape")
    assert absent.words[:2] == ("a", "red")
    assert absent.start == 2


def test_questions_by_hand() -> None:
    seen: dict[str, set[tuple[str, tuple[int, ...]]]] = {}
    for seed in range(60):
        for question, objects in language.asked(THINGS, np.random.RandomState(seed)):
            seen.setdefault(question.kind, set()).add((question.said, objects))
    assert seen["colour"] == {
        ("what colour is the ring? red", (2,)),
        ("what colour is the star? blue", (0,)),
        ("what colour is the heart? red", (1,)),
    }
    assert seen["shape"] == {("what is the blue one? star", (0,))}  # there are two red ones
    assert seen["number"] == {("how many objects are there? three", (0, 1, 2))}
    assert ("what is right of the ring? star", (0,)) in seen["relation"]
    assert ("what is below the ring? heart", (1,)) in seen["relation"]
    assert all(objects == () for said, objects in seen["existence"] if said.endswith("no"))
    assert ("is there any heart? yes", (1,)) in seen["existence"]


def test_no_relation_is_asked_where_one_is_not_plain() -> None:
    beside = Thing("heart", "red", (200, 210), 500)  # from the ring as much right as below
    for seed in range(30):
        for question, _ in language.asked((RING, STAR, beside), np.random.RandomState(seed)):
            assert not (question.kind == "relation" and question.words[-1] == "ring")


def test_wrong_answers() -> None:
    rng = np.random.RandomState(0)
    questions = {q.kind: q for q, _ in language.asked((RING, STAR), np.random.RandomState(3))}
    assert "number" not in questions or language.wrong(questions["number"], THINGS, rng) is None
    colour = language.wrong(questions["colour"], THINGS, rng)
    assert colour is not None
    assert colour.answer in set(COLOURS) - {"red", "blue"}
    assert colour.kind == "absent colour"
    there = language.Question(("is", "there", "any", "ring"), "yes", "existence")
    assert language.wrong(there, THINGS, rng) == language.Question(there.words, "no", "absent existence")
    assert language.wrong(language.Question(there.words, "no", "existence"), THINGS, rng) is None


def test_painted_objects_have_their_colour() -> None:
    for scene in language.told(SPLIT_SEEDS["val"], 8):
        assert len(scene.things) == len(scene.scene.labels) > 1
        for k, thing in enumerate(scene.things):
            mean = scene.image[scene.scene.instances == k + 1].mean(0)
            nearest = min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
            assert thing.colour == nearest
            assert thing.shape == SHAPES[scene.scene.labels[k]]


def test_a_painted_scene_is_the_same_every_time() -> None:
    first = [scene.image.tobytes() for scene in language.told(7, 3)]
    language.painted.cache_clear()
    assert [scene.image.tobytes() for scene in language.told(7, 3)] == first
    assert len(set(first)) == 3


def test_a_longer_book_begins_with_a_shorter_one() -> None:
    short, long = language.phrasebook("test", 3), language.phrasebook("test", 5)
    assert long.entries[: len(short.entries)] == short.entries
    assert long.named[:3] == short.named
    assert len(set(long.entries)) == len(long.entries)
    questions = language.questionnaire("test", 5)
    assert all(objects for line in questions.named for _, objects in line)
    assert any(entry.kind.startswith("absent") for entry in questions.entries)
    assert isinstance(long.entries[0], Phrase)


def test_wrong_settings_are_sentences() -> None:
    with pytest.raises(UserError, match="did you mean 'test'"):
        language.phrasebook("tset", 3)
    with pytest.raises(UserError, match="count=0 scenes"):
        language.questionnaire("test", 0)
