"""Tab completion: what fits, and that a shell is given it."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
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


TYPED = [  # what is typed, and what the program is given when Enter is pressed
    ("gradcam-bench ru\t", ["run"]),
    ("gradcam-bench run model=squee\t", ["run", "model=squeezenet1_1"]),
    ("gradcam-bench run dataset=voc dataset.mas\tx", ["run", "dataset=voc", "dataset.masks=x"]),  # no space behind =
    ("gradcam-bench run 'method=[cam,recipro_cam_g\t]'", ["run", "method=[cam,recipro_cam_gaussian]"]),
    ("gradcam-bench run method=\\[cam,recipro_cam_g\t]", ["run", "method=[cam,recipro_cam_gaussian]"]),
    ("gradcam-bench run dataset.root=fold\tim\tx", ["run", "dataset.root=folder/images/x"]),
    ("gradcam-bench show fold\tdo\t", ["show", "folder/dog.jpg"]),
]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_that_are_typed_into(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    (tmp_path / "folder/images").mkdir(parents=True)
    (tmp_path / "folder/dog.jpg").touch()
    program = tmp_path / "bin/gradcam-bench"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$1" = _complete ] && exec {sys.executable} -m gradcam_bench "$@"\n'
        'printf "<%s>" "$@"; echo "#"\n'
    )
    program.chmod(0o755)
    # Words are given as the shell took them; what is typed behind a Tab waits until that is answered.
    env = os.environ | {"HOME": str(tmp_path), "TERM": "dumb", "PATH": f"{program.parent}:{os.environ['PATH']}"}
    env = {name: value for name, value in env.items() if name not in ("XDG_CONFIG_HOME", "ZDOTDIR")}
    subprocess.run([sys.executable, "-m", "gradcam_bench", "completion", shell, "--install"], env=env, check=True)
    got = typed([shell, "-i"], [line for line, _ in TYPED], env, tmp_path)
    assert got == [words for _, words in TYPED]


def typed(command: list[str], lines: list[str], env: dict[str, str], folder: Path) -> list[list[str]]:
    """The words that the program was called with, line by line, when lines are typed into an interactive shell."""
    terminal = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *command]
    with subprocess.Popen(terminal, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=folder) as shell:
        assert shell.stdin
        assert shell.stdout
        try:
            found = []
            for line in lines:
                shell.stdin.write(f"{line}\r".encode())
                shell.stdin.flush()
                found.append(words_of(shell.stdout.fileno()))
            return found
        finally:
            shell.kill()


def words_of(output: int) -> list[str]:
    """The words between angles of the next line that the program prints."""
    said = ""
    end = time.monotonic() + 30
    while not (shown := re.search(r"((?:<[^<>\x1b\r\n]*>)+)#", said)):
        assert select.select([output], [], [], max(end - time.monotonic(), 0))[0], repr(said)
        said += os.read(output, 65536).decode(errors="replace")
    return re.findall(r"<(.*?)>", shown[1])


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


@pytest.mark.parametrize(
    ("verb", "taken", "refused"),
    [("run", "store=grid", "recipe="), ("score", "protocol.KEY", "dataset="), ("train", "recipe=", "method=[...]")],
)
def test_help_names_settings_that_the_verb_takes(
    capsys: pytest.CaptureFixture[str], verb: str, taken: str, refused: str
) -> None:
    with pytest.raises(SystemExit):
        parse(verb, ["--help"])
    said = capsys.readouterr().out.partition("settings, as")[2]
    assert taken in said
    assert refused not in said


def test_help_shows_an_example_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in cli.VERBS:
        assert f"  {verb} " in usage()
        with pytest.raises(SystemExit):
            parse(verb, ["--help"])
        assert f"gradcam-bench {verb} " in capsys.readouterr().out.partition("examples:")[2]
    with pytest.raises(UserError, match="report: unknown flag '--validatin': did you mean '--validation'"):
        parse("report", ["x", "--validatin", "y"], "run")
