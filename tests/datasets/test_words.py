"""Cases that are words: their boxes and masks are those of the objects that the words name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradcam_bench import language
from gradcam_bench.datasets.words import answers, captions
from gradcam_bench.drawing import SPLIT_SEEDS
from gradcam_bench.errors import UserError


def test_a_words_region_is_the_named_object() -> None:
    data = captions("val", 3)
    assert len(data.classes) == len(data.kinds) == len(data.book.entries)
    for index, scene in enumerate(language.told(SPLIT_SEEDS["val"], 3)):
        picture = data.read(index, masks=True)
        assert np.array_equal(np.asarray(picture.image), scene.image)
        known = picture.annotation
        assert known.masks is not None
        assert known.mask_labels is not None
        told = language.caption(scene.things)
        for t, (word, kind, objects) in enumerate(told):
            words = tuple(w for w, _, _ in told[: t + 1])
            number = data.book.entries.index(language.Phrase(words, t, kind))
            assert data.classes[number] == word
            assert number in known.classes
            region = known.masks[known.mask_labels == number].any(0)
            expected = np.isin(scene.scene.instances, [k + 1 for k in objects])
            assert torch.equal(region, torch.from_numpy(expected))
            boxes = scene.scene.boxes[list(objects)]
            assert known.boxes[known.labels == number].tolist() == boxes.tolist()


def test_an_answers_region_and_name() -> None:
    data = answers("val", 4)
    for name, entry in zip(data.classes, data.book.entries, strict=True):
        assert name.startswith(f"{' '.join(entry.words)}? {entry.answer}")
        assert name.endswith("(absent)") == entry.kind.startswith("absent")
    known = data.annotate(0, masks=True)
    assert known.masks is not None
    assert len(known.masks) == len(known.boxes) >= len(known.classes)
    assert data.annotate(0).masks is None


def test_a_data_set_of_words_is_the_same_every_time() -> None:
    first = captions("test", 2)
    assert first.fingerprint() == captions("test", 2).fingerprint()
    assert first.fingerprint() != captions("test", 3).fingerprint()
    assert first.read(1).digest == captions("test", 3).read(1).digest
    assert first.ids == ["scene_000001", "scene_000009"]


def test_only_the_kinds_that_are_asked_for_are_cases() -> None:
    whole, some = captions("val", 3), captions("val", 3, kinds=["phrase", "position"])
    assert some.classes == whole.classes
    for index in range(3):
        kept = [c for c in whole.annotate(index).classes if whole.kinds[c] in ("phrase", "position")]
        found = some.annotate(index, masks=True)
        assert list(found.classes) == kept
        assert found.mask_labels is not None
        assert set(found.labels.tolist()) == set(found.mask_labels.tolist()) == set(kept)
    assert some.fingerprint() != whole.fingerprint()
    with pytest.raises(UserError, match=r"unknown kind of dataset\.kinds 'colours'"):
        answers("val", 2, kinds=["colours"])
