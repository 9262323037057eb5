"""Train the captioner and the answerer for scenes, together, and write their weights.

    python scripts/train_language.py --threads 2

The layers of scenes_gap, which know shapes, stay as they are: what they give of each scene, and of the same mirrored,
is computed once, and all else is trained on that in a few minutes. Scenes are drawn once, warped to 224x224 and held in
memory (3 GB with what the layers give); masks and boxes are never looked at in training: a
caption and the questions of several draws are all there is. Mirrored scenes are told with left and right exchanged.

What is reported, on held-out scenes: the share of caption words told right after the true ones before them, by kind; of
whole captions told right by themselves; of questions answered right, by kind; and beside each the same for a blind
listener, which knows words and questions of the training scenes but no picture (the commonest word after the same words
before, the commonest answer to the same question).
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from gradcam_bench import language
from gradcam_bench.datasets.scenes import SPLIT_SEEDS
from gradcam_bench.language import ANSWERS, COLOURS, END, QUESTION_WORDS, RELATIONS, SHAPES, VOCABULARY, Painted
from gradcam_bench.models import language_nets
from gradcam_bench.models.eyes import SEEN, Eyes
from gradcam_bench.models.language_nets import Answerer, Captioner

SIZE, MEAN, STD = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DRAWS = 3  # of questions a training scene
HELD_OUT = 400
KINDS = ("colour", "shape", "position", "function")
Log = Callable[[str], None]


def warped(scene: Painted) -> np.ndarray:
    image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float()
    warped = functional.interpolate(image, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    return warped[0].round().clamp(0, 255).byte().numpy()


def scene(index: int, seed: int, draws: int) -> tuple[np.ndarray, list, list] | None:
    """Pixels uint8 [3,224,224], the caption's (word, kind, objects), questions; None where the scene is not clear."""
    found = language.painted(index, seed)
    if found is None:
        return None
    rng = language.painter(seed, index, 2)
    questions = [one for _ in range(draws) for one, _ in language.asked(found.things, rng)]
    return warped(found), language.caption(found.things), questions


class Lessons:
    """The first `count` clear scenes of a split: images uint8 [N,3,224,224]; captions; questions."""

    def __init__(self, split: str, count: int, draws: int, threads: int) -> None:
        self.images = torch.empty((count, 3, SIZE, SIZE), dtype=torch.uint8)
        self.captions: list = []
        self.questions: list = []
        with ProcessPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            work = partial(scene, seed=SPLIT_SEEDS[split], draws=draws)
            for start in range(0, 10**9, 2000):
                for made in pool.map(work, range(start, start + 2000), chunksize=50):
                    if len(self.captions) == count:
                        break
                    if made is not None:
                        self.images[len(self.captions)] = torch.from_numpy(made[0])
                        self.captions.append(made[1])
                        self.questions.append(made[2])
                if len(self.captions) == count:
                    pool.shutdown(cancel_futures=True)
                    break
        end = VOCABULARY.index(END)
        lines = [[VOCABULARY.index(word) for word, _, _ in line] for line in self.captions]
        self.words = torch.tensor([line + [end] * (9 - len(line)) for line in lines])  # [N,9]
        self.owner = torch.tensor([n for n, several in enumerate(self.questions) for _ in several])
        self.asked = language_nets.spelt([one.words for several in self.questions for one in several])
        self.answers = torch.tensor([ANSWERS.index(one.answer) for several in self.questions for one in several])


@torch.no_grad()
def known(eyes: Eyes, images: Tensor) -> tuple[Tensor, Tensor]:
    """What of images does not change in training: shapes [2,N,128,14,14] in bfloat16, of images as they are and
    mirrored, and the means of patches [N,3,56,56] in float16."""
    shapes = torch.empty(2, len(images), 128, 14, 14, dtype=torch.bfloat16)
    patches = torch.empty(len(images), 3, SIZE // 4, SIZE // 4, dtype=torch.float16)
    for start in range(0, len(images), 64):
        batch = normalised(images[start : start + 64])
        patches[start : start + 64] = eyes.patches(batch)
        with torch.autocast("cpu", torch.bfloat16):
            for number, seen in enumerate((batch, batch.flip(3))):
                shapes[number, start : start + 64] = eyes.shapes(seen)
    return shapes, patches


def exchanged(words: Iterable[str], offset: int = 0) -> Tensor:
    """Places of words, left and right exchanged."""
    names = [*([""] * offset), *words]
    other = {"left": "right", "right": "left"}
    return torch.tensor([names.index(other.get(name, name)) if name else n for n, name in enumerate(names)])


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return fast((images.float() - mean) / std)


def fast(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def told(captioner: Captioner, seen: Tensor, words: Tensor) -> Tensor:
    """Log-probabilities [N,T,V] of each next word after the true ones before."""
    state, found = captioner.begin(seen), []
    for t in range(words.shape[1]):
        found.append(captioner.next(state))
        state = captioner.hear(state, words[:, t])
    return torch.stack(found, 1)


class Reader(torch.nn.Module):
    """Maps from numbers [N,size] to what a caption says, thrown away after training: which colour and shape the
    first object has, as a pair, which the second, and where it is. One reads what is seen, one what is handed to the
    captioner's LSTM: both learn sooner from that than through the LSTM, and from pairs which colour goes with which."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.pairs = torch.nn.Linear(size, 2 * len(COLOURS) * len(SHAPES))
        hidden = torch.nn.Linear(size, 256)
        self.where = torch.nn.Sequential(hidden, torch.nn.ReLU(), torch.nn.Linear(256, len(RELATIONS)))

    def loss(self, read: Tensor, words: Tensor) -> Tensor:
        """Of numbers [N,size] and captions [N,9]."""
        last = (words != VOCABULARY.index(END)).sum(1)  # a caption has 7 words or 8
        first, second = self.pairs(read).chunk(2, 1)
        losses = [
            functional.cross_entropy(first, self.pair(words, torch.ones_like(last))),
            functional.cross_entropy(second, self.pair(words, last - 2)),
            2 * functional.cross_entropy(self.where(read), words[:, 3] - VOCABULARY.index(next(iter(RELATIONS)))),
        ]
        return torch.stack(losses).sum() / 4

    @staticmethod
    def pair(words: Tensor, place: Tensor) -> Tensor:
        """[N]: number of the colour at a place of each caption, and of the shape after it."""
        colour, shape = (words.gather(1, (place + step)[:, None])[:, 0] for step in (0, 1))
        beginnings = [VOCABULARY.index(next(iter(names))) for names in (COLOURS, SHAPES)]
        return (colour - beginnings[0]) * len(SHAPES) + shape - beginnings[1]


def mirrored(data: Lessons, chosen: Tensor, flip: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of scenes, some mirrored: captions [N,9]; the rows of their questions, these, and the answers to them."""
    words = torch.where(flip[:, None], exchanged(VOCABULARY)[data.words[chosen]], data.words[chosen])
    place = torch.full((len(data.words),), -1)
    place[chosen] = torch.arange(len(chosen))
    mine = (place[data.owner] >= 0).nonzero()[:, 0]
    rows = place[data.owner[mine]]
    asked = torch.where(flip[rows, None], exchanged(QUESTION_WORDS, 1)[data.asked[mine]], data.asked[mine])
    return words, rows, asked, data.answers[mine]


def spoken(captioner: Captioner, answerer: Answerer, seen: Tensor, told_: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Losses of captions and of answers about what is seen; told_: as of `mirrored`."""
    words, rows, asked, answers = told_
    captions = functional.nll_loss(told(captioner, seen, words).flatten(0, 1), words.flatten())
    questions, which = asked.unique(dim=0, return_inverse=True)
    understood = answerer.understand(questions)[which]
    return captions, functional.nll_loss(answerer.answers(seen[rows], understood), answers)


class Blind:
    """What is said most often in the same place."""

    def __init__(self, lessons: Iterable[tuple[Hashable, str]]) -> None:
        self.counts: dict[Hashable, Counter[str]] = defaultdict(Counter)
        for where, said in lessons:
            self.counts[where][said] += 1

    def __call__(self, where: Hashable) -> str:
        return self.counts[where].most_common(1)[0][0] if where in self.counts else ""


def _words(data: Lessons) -> list[tuple[tuple[str, ...], str]]:
    lines = [tuple(word for word, _, _ in line) for line in data.captions]
    return [(line[:t], line[t]) for line in lines for t in range(len(line))]


@torch.inference_mode()
def examine(captioner: Captioner, answerer: Answerer, data: Lessons, train: Lessons) -> dict[str, float]:
    """Shares right, by kind, and those of blind listeners (`... blind`)."""
    captioner.eval(), answerer.eval()
    seen = torch.cat([captioner(normalised(batch)) for batch in data.images.split(100)])
    right = told(captioner, seen, data.words).argmax(2) == data.words
    blind = Blind(_words(train))
    found: dict[str, list[float]] = defaultdict(list)
    for n, line in enumerate(data.captions):
        for t, (word, kind, _) in enumerate(line):
            found[f"word {kind}"].append(float(right[n, t]))
            found[f"word {kind} blind"].append(float(blind(tuple(w for w, _, _ in line[:t])) == word))
    said = [line for batch in data.images.split(100) for line in captioner.say(normalised(batch))]
    found["caption"] = [float(a == tuple(w for w, _, _ in b)) for a, b in zip(said, data.captions, strict=True)]
    chosen = answerer.answers(seen[data.owner], answerer.understand(data.asked)).argmax(1).tolist()
    blind = Blind((one.words, one.answer) for several in train.questions for one in several)
    for one, answer in zip((one for several in data.questions for one in several), chosen, strict=True):
        found[f"answer {one.kind}"].append(float(ANSWERS[answer] == one.answer))
        found[f"answer {one.kind} blind"].append(float(blind(one.words) == one.answer))
    return {name: float(np.mean(values)) for name, values in sorted(found.items())}


@torch.no_grad()
def begin(eyes: Eyes) -> None:
    """Where things are, at first: scenes_gap's own class maps, one after another, low where nothing is. Without that a
    small object's colour is lost in the background's for a long time."""
    fc = load_file(language_nets.WEIGHTS.with_name("scenes_gap.safetensors"))["fc.weight"]
    convolution, norm = eyes.what[0], eyes.what[1]
    assert isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d)  # noqa: PT018
    maps = fc[torch.arange(len(convolution.weight)) % len(fc)]
    convolution.weight[:, : fc.shape[1], 0, 0] = maps / maps.norm(dim=1, keepdim=True)
    norm.bias.fill_(-0.5)


def train(data: Lessons, options: argparse.Namespace, log: Log) -> tuple[Captioner, Answerer]:
    """AdamW, a one-cycle schedule; the shapes' layers stay as they are."""
    torch.manual_seed(options.seed)
    captioner, answerer = language_nets.talkers(None)
    eyes = captioner.eyes
    begin(eyes)
    eyes.shapes.requires_grad_(False)
    shapes, patches = known(eyes, data.images)
    log("shapes known")
    readers = [Reader(language_nets.WIDTH), Reader(SEEN)]
    nets = torch.nn.ModuleList([captioner, answerer, *readers])

    def losses(seen: Tensor, chosen: Tensor, flip: Tensor) -> list[Tensor]:
        words, *asked = mirrored(data, chosen, flip)
        return [*spoken(captioner, answerer, seen, (words, *asked)), readers[0].loss(captioner.image(seen), words)]

    def look(chosen: Tensor) -> Sequence[Tensor]:
        flip = torch.rand(len(chosen)) < 0.5
        small = torch.where(flip[:, None, None, None], patches[chosen].flip(3), patches[chosen])
        with torch.autocast("cpu", torch.bfloat16):
            seen = eyes.join(fast(shapes[flip.long(), chosen]), fast(small.float()))
        words = mirrored(data, chosen, flip)[0]
        return [*losses(seen, chosen, flip), readers[1].loss(seen, words)]

    lessons(look, nets, eyes, len(patches), options.epochs, options.batch, options.lr, log)
    with torch.no_grad():
        eyes.eval()
        seen = torch.empty(2, len(patches), SEEN)
        for chosen in torch.arange(len(patches)).split(100):
            for flip in (0, 1):
                small = patches[chosen].flip(3) if flip else patches[chosen]
                seen[flip, chosen] = eyes.join(shapes[flip, chosen].float(), small.float())
    eyes.requires_grad_(False)

    def speak(chosen: Tensor) -> Sequence[Tensor]:
        flip = torch.rand(len(chosen)) < 0.5
        blurred = seen[flip.long(), chosen]
        return losses(blurred + 0.3 * torch.randn_like(blurred), chosen, flip)

    lessons(speak, nets, eyes, len(patches), options.speaking, 128, 2 * options.lr, log)
    return captioner, answerer


def lessons(
    look: Callable[[Tensor], Sequence[Tensor]],
    nets: torch.nn.Module,
    eyes: Eyes,
    count: int,
    epochs: int,
    batch: int,
    lr: float,
    log: Log,
) -> None:
    """Epochs of AdamW under a one-cycle schedule on the sum of the losses that `look` finds for some of the scenes."""
    trained = [parameter for parameter in nets.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.02)
    steps = epochs * -(-count // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
    for number in range(1, epochs + 1):
        start, losses = time.monotonic(), []
        nets.train()
        eyes.shapes.eval()
        for chosen in torch.randperm(count).split(batch):
            found = look(chosen)
            optimizer.zero_grad()
            torch.stack(list(found)).sum().backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            losses.append([loss.item() for loss in found])
        means = " ".join(f"{loss:.3f}" for loss in np.mean(losses, axis=0))
        log(f"epoch {number}/{epochs} losses {means} {time.monotonic() - start:.0f} s")


def save(captioner: Captioner, answerer: Answerer, shares: dict[str, float], path: Path) -> None:
    """What was trained, in half precision."""
    parts = {"eyes": captioner.eyes, "captioner": captioner, "answerer": answerer}
    tensors = {
        f"{name}.{key}": value
        for name, module in parts.items()
        for key, value in module.state_dict().items()
        if not key.startswith(("eyes.", "shapes."))
    }
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in tensors.items()}
    metadata = {
        "version": str(language.VERSION),
        "vocabulary": json.dumps(VOCABULARY),
        "question_words": json.dumps(QUESTION_WORDS),
        "answers": json.dumps(ANSWERS),
        "input_size": str(SIZE),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "shares": json.dumps({name: round(value, 4) for name, value in shares.items()}),
        "shares_on": f"the first {HELD_OUT} clear scenes of split test",
    }
    save_file(tensors, path, metadata=metadata)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=10, help="of everything")
    parser.add_argument("--speaking", type=int, default=12, help="epochs of the LSTMs alone, on what the eyes then see")
    parser.add_argument("--examine", action="store_true", help="train nothing: say what the shipped weights get right")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=language_nets.WEIGHTS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    data = Lessons("train", options.scenes, DRAWS, options.threads)
    test = Lessons("test", HELD_OUT, 1, options.threads)
    lines: list[str] = []

    def log(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    log(f"{options.scenes} scenes, batch {options.batch}, lr {options.lr}, seed {options.seed}")
    if options.examine:
        for name, share in examine(*language_nets.talkers(options.out), test, data).items():
            print(f"test {name} {share:.4f}")
        return
    captioner, answerer = train(data, options, log)
    shares = examine(captioner, answerer, test, data)
    save(captioner, answerer, shares, options.out)
    captioner, answerer = language_nets.talkers(options.out)  # as they are shipped, in half precision
    shares = examine(captioner, answerer, test, data)
    save(captioner, answerer, shares, options.out)
    for name, share in shares.items():
        log(f"test {name} {share:.4f}")
    options.out.with_name(f"{options.out.stem}_log.txt").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
