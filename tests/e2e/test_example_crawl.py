"""The example crawl, through the commands that the README names: every image ends as the truth table says."""

import subprocess
import sys
from pathlib import Path

from outputs import assert_conserved, assert_sound

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *(str(arg) for arg in args)]
    env = {"PYTHONPATH": str(EXAMPLES.parent)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES.parent, env=env)


def test_the_example_crawl_ends_as_its_truth_table_says(tmp_path: Path, pagepairs) -> None:
    made = example("make_crawl.py", "--output", tmp_path / "crawl")
    assert made.returncode == 0, made.stderr
    output = tmp_path / "out"
    done = pagepairs("run", "--input", tmp_path / "crawl" / "crawl.warc.gz", "--output", output, "--encoder", "builtin")
    assert done.code == 0, done.err
    checked = example("check_crawl.py", "--truth", tmp_path / "crawl" / "truth.jsonl", "--output", output)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert ", 0 that it does not name" in checked.stdout
    assert_conserved(output)
    assert_sound(output)
