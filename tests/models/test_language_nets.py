"""The captioner and the answerer: what their outputs are, and that what comes along does what is said of it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import gradcam_bench as gb
from gradcam_bench import language
from gradcam_bench.choices import View
from gradcam_bench.datasets.words import Words, answers, captions
from gradcam_bench.language import ANSWERS, VOCABULARY
from gradcam_bench.models import language_nets
from gradcam_bench.models.eyes import CHANNELS, sides
from gradcam_bench.models.language_nets import LAYER, WIDTH, Answering, Captioner, Telling, talkers
from gradcam_bench.models.network import Preprocessing

SCENES = 50


@cache
def fed(count: int) -> tuple[Words, Tensor]:
    """Held-out scenes and their pixels [N,3,224,224]."""
    data = captions("val", count)
    preprocessing = Preprocessing("warp", 224, None)
    return data, torch.stack([preprocessing(data.read(n).image, View())[0] for n in range(count)])


def scores_slowly(captioner: Captioner, image: Tensor, words: tuple[str, ...]) -> list[float]:
    """log p of each word of a sentence said of one image [3,224,224], by the gates of the LSTM written out."""
    cell, state = captioner.cell, captioner.state_dict()
    h, c = torch.zeros(WIDTH), torch.zeros(WIDTH)
    inputs = [captioner.image(captioner(image[None]))[0], state["embed.weight"][VOCABULARY.index("<start>")]]
    found = []
    for word in words:
        for x in inputs:
            gates = cell.weight_ih @ x + cell.bias_ih + cell.weight_hh @ h + cell.bias_hh
            i, f, g, o = gates.split(WIDTH)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        logits = state["word.weight"] @ h + state["word.bias"]
        found.append(float(logits[VOCABULARY.index(word)] - logits.exp().sum().log()))
        inputs = [state["embed.weight"][VOCABULARY.index(word)]]
    return found


def test_what_the_eyes_hand_over_by_hand() -> None:
    """Of a grid that is 5 at one place of 14x14 and 0 elsewhere; and exchanged where the grid is mirrored."""
    grid = torch.zeros(1, CHANNELS, 14, 14)
    grid[0, 3, 0, 13] = 5  # at the top, rightmost
    grid[0, 7, 13, 0] = 2
    means = (grid.flatten(2) @ sides(grid))[0]
    torch.testing.assert_close(means[3] * 196, torch.tensor([0.0, 5, 5, 0]))  # left, right, top, bottom
    torch.testing.assert_close(means[7] * 196, torch.tensor([2.0, 0, 0, 2]))
    assert not means[0].any()
    other = (grid.flip(3).flatten(2) @ sides(grid))[0]
    torch.testing.assert_close(other, means[:, [1, 0, 2, 3]])
    anything = torch.rand(1, CHANNELS, 14, 14, generator=torch.Generator().manual_seed(0))
    left, right, top, bottom = (anything.flatten(2) @ sides(anything))[0].T
    torch.testing.assert_close(left + right, anything.mean((2, 3))[0])
    torch.testing.assert_close(top + bottom, anything.mean((2, 3))[0])


def test_a_phrase_scores_as_by_a_slow_loop() -> None:
    captioner, _ = talkers()
    _, images = fed(2)
    words = ("a", "red", "ring", "left", "of", "a", "blue", "star")
    with torch.no_grad():
        slow = [scores_slowly(captioner, image, words) for image in images]
        seen = captioner(images)
        for start, stop in ((0, 1), (2, 3), (3, 4), (0, 8), (5, 8)):
            fast = captioner.score(seen, words[:stop], start)
            assert fast.tolist() == pytest.approx([sum(line[start:stop]) for line in slow], abs=1e-4)


def test_bound_networks_have_an_output_a_phrase_and_an_answer() -> None:
    captioner, answerer = talkers()
    data, images = fed(3)
    told, asked = data.book.entries, answers("val", 3).book.entries
    with torch.no_grad():
        seen = captioner(images)
        said = [captioner.score(seen, one.words, one.start) for one in told]
        torch.testing.assert_close(Telling(captioner, told).eval()(images), torch.stack(said, 1))
        answered = [answerer.score(seen, one.words, one.answer) for one in asked]
        torch.testing.assert_close(Answering(answerer, asked).eval()(images), torch.stack(answered, 1))


def test_grad_cam_of_a_word_by_plain_autograd_and_its_counterfactual() -> None:
    captioner, _ = talkers()
    _, images = fed(2)
    sentence = "a red ring left of a blue star"
    target = gb.targets.phrase(captioner, sentence, 2, 3)
    found = gb.explain(captioner, images, [target] * 2, ["grad_cam", "counterfactual_grad_cam"], LAYER)
    kept = []
    handle = captioner.eyes.look.register_forward_hook(lambda _m, _i, output: kept.append(output))
    score = captioner.score(captioner(images), sentence.split()[:3], 2)
    handle.remove()
    gradient = torch.autograd.grad(score.sum(), kept[0])[0]
    expected = torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), kept[0].detach())
    assert expected.abs().max() > 0
    torch.testing.assert_close(found["grad_cam"], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["counterfactual_grad_cam"], -found["grad_cam"], rtol=1e-4, atol=1e-6)


def test_other_methods_take_words_for_targets() -> None:
    captioner, answerer = talkers()
    _, images = fed(2)
    methods = ["grad_cam_pp", "layer_cam", "guided_grad_cam", "occlusion", "ablation_cam"]
    word = gb.targets.phrase(captioner, "a red ring", 2)
    answer = gb.targets.answer(answerer, "what colour is the ring?", "red")
    for net, target in ((captioner, word), (answerer, answer)):
        for heatmaps in gb.explain(net, images, [target] * 2, methods, LAYER).values():
            assert heatmaps.isfinite().all()
            assert heatmaps.any()


def test_what_comes_along_says_what_it_was_trained_for() -> None:
    facts = language_nets.facts()
    assert facts["version"] == str(language.VERSION)
    assert facts["vocabulary"] == str(list(VOCABULARY)).replace("'", '"')
    assert facts["answers"] == str(list(ANSWERS)).replace("'", '"')
    files = language_nets.WEIGHTS.parent.glob("scenes_language*")
    assert sum(path.stat().st_size for path in files) < 4e6


def test_words_and_answers_are_as_good_as_stated_and_need_the_picture() -> None:
    import json

    stated = json.loads(language_nets.facts()["shares"])
    captioner, answerer = talkers()
    data, images = fed(SCENES)
    with torch.inference_mode():
        seen = torch.cat([captioner(batch) for batch in images.split(25)])
        right: dict[str, list[bool]] = {}
        for n, scene in enumerate(language.told(data.book.seed, SCENES)):
            told = language.caption(scene.things)
            words = [word for word, _, _ in told]
            state = captioner.begin(seen[n : n + 1])
            for word, kind, _ in told:
                said = VOCABULARY[int(captioner.next(state).argmax())]
                right.setdefault(f"word {kind}", []).append(said == word)
                state = captioner.hear(state, torch.tensor([VOCABULARY.index(word)]))
            assert len(words) in (7, 8)
            for question, _ in language.asked(scene.things, language.painter(0, scene.index, 2)):
                found = answerer.answers(seen[n : n + 1], answerer.understand(language_nets.spelt([question.words])))
                answer = ANSWERS[int(found.argmax())]
                right.setdefault(f"answer {question.kind}", []).append(answer == question.answer)
    assert set(right) == {name for name in stated if not name.endswith("blind") and name != "caption"}
    for name, each in right.items():
        share, room = stated[name], 3 * (stated[name] * (1 - stated[name]) / len(each)) ** 0.5  # three deviations
        assert sum(each) / len(each) >= share - max(room, 0.1), name
        if name != "word function":  # given the words before
            assert share > stated[f"{name} blind"] + 0.15, name


def test_grad_cam_of_shapes_points_at_them() -> None:
    """Better than the picture's centre does, on scenes that it was not trained on."""
    data, images = fed(SCENES)
    module = Telling(talkers()[0], data.book.entries).eval()
    hits: dict[str, list[bool]] = {"grad_cam": [], "center": []}
    for n in range(SCENES):
        known = data.annotate(n, masks=True)
        assert known.masks is not None
        assert known.mask_labels is not None
        classes = [c for c in known.classes if data.kinds[c] == "shape"]
        look = f"captioner.{LAYER}"
        maps = gb.explain(
            module, images[[n]], classes, list(hits), look, image_index=torch.zeros(len(classes), dtype=torch.int64)
        )
        for label, grids in maps.items():
            for c, heatmap in zip(classes, gb.resize(gb.rectify(grids), known.size), strict=True):
                y, x = divmod(int(heatmap.argmax()), known.size[1])
                hits[label].append(bool(known.masks[known.mask_labels == c][:, y, x].any()))
    shares = {label: sum(each) / len(each) for label, each in hits.items()}
    assert shares["grad_cam"] > shares["center"] + 0.4, shares


def test_wrong_settings_are_sentences() -> None:
    with pytest.raises(gb.UserError, match=r"model\.weights: .*nowhere is not there"):
        language_nets.captioner("captioner", "val", 2, "nowhere")
    with pytest.raises(gb.UserError, match="unknown split of scenes 'vla'"):
        language_nets.answerer("answerer", "vla", 2)
    network = language_nets.answerer("answerer", "val", 2, "none")
    assert network.activation == "exp"
    assert not network.compares
    again = language_nets.answerer("answerer", "val", 2, "none")
    assert again.digest == network.digest != language_nets.answerer("answerer", "val", 3, "none").digest
