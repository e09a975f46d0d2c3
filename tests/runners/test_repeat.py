"""config.json of a run with settings and flags of its own repeats it, from any folder."""

import json
from pathlib import Path

import pytest
from outputs import data_hashes

from pagepairs.cli import main

SETTINGS = ["--encoder", "builtin", "--low", "0.2", "--high", "0.95", "--seed", "7", "--pairs-per-episode", "2", "--pairs-per-shard", "5"]
MORE = ["--format", "webdataset", "--columns", "alt", "embeddings", "--size", "96", "--min-texture", "10", "--runner=DirectRunner"]


def test_config_json_repeats_a_run_with_every_setting_and_beam_flag(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.parent)
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["run", "--input", site.name, "--output", str(first), *SETTINGS, *MORE]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--config", str(first / "config.json"), "--output", str(second)]) == 0
    assert data_hashes(second) == data_hashes(first)
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (second, first))
    assert (ours["run"].pop("output"), theirs["run"].pop("output")) == (str(second), str(first))
    assert ours == theirs
    assert ours["beam_args"] == ["--runner=DirectRunner"]
