"""Train the two networks for scenes from image-level labels alone and write their weights.

    python scripts/train_scenes.py --net both --threads 2
    python scripts/train_scenes.py --net scenes_fc --resume --epochs 0 7 --lr 0.002 --seed 2
    python scripts/train_scenes.py --net scenes_gap --permute-labels --pictures 320 --epochs 0 80 --lr 0.003

Pictures are drawn once, warped to 224x224 and held in memory (2.4 GB at the default 16,000); masks and boxes are never
looked at. The shapes are told apart by outline only, so mirroring, small shifts, swapped channels and inverted colours
keep the labels. A second linear head on the spatial maximum of the default layer, thrown away afterwards, shares the
labels with the network's own head: it starts the learning sooner. The first epochs see the pictures at half size, a
quarter of the cost; the F1 after each epoch is always at full size, so it stays low until those are over.

With --permute-labels the labels are dealt out to the pictures at random and learnt by heart, without augmentation: the
twin of the data randomisation test (Adebayo et al. 2018, section 4.2), which stops once it knows 99 % of the pictures.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from gradcam_bench.datasets import scenes
from gradcam_bench.models.scenes_nets import scenes_fc, scenes_gap

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# name -> constructor, default layer, its channels, epochs at half size and at full size
NETS: dict[str, tuple[Callable[[], nn.Module], str, int, tuple[int, int]]] = {
    "scenes_gap": (scenes_gap, "layer4", 128, (12, 6)),
    "scenes_fc": (scenes_fc, "features.20", 64, (10, 7)),
}
HELD_OUT = 1000  # pictures of val after every epoch, and of test at the end
Log = Callable[[str], None]
Pictures = tuple[Tensor, Tensor]  # uint8 [N,3,224,224], float32 [N,K] of 0 and 1


def picture(index: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One warped picture, uint8 [3,224,224], and its multi-label target, float32 [K]."""
    scene = scenes.draw(index, seed)
    image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float()
    warped = functional.interpolate(image, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    target = np.zeros(len(scenes.CLASSES), dtype=np.float32)
    target[list(scene.labels)] = 1
    return warped[0].round().clamp(0, 255).byte().numpy(), target


def pictures(split: str, count: int, threads: int) -> Pictures:
    """The first `count` pictures of a split, drawn by `threads` processes."""
    images = np.empty((count, 3, SIZE, SIZE), dtype=np.uint8)
    targets = np.empty((count, len(scenes.CLASSES)), dtype=np.float32)
    with ProcessPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        drawn = pool.map(partial(picture, seed=scenes.SPLIT_SEEDS[split]), range(count), chunksize=64)
        for index, (image, target) in enumerate(drawn):
            images[index], targets[index] = image, target
    return torch.from_numpy(images), torch.from_numpy(targets)


def normalised(images: Tensor) -> Tensor:
    """uint8 [N,3,H,W] -> float32, ImageNet mean and std, channels last."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(images: Tensor) -> Tensor:
    """The batch mirrored or not and shifted; channels swapped and inverted picture by picture."""
    flip, down, right = (int(torch.randint(low, high, ())) for low, high in ((0, 2), (-16, 17), (-16, 17)))
    images = (images.flip(3) if flip else images).roll((down, right), (2, 3))
    order = torch.rand(len(images), 3).argsort(1)
    images = images[torch.arange(len(images))[:, None], order]
    invert = torch.rand(len(images), 1, 1, 1) < 0.3
    return torch.where(invert, 255 - images, images)


@torch.inference_mode()
def f1(net: nn.Module, data: Pictures) -> tuple[float, float]:
    """Micro and macro F1 at sigmoid 0.5."""
    net.eval()
    said = torch.cat([net(normalised(batch)) > 0 for batch in data[0].split(100)])
    true = data[1] > 0
    hits, total = (said & true).sum(0).double(), (said.sum(0) + true.sum(0)).double()
    return float(2 * hits.sum() / total.sum()), float((2 * hits / total.clamp(min=1)).mean())


class WithPeaks(nn.Module):
    """A network beside a linear head on the spatial maximum [N,C] of its layer; both give logits [N,K]."""

    def __init__(self, net: nn.Module, layer: str, channels: int) -> None:
        super().__init__()
        self.net = net
        self.head = nn.Linear(channels, len(scenes.CLASSES))
        self.peaks = torch.empty(0)
        net.get_submodule(layer).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.peaks = output.amax((2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), self.head(self.peaks)


def permuted(data: Pictures, seed: int) -> Pictures:
    """The pictures with one another's labels."""
    return data[0], data[1][torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(seed))]


@torch.inference_mode()
def known(net: nn.Module, data: Pictures) -> float:
    """The share of pictures all of whose labels are told right, at sigmoid 0.5."""
    net.eval()
    said = torch.cat([net(normalised(batch)) > 0 for batch in data[0].split(100)])
    return float((said == (data[1] > 0)).all(1).float().mean())


def epoch(
    net: WithPeaks, data: Pictures, batch: int, half: bool, step: Callable[[Tensor], None], plain: bool = False
) -> float:
    """One pass over the pictures; the mean loss of the network's own head. plain: without augmentation."""
    net.train()
    losses = []
    for chosen in torch.randperm(len(data[0])).split(batch):
        images = data[0][chosen]
        if half:
            images = functional.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
        with torch.autocast("cpu", torch.bfloat16):
            answers = net(normalised(images if plain else augmented(images)))
        own, peaks = (functional.binary_cross_entropy_with_logits(x.float(), data[1][chosen]) for x in answers)
        step(own + peaks)
        losses.append(own.item())
    return float(np.mean(losses))


def train(name: str, data: Pictures, val: Pictures, options: argparse.Namespace, log: Log) -> nn.Module:
    """Train one network with AdamW and a one-cycle schedule."""
    torch.manual_seed(options.seed)
    build, layer, channels, stages = NETS[name]
    half, full = options.epochs or stages
    net = build().to(memory_format=torch.channels_last)
    if options.resume:
        net.load_state_dict(load_file(options.out / f"{name}.safetensors"))
    both = WithPeaks(net, layer, channels)
    by_heart = options.permute_labels
    optimizer = torch.optim.AdamW(both.parameters(), lr=options.lr, weight_decay=0.0 if by_heart else 0.05)
    steps = (half + full) * -(-len(data[0]) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=steps, pct_start=0.1)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    for number in range(1, half + full + 1):
        start = time.monotonic()
        loss = epoch(both, data, options.batch, number <= half, step, by_heart)
        if by_heart:
            share = known(net, data)
            log(f"{label(name, options)} epoch {number}/{half + full} loss {loss:.4f} known {share:.4f}")
            if share >= 0.99:
                break
            continue
        micro, macro = f1(net, val)
        seconds = time.monotonic() - start
        scores = f"loss {loss:.4f} val f1 micro {micro:.4f} macro {macro:.4f}"
        log(f"{name} epoch {number}/{half + full} {scores} {seconds:.0f} s")
    return net


def label(name: str, options: argparse.Namespace) -> str:
    """What the weights are called."""
    return f"{name}_permuted" if options.permute_labels else name


def save(net: nn.Module, name: str, micro: float, macro: float, folder: Path, **more: str) -> Path:
    """Write weights with what a reader needs to use them. more: further facts, under `called` the file's own name."""
    facts = {
        "version": str(scenes.VERSION),
        "classes": json.dumps(scenes.CLASSES),
        "input_size": str(SIZE),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "default_layer": NETS[name][1],
        "f1_micro": f"{micro:.4f}",
        "f1_macro": f"{macro:.4f}",
        "f1_on": f"the first {HELD_OUT} scenes of split test, sigmoid 0.5",
    }
    path = folder / f"{more.pop('called', name)}.safetensors"
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path, metadata=facts | more)
    return path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=[*NETS, "both"], default="both")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=16_000)
    parser.add_argument("--epochs", type=int, nargs=2, metavar=("HALF", "FULL"), help="at half and at full size")
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    parser.add_argument("--permute-labels", action="store_true", help="the twin that learns random labels by heart")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(scenes.__file__).parents[1] / "models" / "weights")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    data, val, test = (
        pictures(split, count, options.threads)
        for split, count in (("train", options.pictures), ("val", HELD_OUT), ("test", HELD_OUT))
    )
    names = list(NETS) if options.net == "both" else [options.net]
    journal = options.out / "training_log.txt"
    old = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    written = [label(name, options) for name in names]
    journal.write_text("".join(line for line in old if options.resume or line.split()[0] not in written))
    if options.permute_labels:
        data = permuted(data, options.seed)

    def log(line: str) -> None:
        print(line, flush=True)
        with journal.open("a") as file:
            file.write(line + "\n")

    for name in names:
        settings = f"{options.pictures} pictures, batch {options.batch}, lr {options.lr}, seed {options.seed}"
        settings += " (resumed)" if options.resume else ""
        called = label(name, options)
        log(f"{called} scenes version {scenes.VERSION}, {settings}")
        net = train(name, data, val, options, log)
        micro, macro = f1(net, test)
        log(f"{called} final test f1 micro {micro:.4f} macro {macro:.4f}")
        facts = {"labels": "permuted", "known": f"{known(net, data):.4f}"} if options.permute_labels else {}
        save(net, name, micro, macro, options.out, called=called, **facts)


if __name__ == "__main__":
    main()
