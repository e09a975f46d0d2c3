"""Every fuzz target runs over its seeds; finding something new is left to longer runs by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = sorted(Path(__file__).parent.glob("fuzz_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda path: path.stem)
def test_a_target_accepts_its_seeds(tmp_path: Path, target: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed")
    command, env = [sys.executable, target, "-runs=100"], os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
