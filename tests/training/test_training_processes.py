"""Trainings that are killed, interrupted, or shared out to two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("lightning")
SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_and_resume_training.py"
QUICK = ["limit=24", "recipe.preprocessing.size=48", "batch_size=4", "device=cpu", "name=one"]


def environment(place: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(place), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_six_kills_change_no_byte(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "6", "--pictures", "40", "--epochs", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal, every byte" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_how_to_go_on(tmp_path: Path, kind: signal.Signals, code: int) -> None:
    words = [*QUICK, "workers=0", "epochs=400", f"results={tmp_path}"]
    command = [sys.executable, "-m", "gradcam_bench", "train", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(tmp_path))
    log = tmp_path / "train" / "one" / "log.csv"
    for _ in range(600):
        if log.is_file():
            break
        time.sleep(0.2)
    process.send_signal(kind)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    assert (log.parent / "resume.ckpt").is_file()


@pytest.mark.slow
def test_two_processes_share_the_pictures(tmp_path: Path) -> None:
    words = [*QUICK, "workers=0", "epochs=2", f"results={tmp_path}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command = [*torchrun, "-m", "gradcam_bench", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "train" / "one"
    log = pd.read_csv(folder / "log.csv")
    assert list(log["pictures"].iloc[1:]) == [24, 24], "each once, by one of the two"
    assert (log["validation_pictures"] == 24).all()
    assert (folder / "weights.safetensors").is_file()
