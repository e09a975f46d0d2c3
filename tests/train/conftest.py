"""What the tests of the trainer share; one thread: other work on the machine would only make it slower."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # made_pairs.py

from made_pairs import make_shards


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pair_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs in two Parquet shards."""
    return make_shards(tmp_path_factory.mktemp("pairs") / "shards", 24, shards=2)
