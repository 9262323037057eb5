"""Kills a training at random moments (SIGKILL) and shows that it ends with the weights of an undisturbed one.

    python scripts/kill_and_resume_training.py [--kills 6] [--pictures 64] [--epochs 6] [overrides of `train`]

Trains twice into a temporary folder, on the CPU: once in peace, once killed `--kills` times and then let be. Compares
weights.safetensors and log.csv byte for byte; exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from kill_and_resume import harass, undisturbed

from gradcam_bench.training import learner, train  # noqa: F401  (imported before forking: a training starts at once)

FILES = ("weights.safetensors", "log.csv")


def command(folder: Path, pictures: int, epochs: int, extra: list[str]) -> list[str]:
    words = [f"results={folder}", "name=one", f"limit={pictures}", f"epochs={epochs}", "device=cpu", *extra]
    return ["train", *words]


def run(kills: int, pictures: int, epochs: int, seed: int, extra: list[str]) -> int:
    with tempfile.TemporaryDirectory() as place:
        calm, wild = Path(place) / "calm", Path(place) / "wild"
        seconds = undisturbed(command(calm, pictures, epochs, extra))
        moments = random.Random(seed)
        killed, ended = harass(command(wild, pictures, epochs, extra), kills, 0.7 * seconds, moments)
        log = wild / "train" / "one" / "log.csv"
        kept = len(log.read_text().splitlines()) - 2 if log.is_file() else 0
        undisturbed(command(wild, pictures, epochs, extra))
        read = {name: [(home / "train" / "one" / name).read_bytes() for home in (calm, wild)] for name in FILES}
        differing = [name for name, (one, other) in read.items() if one != other]
        print(f"{epochs} epochs of {pictures} pictures, {seconds:.1f} s in peace; killed {killed} times, ", end="")
        print(f"{ended} starts had ended before; {kept} epochs were done when the last one went on")
        print("differing: " + ", ".join(differing) if differing else "weights and log equal, every byte")
    return 1 if differing else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    known, rest = parser.parse_known_args()
    sys.exit(run(known.kills, known.pictures, known.epochs, known.seed, rest))
