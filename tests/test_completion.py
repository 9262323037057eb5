"""Tab completion: what fits, and that a shell is given it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradcam_bench import cli
from gradcam_bench.completion import candidates
from gradcam_bench.errors import UserError
from gradcam_bench.flags import parse, usage
from gradcam_bench.labels import names


def test_verbs_flags_and_names() -> None:
    assert set(candidates([], "")) == set(cli.VERBS)
    assert candidates([], "mul") == ["multiverse"]
    assert candidates(["run"], "--f") == ["--force"]
    assert candidates(["list"], "m") == ["methods", "metrics", "models"]
    assert candidates(["run"], "dataset=v") == ["dataset=voc"]
    assert candidates(["run"], "experiment=paper") == []  # those are of `reproduce`
    assert "wsol_center" in candidates(["reproduce"], "wsol")
    assert candidates(["run"], "view.target=p") == ["view.target=predicted", "view.target=positives"]
    assert candidates(["run"], "protocol.matching=") == ["protocol.matching=any", "protocol.matching=first"]
    assert candidates(["nonsense"], "") == []


def test_settings_of_what_was_chosen() -> None:
    assert candidates(["run", "dataset=voc"], "dataset.mask") == ["dataset.masks="]
    assert candidates(["run"], "dataset.mask") == []
    assert candidates(["run"], "protocol.toler") == ["protocol.tolerance="]


def test_lists_grow_label_by_label() -> None:
    assert "method=[grad_cam" in candidates(["run"], "method=")
    assert "method=[grad_cam]" in candidates(["run"], "method=[grad_cam")
    alone = ["method=[grad_cam,layer_cam_fused", "method=[grad_cam,layer_cam_fused]"]  # two: the word may go on
    assert candidates(["run"], "method=[grad_cam,layer_cam_f") == alone
    assert "method=[grad_cam,grad_cam" not in candidates(["run"], "method=[grad_cam,")
    assert candidates(["run"], "'method=[grad_cam,layer_cam_f") == [f"'{word}" for word in alone]
    assert candidates(["compare", "RUN", "--metrics"], "pointing_game_") == ["pointing_game_rejection"]
    assert len(candidates(["run"], "preset=[")) == len(names("preset"))


def test_runs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in ((5, "old"), (1, "new")):
        folder = tmp_path / "results" / "run" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        os.utime(folder / "config.yaml", (1e9 - age, 1e9 - age))
    (tmp_path / "results" / "run" / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    assert candidates(["report"], "") == ["results/run/new", "results/run/old"]
    assert candidates(["diff", "results/run/new"], "results/run/o") == ["results/run/old"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gradcam-bench li", ["list"]),
        ("gradcam-bench run model=squeeze", ["squeezenet1_1"]),  # bash's word begins behind =
        (
            "gradcam-bench run 'method=[grad_cam,layer_cam_f",
            ["method=[grad_cam,layer_cam_fused", "method=[grad_cam,layer_cam_fused]"],
        ),
    ],
)
def test_bash(tmp_path: Path, line: str, expected: list[str]) -> None:
    program = tmp_path / "gradcam-bench"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gradcam_bench "$@"\n')
    program.chmod(0o755)
    code = (
        'eval "$(gradcam-bench completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}; '
        "_gradcam_bench; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", line], env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_installing(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for _ in range(2):  # the second changes nothing
        assert cli.main(["completion", shell, "--install"]) == 0
    script = next((tmp_path / ".config").rglob("*.*sh"))
    assert str(script) in capsys.readouterr().out
    assert "gradcam-bench _complete" in script.read_text()
    if shell != "fish":
        assert (tmp_path / f".{shell}rc").read_text().count(str(script)) == 2  # one line that names it twice


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "zhs"]) == 2
    assert "unknown shell 'zhs': did you mean 'zsh'?" in capsys.readouterr().err


def test_help_shows_an_example_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in cli.VERBS:
        assert f"  {verb} " in usage()
        with pytest.raises(SystemExit):
            parse(verb, ["--help"])
        assert f"gradcam-bench {verb} " in capsys.readouterr().out.partition("examples:")[2]
    with pytest.raises(UserError, match="report: unknown flag '--validatin': did you mean '--validation'"):
        parse("report", ["x", "--validatin", "y"], "run")
