"""Fixtures that all tests share."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "e2e"))  # made_crawls, outputs: modules that several folders of tests use

from made_crawls import write_site


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real crawls and the benchmark set that lie beside a checkout; tests that need them are skipped where they are absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real crawls at {path}")
    return path


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four archives: eight pages of three related pictures."""
    folder = tmp_path_factory.mktemp("site")
    write_site(folder)
    return folder


@pytest.fixture(scope="session")
def site_run(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over the small site, on this machine."""
    from pipeline.commands import main  # Beam is not for tests that need no run

    output = tmp_path_factory.mktemp("site-run") / "out"
    assert main("run", ["--input", str(site), "--output", str(output), "--encoder", "builtin"]) == 0
    return output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system of our own needs a right that this user lacks: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
