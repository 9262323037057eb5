"""What a machine may do to a run: full and read-only disks, damaged files, signals, processes that die, little memory.
Each ends in one sentence, keeps what was computed, and the same command then gives the rows of an undisturbed run."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from gradcam_bench import cli, pipeline, record
from gradcam_bench.datasets.voc import Voc
from gradcam_bench.store import Store

SMALL = [
    "run", "model=squeezenet1_1", "model.weights=none", "model.num_classes=10", "workers=0", "batch_size=2", "limit=8",
    "method=[grad_cam,center]", "preset=[default]", "metric=[pointing_game]", "stages=[explain,score]", "name=one",
    "view.resize=warp", "view.size=64",
]  # fmt: skip


class Command:
    """One and the same command, again and again."""

    def __init__(self, capsys: pytest.CaptureFixture[str], root: Path, results: Path) -> None:
        self.capsys, self.words, self.folder = capsys, [*SMALL, f"dataset.root={root}"], results / "run" / "one"

    def __call__(self, *more: str) -> tuple[int, str]:
        return self.other(*self.words, f"results={self.folder.parent.parent}", *more)

    def other(self, *words: str) -> tuple[int, str]:
        self.capsys.readouterr()
        code = cli.main(list(words))
        err = self.capsys.readouterr().err
        assert "Traceback" not in err
        sentences = [line for line in err.splitlines() if line.startswith("gradcam-bench: ")]
        assert len(sentences) == (code != 0)
        return code, sentences[0] if sentences else ""

    def done(self) -> list[int]:
        return sorted(index for part in Store(self.folder).finished().values() for index in part["done"])


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path) -> Command:
    return Command(capsys, scenes_root, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(scenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    results = tmp_path_factory.mktemp("undisturbed")
    assert cli.main([*SMALL, f"dataset.root={scenes_root}", f"results={results}"]) == 0
    return tables(results / "run" / "one")


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(folder / "rows.parquet"), pd.read_parquet(folder / "cases.parquet").drop(columns="seconds")


def assert_equal(folder: Path, undisturbed: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    for mine, theirs in zip(tables(folder), undisturbed, strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    assert len(Store(folder).index()) == len(undisturbed[1])  # grad_cam's heatmaps, once each
    assert not list(folder.rglob(".*.tmp"))


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A file system in memory at `place`, where the tests may mount one."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(place)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("kilobytes", [88, 104, 140])
def test_a_full_disk(command: Command, tmp_path: Path, kilobytes: int, undisturbed: tuple) -> None:
    """Of different sizes, so that it is full at different moments."""
    command.folder = tmp_path / "disk" / "run" / "one"
    with mounted(tmp_path / "disk", f"size={kilobytes}k"):
        code, sentence = command("stages=[explain,score,report]")
        assert code == 2
        assert "No space left on device" in sentence
        subprocess.run(["mount", "-o", "remount,size=50m", str(tmp_path / "disk")], check=True)
        assert command("stages=[explain,score,report]")[0] == 0
        assert_equal(command.folder, undisturbed)


def test_a_run_that_will_not_fit_is_refused_before_it_starts(command: Command, tmp_path: Path) -> None:
    command.folder = tmp_path / "disk" / "run" / "one"
    with mounted(tmp_path / "disk", "size=20k"):
        code, sentence = command()
    assert code == 2
    assert "the run needs about" in sentence


@pytest.mark.parametrize("limit", [500, 1500, 4000])
def test_files_that_may_not_grow(command: Command, limit: int, undisturbed: tuple) -> None:
    """Writing fails as on a full disk, with no need of a file system of one's own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code, sentence = command()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert "cannot write " in sentence
    assert "File too large" in sentence
    assert not list(command.folder.rglob("*.tmp"))
    assert command()[0] == 0
    assert_equal(command.folder, undisturbed)


def test_a_folder_that_may_only_be_read(command: Command, tmp_path: Path, undisturbed: tuple) -> None:
    command.folder = tmp_path / "disk" / "run" / "one"
    with mounted(tmp_path / "disk", "size=50m"):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        code, sentence = command()
        assert (code, "cannot be made: Read-only file system; give results=DIR" in sentence) == (2, True)
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path / "disk")], check=True)
        assert command()[0] == 0
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        for words in (["report", str(command.folder)], ["score", str(command.folder)]):
            code, sentence = command.other(*words)
            assert (code, "Read-only file system" in sentence) == (2, True)
        assert_equal(command.folder, undisturbed)


def spoil(path: Path) -> None:
    path.write_bytes(b"no such thing")


def spoil_inside(path: Path) -> None:
    """What can only be seen when everything is read."""
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(255 - byte for byte in data[4:60])
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [spoil, Path.unlink])
@pytest.mark.parametrize("kind", [".json", ".rows.parquet", ".cases.parquet"])
def test_a_damaged_part_is_made_again(
    command: Command, damage: Callable[[Path], None], kind: str, undisturbed: tuple
) -> None:
    assert command()[0] == 0
    damage(next((command.folder / "rows").glob(f"*{kind}")))
    assert command()[0] == 0
    assert_equal(command.folder, undisturbed)


@pytest.mark.parametrize("kind", ["rows", "cases"])
def test_a_part_damaged_inside_is_named_dropped_and_made_again(command: Command, kind: str, undisturbed: tuple) -> None:
    assert command()[0] == 0
    spoil_inside(next((command.folder / "rows").glob(f"*.{kind}.parquet")))
    code, sentence = command()
    assert code == 2
    assert "was damaged" in sentence
    assert "is dropped: repeat the command" in sentence
    assert command()[0] == 0
    assert_equal(command.folder, undisturbed)


@pytest.mark.parametrize("kind", [".safetensors", ".index.parquet"])
def test_heatmaps_damaged_before_they_were_merged_are_made_again(
    command: Command, kind: str, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple
) -> None:
    def stop(_store: Store) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "merge", stop)
        assert command()[0] == 130
    (path,) = (command.folder / "maps").glob(f"*{kind}")
    spoil(path)
    code, sentence = command()
    assert (code, "is dropped: repeat the command" in sentence) == (2, True)
    assert command()[0] == 0
    assert_equal(command.folder, undisturbed)


@pytest.mark.parametrize("name", ["index.parquet", "shard-0000.safetensors"])
def test_merged_heatmaps_that_are_damaged_are_refused(command: Command, name: str, undisturbed: tuple) -> None:
    assert command()[0] == 0
    spoil(command.folder / "maps" / name)
    code, sentence = command.other("score", str(command.folder), "protocol.tolerance=0")
    assert code == 2
    assert f"maps/{name} is damaged" in sentence
    assert "--force" in sentence
    assert command("--force")[0] == 0
    assert_equal(command.folder, undisturbed)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"3", b"", b"method: 3\n", b"a: &a [*a]\n"])
def test_a_damaged_configuration_is_refused(command: Command, content: bytes, undisturbed: tuple) -> None:
    assert command()[0] == 0
    (command.folder / "config.yaml").write_bytes(content)
    for words in ((*command.words, f"results={command.folder.parent.parent}"), ("report", str(command.folder))):
        code, sentence = command.other(*words)
        assert code == 2
        assert "config.yaml is damaged" in sentence
        assert "--force" in sentence
    assert command("--force")[0] == 0
    assert_equal(command.folder, undisturbed)


def test_a_damaged_list_of_inputs_is_refused(command: Command, undisturbed: tuple) -> None:
    assert command()[0] == 0
    spoil(command.folder / "inputs.json")
    code, sentence = command()
    assert (code, "inputs.json is damaged" in sentence, "--force" in sentence) == (2, True, True)
    assert command("--force")[0] == 0
    assert_equal(command.folder, undisturbed)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[]", b'{"model": 3}', None])
def test_a_damaged_record_is_refused_and_the_run_writes_it_again(
    command: Command, content: bytes | None, undisturbed: tuple
) -> None:
    assert command()[0] == 0
    path = command.folder / "run.json"
    path.unlink() if content is None else path.write_bytes(content)
    for verb in ("report", "score"):
        code, sentence = command.other(verb, str(command.folder))
        assert code == 2
        assert "run.json is not there" in sentence if content is None else "run.json is damaged" in sentence
        assert "repeat" in sentence
    assert command()[0] == 0
    assert command.other("report", str(command.folder))[0] == 0
    assert_equal(command.folder, undisturbed)


@pytest.mark.parametrize("damage", [spoil, spoil_inside, Path.unlink])
@pytest.mark.parametrize("name", ["rows.parquet", "cases.parquet"])
def test_a_damaged_table_is_refused_and_the_run_writes_it_again(
    command: Command, damage: Callable[[Path], None], name: str, undisturbed: tuple
) -> None:
    assert command()[0] == 0
    damage(command.folder / name)
    code, sentence = command.other("report", str(command.folder))
    assert code == 2
    assert name in sentence
    assert "run" in sentence
    assert command()[0] == 0
    assert_equal(command.folder, undisturbed)


@pytest.mark.parametrize("when", [1, 2, 3])
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by SIGTERM")]
)
def test_a_stopped_run_keeps_what_it_has(
    command: Command, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple, number: int, code: int, said: str, when: int
) -> None:
    def stop(batch: int) -> None:
        if batch == when:
            signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at_each_batch(patch, stop)
        got, sentence = command()
    assert (got, said in sentence) == (code, True)
    assert "the same command goes on from here" in sentence
    assert command.done() == list(range(2 * when))
    assert command()[0] == 0
    assert_equal(command.folder, undisturbed)
    assert signal.getsignal(signal.SIGTERM) is before


def at_each_batch(patch: pytest.MonkeyPatch, happen: Callable[[int], None]) -> None:
    """Calls happen(n) before the n-th batch, counted from 0, is explained."""
    seen = iter(range(1000))
    explain_batch = pipeline.explain_batch

    def disturbed(*arguments: object) -> object:
        happen(next(seen))
        return explain_batch(*arguments)  # type: ignore[arg-type]

    patch.setattr(pipeline, "explain_batch", disturbed)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "the memory does not suffice: give a smaller batch_size="),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "give a smaller batch_size="),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "give a smaller batch_size="),
        (OSError(5, "Input/output error", "/disk/a.jpg"), "/disk/a.jpg: Input/output error; what was finished is kept"),
    ],
    ids=["python", "cuda", "cpu", "disk"],
)
def test_a_machine_that_fails_in_the_middle(
    command: Command, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple, error: Exception, said: str
) -> None:
    def fail(batch: int) -> None:
        if batch == 2:
            raise error

    with monkeypatch.context() as patch:
        at_each_batch(patch, fail)
        code, sentence = command()
    assert code == 2
    assert said in sentence
    assert command.done() == [0, 1, 2, 3]
    assert command("batch_size=2")[0] == 0
    assert_equal(command.folder, undisturbed)


def test_a_fault_of_the_program_keeps_its_traceback_and_the_work(
    command: Command, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple
) -> None:
    def fail(batch: int) -> None:
        if batch == 3:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        at_each_batch(patch, fail)
        with pytest.raises(ZeroDivisionError):
            command()
    assert command.done() == list(range(6))
    assert command()[0] == 0
    assert_equal(command.folder, undisturbed)


def test_a_decoding_process_that_dies(command: Command, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple) -> None:
    read = Voc.read

    def deadly(self: Voc, index: int, masks: bool = False) -> object:
        if index == 5 and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index, masks)

    with monkeypatch.context() as patch:
        patch.setattr(Voc, "read", deadly)
        code, sentence = command("workers=1")
    assert code == 2
    assert "a process that decodes images died" in sentence
    assert command("workers=1")[0] == 0
    assert_equal(command.folder, undisturbed)


def test_what_a_killed_process_left_is_removed(command: Command, undisturbed: tuple) -> None:
    assert command()[0] == 0
    for name in ("rows/.x.json.77.tmp", "maps/.y.safetensors.77.tmp", ".rows.parquet.77.tmp", "plots/.a.svg.7.tmp"):
        (command.folder / name).parent.mkdir(exist_ok=True)
        spoil(command.folder / name)
    for name in (
        "rows/torn.rows.parquet",
        "rows/torn.cases.parquet",
        "maps/torn.safetensors",
        "maps/torn.index.parquet",
    ):
        spoil(command.folder / name)
    assert command()[0] == 0
    assert not list(command.folder.rglob("torn*"))
    assert_equal(command.folder, undisturbed)


@pytest.mark.parametrize("verb", ["score", "report"])
def test_no_verb_touches_a_folder_that_another_process_works_in(command: Command, verb: str) -> None:
    assert command()[0] == 0
    with record.alone(command.folder):
        code, sentence = command.other(verb, str(command.folder))
    assert (code, "another process is at work here" in sentence) == (2, True)


def test_a_reader_who_has_had_enough() -> None:
    """`gradcam-bench list methods | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "gradcam_bench", "list", "methods"],
        stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_a_run_that_nobody_watches_any_more_goes_on(command: Command, undisturbed: tuple) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [*command.words, f"results={command.folder.parent.parent}"]
    done = subprocess.run(
        [sys.executable, "-m", "gradcam_bench", *words], stdout=writer, stderr=writer, timeout=100, check=False
    )
    os.close(writer)
    assert done.returncode == 0
    assert_equal(command.folder, undisturbed)
