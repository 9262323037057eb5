"""What all tests share: one thread a process, a cache of their own, a small devkit of scenes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gradcam_bench.datasets.scenes import write_devkit

SHARED = Path(__file__).parent.parent.parent / "shared" / "real"  # real weights and images, where there are any


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def scenes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A devkit with the first twelve scenes of the test split."""
    root = tmp_path_factory.mktemp("scenes")
    write_devkit(root, "test", 12)
    return root
