"""Two networks that talk about scenes, with one pair of eyes: a captioner and one that answers questions.

The captioner gives what the eyes (`models.eyes`) saw to an LSTM as its first input, and then the words one by one, as
neuraltalk2 does, which Selvaraju et al. explain (2020, sec. 8.1). The other multiplies what it saw by what an LSTM
made of the question, element by element, and answers by one linear layer, as the VQA network that they explain does
(Antol et al. 2015; sec. 8.2 there). Neither has attention: that they see where is for Grad-CAM to find out.

`Telling` and `Answering` bind them to a closed list of phrases, or of questions with answers: ordinary networks with
one output each, the log-probability, which is what a run asks of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gradcam_bench.errors import UserError
from gradcam_bench.language import (
    ANSWERS,
    END,
    QUESTION_WORDS,
    START,
    VOCABULARY,
    Phrase,
    Question,
    phrasebook,
    questionnaire,
)
from gradcam_bench.models.eyes import SEEN, Eyes
from gradcam_bench.models.network import Network, Preprocessing, fingerprint

WEIGHTS = Path(__file__).parent / "weights" / "scenes_language.safetensors"
HIDDEN, WIDTH = 384, 256  # of the gist, on the way and at its end; the LSTM that speaks is as wide
ASKED = 128  # of the LSTM that hears the question
LONGEST = 6  # words of a question; shorter ones are filled up in front, as the VQA network's are
LAYER = "eyes.look"


def _gist() -> nn.Sequential:
    """What a speaker takes from what is seen, [N,SEEN] -> [N,WIDTH]."""
    return nn.Sequential(
        nn.Linear(SEEN, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH)
    )


class Captioner(nn.Module):
    """Images [N,3,224,224] -> what is seen [N,SEEN], of which `score` and `say` speak."""

    def __init__(self, eyes: Eyes | None = None) -> None:
        super().__init__()
        self.eyes = eyes or Eyes()
        self.image = _gist()
        self.embed = nn.Embedding(len(VOCABULARY), WIDTH)
        self.cell = nn.LSTMCell(WIDTH, WIDTH)
        self.word = nn.Linear(WIDTH, len(VOCABULARY))

    def forward(self, images: Tensor) -> Tensor:
        return self.eyes(images)

    def begin(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The LSTM's state (h, c), each [N,WIDTH], before the first word."""
        return self.hear(self.cell(self.image(seen)), torch.full((len(seen),), VOCABULARY.index(START)))

    def hear(self, state: tuple[Tensor, Tensor], words: Tensor) -> tuple[Tensor, Tensor]:
        """The state after one more word each, [N] in VOCABULARY."""
        return self.cell(self.embed(words.to(state[0].device)), state)

    def next(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """Log-probabilities [N,V] of the next word."""
        return self.word(state[0]).log_softmax(-1)

    def score(self, seen: Tensor, words: Sequence[str], start: int = 0) -> Tensor:
        """[N]: log-probability of words[start:], said after words[:start]."""
        state, total = self.begin(seen), seen.new_zeros(len(seen))
        for t, word in enumerate(words):
            index = VOCABULARY.index(word)
            if t >= start:
                total = total + self.next(state)[:, index]
            state = self.hear(state, torch.full((len(seen),), index))
        return total

    @torch.inference_mode()
    def say(self, images: Tensor, longest: int = 12) -> list[tuple[str, ...]]:
        """Each image's caption, the likeliest word at a time."""
        state, said = self.begin(self(images)), []
        for _ in range(longest):
            said.append(self.next(state).argmax(1))
            state = self.hear(state, said[-1])
        lines = [[VOCABULARY[k] for k in line] for line in torch.stack(said, 1).tolist()]
        return [tuple(line[: line.index(END)] if END in line else line) for line in lines]


class Answerer(nn.Module):
    """Images [N,3,224,224] -> what is seen [N,SEEN], about which `score` and `reply` answer."""

    def __init__(self, eyes: Eyes | None = None) -> None:
        super().__init__()
        self.eyes = eyes or Eyes()
        self.embed = nn.Embedding(len(QUESTION_WORDS) + 1, ASKED // 2, padding_idx=0)
        self.lstm = nn.LSTM(ASKED // 2, ASKED, batch_first=True)
        self.asked = nn.Linear(ASKED, WIDTH)
        self.image = _gist()
        self.answer = nn.Linear(WIDTH, len(ANSWERS))

    def forward(self, images: Tensor) -> Tensor:
        return self.eyes(images)

    def understand(self, questions: Tensor) -> Tensor:
        """[Q,WIDTH] of questions [Q,LONGEST] as `spelt`."""
        return self.asked(self.lstm(self.embed(questions))[0][:, -1]).tanh()

    def answers(self, seen: Tensor, understood: Tensor) -> Tensor:
        """Log-probabilities of ANSWERS, of what is seen [N,SEEN] and asked [N,WIDTH]; or asked of each, [Q,1,WIDTH]."""
        return self.answer(self.image(seen).tanh() * understood).log_softmax(-1)

    def score(self, seen: Tensor, question: Sequence[str], answer: str) -> Tensor:
        """[N]: log-probability of the answer."""
        understood = self.understand(spelt([question]).to(seen.device))
        return self.answers(seen, understood)[:, ANSWERS.index(answer)]

    @torch.inference_mode()
    def reply(self, images: Tensor, question: Sequence[str]) -> list[str]:
        """Each image's likeliest answer."""
        found = self.answers(self(images), self.understand(spelt([question]).to(images.device)))
        return [ANSWERS[k] for k in found.argmax(1).tolist()]


def spelt(questions: Sequence[Sequence[str]]) -> Tensor:
    """[Q,LONGEST] int64: places in QUESTION_WORDS from 1 on, 0 in front."""
    lines = [[QUESTION_WORDS.index(word) + 1 for word in question] for question in questions]
    return torch.tensor([[0] * (LONGEST - len(line)) + line for line in lines], dtype=torch.int64)


class Telling(nn.Module):
    """[N,K]: the log-probability of each of K phrases. A beginning that several share is heard once."""

    def __init__(self, captioner: Captioner, phrases: Sequence[Phrase]) -> None:
        super().__init__()
        self.captioner = captioner
        self.spans: Tensor
        heard = dict.fromkeys(one.words[:t] for one in phrases for t in range(1, len(one.words) + 1))
        leading = {words[:-1] for words in heard}
        self.depth = max(len(words) for words in heard)
        before: list[tuple[str, ...]] = [()]  # beginnings whose state is known
        place: dict[tuple[str, ...], int] = {}
        for depth in range(1, self.depth + 1):
            level = [words for words in heard if len(words) == depth]
            place |= {words: len(place) + n for n, words in enumerate(level)}
            going = [n for n, words in enumerate(level) if words in leading]
            for name, numbers in (
                ("after", [before.index(words[:-1]) for words in level]),
                ("word", [VOCABULARY.index(words[-1]) for words in level]),
                ("going", going),
            ):
                self.register_buffer(f"{name}{depth}", torch.tensor(numbers, dtype=torch.int64))
            before = [level[n] for n in going]
        spans = torch.zeros(len(heard), len(phrases))
        for k, one in enumerate(phrases):
            spans[[place[one.words[: t + 1]] for t in range(one.start, len(one.words))], k] = 1
        self.register_buffer("spans", spans)

    def forward(self, images: Tensor) -> Tensor:
        state = self.captioner.begin(self.captioner(images))
        state = (state[0][:, None], state[1][:, None])  # [N,n,WIDTH]: of n beginnings
        said = []
        for depth in range(1, self.depth + 1):
            after, word, going = (getattr(self, f"{name}{depth}") for name in ("after", "word", "going"))
            said.append(self.captioner.next(state)[:, after, word])
            state = self._hear(state, after[going], word[going])
        return torch.cat(said, 1) @ self.spans

    def _hear(self, state: tuple[Tensor, Tensor], after: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
        size = len(state[0]), len(after)
        flat = (state[0][:, after].flatten(0, 1), state[1][:, after].flatten(0, 1))
        h, c = self.captioner.hear(flat, word.repeat(size[0]))
        return h.unflatten(0, size), c.unflatten(0, size)


class Answering(nn.Module):
    """[N,K]: the log-probability of each of K answers to its question."""

    def __init__(self, answerer: Answerer, pairs: Sequence[Question]) -> None:
        super().__init__()
        self.answerer = answerer
        self.questions: Tensor
        self.chosen: Tensor
        questions = list(dict.fromkeys(pair.words for pair in pairs))
        number = {words: n for n, words in enumerate(questions)}
        self.register_buffer("questions", spelt(questions))
        chosen = [number[pair.words] * len(ANSWERS) + ANSWERS.index(pair.answer) for pair in pairs]
        self.register_buffer("chosen", torch.tensor(chosen, dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        understood = self.answerer.understand(self.questions)
        found = self.answerer.answers(self.answerer(images), understood[:, None])  # [Q,N,A]
        return found.transpose(0, 1).flatten(1)[:, self.chosen]


def talkers(weights: Path | None = WEIGHTS) -> tuple[Captioner, Answerer]:
    """Both, ready for use, with one pair of eyes; weights None: untrained (the same every time), but for the shapes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        captioner = Captioner()
        answerer = Answerer(captioner.eyes)
    known = load_file(WEIGHTS.with_name("scenes_gap.safetensors"))
    for number, part in enumerate(("stem", "layer1", "layer2", "layer3", "layer4")):
        captioner.eyes.shapes[number].load_state_dict(_below(known, f"{part}."))
    if weights is not None:
        tensors = load_file(weights)
        for name in ("colours", "what", "paint", "look", "even"):
            captioner.eyes.get_submodule(name).load_state_dict(_below(tensors, f"eyes.{name}."))
        for name, module in (("captioner", captioner), ("answerer", answerer)):
            for part, child in module.named_children():
                if part != "eyes":
                    child.load_state_dict(_below(tensors, f"{name}.{part}."))
    return captioner.eval(), answerer.eval()


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it; half precision becomes float32."""
    found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}


def facts(weights: Path = WEIGHTS) -> dict[str, str]:
    """What the file says of itself."""
    with safe_open(weights, "pt") as file:
        return dict(file.metadata())


def captioner(name: str, split: str, count: int, weights: str | None = "DEFAULT", layer: str | None = None) -> Network:
    """The captioner with one output for each phrase of a split's first `count` clear scenes, as `dataset=captions` has
    them. weights: DEFAULT (those that come along), a local file, or none."""
    entries = phrasebook(split, count).entries
    module = Telling(talkers(_file(weights))[0], entries)
    return _network(name, module, f"captioner.{LAYER}", layer, tuple(one.said for one in entries))


def answerer(name: str, split: str, count: int, weights: str | None = "DEFAULT", layer: str | None = None) -> Network:
    """The answerer with one output for each answer to a question of `dataset=answers`; parameters as of `captioner`."""
    entries = questionnaire(split, count).entries
    module = Answering(talkers(_file(weights))[1], entries)
    return _network(name, module, f"answerer.{LAYER}", layer, tuple(one.said for one in entries))


def _file(weights: str | None) -> Path | None:
    if weights in (None, "none"):
        return None
    path = WEIGHTS if weights == "DEFAULT" else Path(str(weights)).expanduser()
    if not path.is_file():
        raise UserError(f"model.weights: {path} is not there (a file, DEFAULT, or none)")
    return path


def _network(name: str, module: nn.Module, look: str, layer: str | None, classes: tuple[str, ...]) -> Network:
    recipe = Preprocessing("warp", 224, None, "bilinear")
    return Network(name, module.eval(), recipe, layer or look, fingerprint(name, module), "exp", classes)
