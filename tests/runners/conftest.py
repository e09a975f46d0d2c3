"""Small runs to compare with, and the runners that are built or fetched for the tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "examples")]

from flink import job_server  # noqa: E402
from launch import Call, call  # noqa: E402


@pytest.fixture(scope="session")
def shell() -> Call:
    """Runs a pagepairs command in a process of its own."""
    return call


@pytest.fixture(scope="session")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prism, built from the Go module of the installed Beam."""
    if not shutil.which("go"):
        pytest.skip("no Go here to build Prism with")
    folder = tmp_path_factory.mktemp("prism")
    module = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{version('apache-beam')}"
    built = subprocess.run(["go", "install", module], capture_output=True, text=True, check=False, env=os.environ | {"GOBIN": str(folder)})
    assert built.returncode == 0, f"Go is here and Prism cannot be built: {built.stderr.strip()[-300:]}"
    return folder / "prism"


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A Flink on this machine; gives the flags that send a job there."""
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("no Java or no Maven here to run Flink with")
    jars = tmp_path_factory.mktemp("jars")
    command = ["mvn", "-B", "-q", "-f", str(ROOT / "examples" / "flink.pom.xml"), "dependency:copy-dependencies"]
    fetched = subprocess.run([*command, f"-DoutputDirectory={jars}"], capture_output=True, text=True, check=False)
    assert fetched.returncode == 0, f"Maven is here and Flink cannot be had: {fetched.stdout.strip()[:300]}"
    with job_server(jars) as flags:
        yield flags
    shutil.rmtree(jars)
