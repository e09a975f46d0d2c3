"""What looks at finished runs and test sets, with these in an object store: the same answers as on this machine."""

import json
import shutil
from pathlib import Path

import pytest
from contents import upload
from made_crawls import picture
from object_store import Door

from dedup.benchmark import read_benchmark
from pagepairs.files import read_json, write_bytes, write_json
from pagepairs.stores import store_of
from pipeline.benchmark import main as benchmark_main
from pipeline.calibrate import main as calibrate_main
from pipeline.commands import EXIT_SETTING, main
from pipeline.inspection import main as inspect_main

OTHER = "siglip-base"


@pytest.fixture
def two_runs(site: Path, site_run: Path, remote_folder: str, tmp_path: Path) -> tuple[str, str]:
    """The same run, with a second encoder's vectors, here and in the store; both with their crawl."""
    here, there = tmp_path / "run", f"{remote_folder}/run"
    shutil.copytree(site_run, here / "out")
    shutil.copytree(site, here / "in")
    shutil.copytree(here / "out" / "embeddings" / "builtin", here / "out" / "embeddings" / OTHER)
    manifest = here / "out" / "embeddings" / OTHER / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "builtin"', f'"name": "{OTHER}"'))
    upload(here, there)
    config = read_json(f"{here}/out/config.json")
    for place in (str(here), there):
        config["scan"]["input"], config["run"]["output"] = [f"{place}/in"], f"{place}/out"
        write_json(f"{place}/out/config.json", config)
    return f"{here}/out", f"{there}/out"


def test_inspect(two_runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for dataset in ("", "/", "/images", "/episodes", "/candidates", "/pairs", "/shards/pairs-00000-of-00001.parquet", "/drops/pair"):
        said, sheets = [], []
        for output in two_runs:
            assert inspect_main("inspect", [f"{output}{dataset}", "--rows", "2"]) == 0
            said.append(capsys.readouterr().out.replace(output, "OUT"))
            sheets.append({path.name: path.read_bytes() for path in tmp_path.glob("inspect-*.png")})
        assert said[0] == said[1]
        assert sheets[0] == sheets[1]
    shown = ("candidates", "episodes", "images", "pairs-00000-of-00001.parquet", "pairs")
    assert sorted(sheets[0]) == [f"inspect-{name}.png" for name in shown]
    assert inspect_main("inspect", [f"{two_runs[1]}/pairs", "--contact-sheet", f"{two_runs[1]}/sheet.png"]) == 0
    with store_of(two_runs[1]).open_read(f"{two_runs[1]}/sheet.png") as file:
        assert file.read() == sheets[0]["inspect-pairs.png"]
    capsys.readouterr()
    assert inspect_main("inspect", [f"{two_runs[1]}/nothing"]) == EXIT_SETTING
    assert capsys.readouterr().err.startswith(f"pagepairs: {two_runs[1]}/nothing is neither a dataset")


@pytest.mark.slow
def test_calibrate_and_a_report_that_compares(two_runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bands = []
    for output in two_runs:
        assert calibrate_main("calibrate", ["--output", output, "--reference", "builtin", "--encoder", OTHER]) == 0
        bands.append(read_json(f"{output}/calibration.json"))
    assert bands[0] == bands[1]
    here, there = two_runs
    for output, other in ((there, here), (here, there)):
        assert main("report", ["--output", output, "--compare", other]) == 0, capsys.readouterr().err
    reports = [json.dumps(read_json(f"{output}/report/report.json")["compare"]["pairs"]) for output in two_runs]
    assert reports[0] == reports[1] == '{"both": 24, "only_other": 0, "only_this": 0}'
    assert main("report", ["--output", here, "--compare", f"{there}/nothing"]) == EXIT_SETTING
    assert f"--compare {there}/nothing: name the --output of a complete run" in capsys.readouterr().err


def test_a_test_set_in_the_store_is_indexed(remote_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    for view in range(5):
        write_bytes(f"{folder}/{view // 3}/{view}.jpg", picture(view, 0))
    write_bytes(f"{folder}/notes.md", b"no image")
    (folder / "list.csv").write_text("path\n" + "".join(f"{view // 3}/{view}.jpg\n" for view in range(5)) + "1/none.jpg\n")
    (folder / "hashes.txt").write_text("0123456789abcdef one\n")
    upload(folder, f"{remote_folder}/set")
    for number, name in enumerate(("", "/list.csv", "/hashes.txt")):
        found = []
        for place in (str(folder), f"{remote_folder}/set"):
            index = f"{tmp_path}/index-{number}-{len(found)}"
            flags = ["--images", f"{place}{name}", "--output", index, "--encoder", "builtin", "--sample", "2", "--unrelated", str(folder)]
            assert benchmark_main("benchmark", ["build", "--name", "b", *flags]) == 0, capsys.readouterr().err
            found.append(read_benchmark(index))
        assert found[0].content == found[1].content
        assert found[1].items == (1 if "txt" in name else 5)
    flags = ["--output", f"{tmp_path}/none", "--encoder", "builtin"]
    capsys.readouterr()
    assert benchmark_main("benchmark", ["build", "--name", "b", "--images", f"{remote_folder}/none", *flags]) == EXIT_SETTING
    assert capsys.readouterr().err == f"pagepairs: --images {remote_folder}/none: there is no such folder or file\n"


def test_a_store_that_refuses_is_said_in_a_sentence(
    two_runs: tuple[str, str], door: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = two_runs[1]
    capsys.readouterr()
    door.refuse = lambda method, path: (403, "forbidden")
    sentence = r"the store answers 403 Forbidden (forbidden, the account lacks a right on it none)"
    commands = {
        "inspect": (inspect_main, [f"{output}/pairs"]),
        "calibrate": (calibrate_main, ["--output", output, "--encoder", OTHER]),
        "benchmark": (benchmark_main, ["build", "--name", "b", "--images", output, "--output", f"{tmp_path}/i", "--encoder", "builtin"]),
    }
    for name, (command, argv) in commands.items():
        assert command(name, argv) == EXIT_SETTING
        assert sentence in capsys.readouterr().err
    assert main("pair", ["--output", output]) == 4
    assert capsys.readouterr().err.startswith(f"pagepairs: --output {output}: {sentence}; give the right")
