"""Crawls of every kind, lists and earlier vectors in an object store: what comes out is what comes out of the same on this machine."""

import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))  # the makers of small inputs stand beside the tests of sources

from contents import contents, upload
from made_crawls import picture
from malformed import KINDS

from pagepairs.files import read_json
from pipeline.commands import main


def test_every_kind_of_input_and_what_else_a_run_reads(remote_folder: str, site: Path, tmp_path: Path) -> None:
    crawl = tmp_path / "crawl"
    shutil.copytree(site, crawl / "site")
    for name, make in KINDS.items():
        (crawl / name.replace(".", "-", 1)).mkdir()
        (crawl / name.replace(".", "-", 1) / name).write_bytes(b"".join(make(random.Random(0))))
    (crawl / "photos").mkdir()
    for number in range(3):
        (crawl / "photos" / f"{number}.png").write_bytes(picture(90, number))
    (tmp_path / "block.txt").write_text("blocked.example\n")
    upload(tmp_path, remote_folder)
    results = {}
    for root in (str(tmp_path), remote_folder):
        argv = ["--input", f"{root}/crawl", "--block-list", f"{root}/block.txt", "--min-side-px", "16", "--encoder", "builtin"]
        assert main("run", [*argv, "--output", f"{root}/first"]) == 0
        assert main("run", [*argv, "--output", f"{root}/second", "--embeddings-from", f"{root}/first"]) == 0
        images = read_json(f"{root}/second/images/manifest.json")["counters"]["in"]
        assert read_json(f"{root}/second/run.json")["stages"]["embed"]["encoders"]["builtin"]["reused"] > 0
        results[root] = images, contents(f"{root}/first"), contents(f"{root}/second")
    here, there = results.values()
    assert there == here
    assert here[0] == 24 + 3 + 5 * (len(KINDS) + 1)  # the archive of two archives holds two fives
