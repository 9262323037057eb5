"""Many runs by one command, and one run by many processes: sweeps by every launcher, and torchrun."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from gradcam_bench import cli

README = Path(__file__).parent.parent / "README.md"
SMALL = [
    "model=squeezenet1_1", "model.weights=none", "model.num_classes=10", "limit=3", "workers=0", "batch_size=2",
    "method=[grad_cam,center]", "preset=[default]", "metric=[pointing_game]", "stages=[explain,score]",
    "view.resize=warp", "view.size=64",
]  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def runs(results: Path) -> dict[str, pd.DataFrame]:
    """The rows of every run in a results folder, by the end of its name."""
    folders = sorted((results / "run").iterdir())
    return {folder.name.split("-", 4)[-1]: pd.read_parquet(folder / "rows.parquet") for folder in folders}


def test_a_sweep_runs_every_combination_and_says_what_was_wrong_with_some(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "-m", *SMALL, f"dataset.root={scenes_root}", "results=results"]
    assert cli.main([*words, "seed=0,1", "limit=2,3"]) == 0
    assert sorted(runs(tmp_path / "results")) == [f"limit={n},seed={s}" for n in (2, 3) for s in (0, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]  # Hydra leaves nothing behind
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["run"]
    capsys.readouterr()
    assert cli.main([*words, "seed=5,x,6"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gradcam-bench: ")]
    assert said == ["gradcam-bench: seed=x: seed=x: a whole number from 0 to 9223372036854775808 is needed"]
    assert {"seed=5", "seed=6"} <= set(runs(tmp_path / "results"))


def test_a_sweep_of_one_run_and_of_lists(scenes_root: Path, tmp_path: Path) -> None:
    words = ["run", "-m", *SMALL, f"dataset.root={scenes_root}", f"results={tmp_path}"]
    assert cli.main([*words, "method=[center],[center,noise]"]) == 0
    assert sorted(len(set(rows["method"])) for rows in runs(tmp_path).values()) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_every_launcher_gives_the_rows_of_single_runs(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path, launcher: str
) -> None:
    small = [*SMALL, f"dataset.root={scenes_root}"]
    for seed in (0, 1):
        assert cli.main(["run", *small, f"results={tmp_path}/single", f"seed={seed}"]) == 0
    (tmp_path / "work").mkdir()
    words = ["run", "-m", f"hydra/launcher={launcher}", *small, "workers=1", "results=results", "seed=0,1,x"]
    command = [sys.executable, "-m", "gradcam_bench", *words]
    done = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("gradcam-bench: seed=x: seed=x: a whole number")
    single, swept = runs(tmp_path / "single"), runs(tmp_path / "work" / "results")
    assert sorted(swept) == ["seed=0", "seed=1"]
    for one, other in zip(single.values(), swept.values(), strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["results"]
    logs = list((tmp_path / "work" / "results").glob("sweeps/*/.submitit/*/*_log.out"))
    assert len(logs) == (3 if launcher == "submitit_local" else 0)
    assert (tmp_path / "work" / "results" / "sweeps").exists() == bool(logs)


@pytest.mark.slow
def test_a_job_that_dies_is_a_sentence(scenes_root: Path, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\ndef model():\n    os._exit(3)\n")
    own = ["model=custom", "model.target=deadly.model", "model.layer=layer", *SMALL[3:]]
    words = ["run", "-m", "hydra/launcher=submitit_local", *own, f"dataset.root={scenes_root}", "seed=0,1"]
    command = [sys.executable, "-m", "gradcam_bench", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "gradcam-bench: the launcher failed (logs of its jobs: results/sweeps/" in done.stderr


def readme_command(launcher: str) -> list[str]:
    """The words of README's command line with that launcher, after `gradcam-bench`."""
    (line,) = re.findall(rf"^gradcam-bench (run -m hydra/launcher={launcher} .*)$", README.read_text(), re.MULTILINE)
    return shlex.split(line)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # submitit's
def test_the_slurm_command_of_the_readme_gives_its_jobs_what_it_says(
    scenes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its very words but for data and models, which are small; submitit's in-process executor takes SLURM's place."""
    submitit = pytest.importorskip("submitit")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    auto, asked = submitit.AutoExecutor, {}

    class Executor(auto):  # type: ignore[misc,valid-type]
        def __init__(self, folder: str, cluster: str, **options: object) -> None:
            assert cluster == "slurm"
            super().__init__(folder, "debug", **options)

        def update_parameters(self, **parameters: object) -> None:
            asked.update(parameters)
            super().update_parameters(**parameters)

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    ours = ("dataset", "model", "results")
    words = [word for word in readme_command("submitit_slurm") if not word.startswith(ours)]
    small = [*SMALL, f"dataset.root={scenes_root}", f"results={tmp_path}"]
    assert cli.main([*words, *small]) == 0
    assert sorted(runs(tmp_path)) == ["seed=0", "seed=1"]
    assert {key: value for key, value in asked.items() if value is not None} == {
        "slurm_partition": "gpu", "gpus_per_node": 1, "cpus_per_task": 8, "mem_gb": 32, "timeout_min": 240,
        "slurm_array_parallelism": 16, "tasks_per_node": 1, "nodes": 1, "name": "gradcam-bench",
        "stderr_to_stdout": False, "slurm_signal_delay_s": 120, "slurm_additional_parameters": {},
    }  # fmt: skip


def test_torchrun_shards_give_the_same_rows(scenes_root: Path, tmp_path: Path) -> None:
    words = [*SMALL, f"dataset.root={scenes_root}", f"results={tmp_path}", "limit=7"]
    command = [*TORCHRUN, "-m", "gradcam_bench", "run", *words, "name=ranks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert cli.main(["run", *words, "name=one"]) == 0
    one, ranks = (tmp_path / "run" / name for name in ("one", "ranks"))
    pd.testing.assert_frame_equal(pd.read_parquet(one / "rows.parquet"), pd.read_parquet(ranks / "rows.parquet"))
    assert {path.stem.split(".")[0][-3:] for path in (ranks / "rows").iterdir()} == {"000", "001"}


SLOWLY = """
import time
from gradcam_bench.datasets.voc import Voc
read = Voc.read

def slowly(self, index, masks=False):
    time.sleep(0.2)
    return read(self, index, masks)

Voc.read = slowly
from gradcam_bench.pipeline import run
import gradcam_bench.pipeline as pipeline
pipeline.FIRST_PART_SECONDS = pipeline.PART_SECONDS = 0.1
import sys
from gradcam_bench.cli import main
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_costs_a_sentence_and_no_row(
    scenes_root: Path, tmp_path: Path, rank: int, number: signal.Signals
) -> None:
    """Twelve pictures at 0.2 s each by two processes, of which one is killed when it has done some."""
    words = [*SMALL, f"dataset.root={scenes_root}", f"results={tmp_path}", "limit=12", "batch_size=1"]
    (tmp_path / "slowly.py").write_text(SLOWLY)
    slow = [*TORCHRUN, str(tmp_path / "slowly.py"), "run", *words, "name=ranks"]
    running = subprocess.Popen(slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    parts = tmp_path / "run" / "ranks" / "rows"
    until = time.monotonic() + 300
    while not list(parts.glob(f"*-{rank:03d}.json")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process_of(running.pid, rank), number)
    _, err = running.communicate(timeout=120)
    assert running.returncode not in (0, 2)
    said = [line for line in err.splitlines() if line.startswith("gradcam-bench: ")]
    assert said
    assert all("another process of this run has ended" in line or "stopped by SIGTERM" in line for line in said)
    before = {path.name for path in parts.glob("*.json")}
    assert before
    assert not (parts.parent / "rows.parquet").exists()
    done = subprocess.run([*TORCHRUN, "-m", "gradcam_bench", "run", *words, "name=ranks"], timeout=300, check=False)
    assert done.returncode == 0
    assert before <= {path.name for path in parts.glob("*.json")}
    assert cli.main(["run", *words, "name=one"]) == 0
    one, ranks = (tmp_path / "run" / name for name in ("one", "ranks"))
    pd.testing.assert_frame_equal(pd.read_parquet(one / "rows.parquet"), pd.read_parquet(ranks / "rows.parquet"))
    assert not list(ranks.rglob(".*.tmp"))


def process_of(parent: int, rank: int) -> int:
    """The id of torchrun's child of that rank."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise AssertionError(f"rank {rank} is not running")
