"""Kills a run again and again at random moments (SIGKILL) and shows that it ends with the rows of an undisturbed one.

    python scripts/kill_and_resume.py [--kills 30] [--images 120]

Runs the demo twice into a temporary folder: once in peace, once killed `--kills` times and then let be. Compares
rows.parquet, cases.parquet (but for its times) and summary.csv exactly; exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from gradcam_bench import commands  # noqa: F401  (imported before forking: each run then starts at once)
from gradcam_bench.cli import main


def start(arguments: list[str]) -> int:
    """A forked process, leader of its own group, that runs the command; returns its id."""
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os._exit(main(arguments))
    return process


def command(folder: Path, images: int, extra: list[str]) -> list[str]:
    return ["run", f"results={folder}", "name=one", f"limit={images}", "stages=[explain,score]", *extra]


def undisturbed(arguments: list[str]) -> float:
    """Runs the command to its end; returns the seconds it took."""
    began = time.monotonic()
    _, status = os.waitpid(start(arguments), 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"the run itself fails: gradcam-bench {' '.join(arguments)}")
    return time.monotonic() - began


def harass(arguments: list[str], kills: int, seconds: float, moments: random.Random) -> tuple[int, int]:
    """Starts the command `kills` times and kills it at a random moment; returns (killed, had ended before)."""
    killed = ended = 0
    for _ in range(kills):
        process = start(arguments)
        time.sleep(moments.uniform(0, seconds))
        if os.waitpid(process, os.WNOHANG) != (0, 0):
            ended += 1
            continue
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        killed += 1
    return killed, ended


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two run folders' tables."""
    found = []
    for name, drop in (("rows.parquet", []), ("cases.parquet", ["seconds"])):
        left, right = (pd.read_parquet(folder / name).drop(columns=drop) for folder in (one, other))
        try:
            pd.testing.assert_frame_equal(left, right, check_exact=True)
        except AssertionError as error:
            found.append(f"{name}: {error}")
    return found


def run(kills: int, images: int, seed: int, extra: list[str]) -> int:
    with tempfile.TemporaryDirectory() as place:
        calm, wild = Path(place) / "calm", Path(place) / "wild"
        seconds = undisturbed(command(calm, images, extra))
        # A killed run resumes, so what is left shrinks: kills fall before, in and after the work.
        killed, ended = harass(command(wild, images, extra), kills, min(seconds, 6.0), random.Random(seed))
        undisturbed(command(wild, images, extra))
        found = differences(calm / "run" / "one", wild / "run" / "one")
        rows = len(pd.read_parquet(calm / "run" / "one" / "rows.parquet"))
        print(f"{images} images, {seconds:.1f} s in peace; killed {killed} times, {ended} starts had ended before")
        print(f"{rows} rows: " + ("; ".join(found) if found else "equal, every one"))
    return 1 if found else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    known, rest = parser.parse_known_args()
    sys.exit(run(known.kills, known.images, known.seed, rest))
