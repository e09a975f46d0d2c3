import json
from pathlib import Path
from typing import Any

import pytest

from pagepairs.config import Config, PairConfig, RunConfig, ScanConfig, ShardConfig
from pagepairs.files import write_json
from pipeline.beam_flags import beam_flags
from pipeline.commands import config_from_json, main, parse
from pipeline.run import as_json


def here(*names: str) -> tuple[str, ...]:
    """Paths as config.json holds them: the same from every folder."""
    return tuple(str(Path.cwd() / name) for name in names)


def test_settings_that_are_not_given_are_defaults() -> None:
    config = parse("run", ["--input", "crawl.warc.gz", "--output", "out"])
    assert config == Config(scan=ScanConfig(input=here("crawl.warc.gz")), run=RunConfig(output=here("out")[0]))


@pytest.mark.parametrize(
    "argv",
    [
        ["--input", "a", "b", "c", "--output", "o", "--limit", "3"],
        ["--input", "a", "--input", "b", "c", "--output", "o", "--limit", "3"],
        ["--output", "o", "--input=a", "--limit", "3", "--input=b", "--input=c"],
        ["--input=a", "b", "--output=o", "--input", "c", "--limit=3"],
    ],
)
def test_several_input_flags_add_up(argv: list[str]) -> None:
    assert parse("run", argv) == Config(scan=ScanConfig(input=here("a", "b", "c"), limit=3), run=RunConfig(output=here("o")[0]))


def test_flags_of_every_group_with_dashes_or_underscores() -> None:
    argv = [
        "--input",
        "i",
        "--output",
        "o",
        "--min-side-px",
        "64",
        "--pairs_per_episode",
        "5",
        "--low",
        "-0.5",
        "--high",
        "0.5",
        "--size",
        "64",
        "--ignore-opt-out",
    ]
    config = parse("run", argv)
    assert (config.scan.min_side_px, config.pair.pairs_per_episode, config.pair.low, config.shard.size, config.scan.ignore_opt_out) == (
        64,
        5,
        -0.5,
        64,
        True,
    )


def write_config(path: Path, config: Config) -> Path:
    write_json(str(path), as_json(config))
    return path


SAVED = Config(
    scan=ScanConfig(input=("/crawl/a", "/crawl/b"), min_side_px=99),
    pair=PairConfig(low=0.1, high=0.2, seed=5),
    shard=ShardConfig(size=64),
    run=RunConfig(output="/elsewhere", threads=3),
    beam_args=("--runner=FnApiRunner",),
)


def test_a_config_file_is_what_config_json_holds(tmp_path: Path) -> None:
    assert config_from_json(json.loads(json.dumps(as_json(SAVED)))) == SAVED
    path = write_config(tmp_path / "c.json", SAVED)
    assert parse("run", ["--config", str(path)]) == SAVED
    assert parse("pair", [f"--config={path}", "--output", "/elsewhere"]) == SAVED


def test_a_flag_outweighs_the_config_file(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.json", SAVED)
    config = parse("run", ["--config", str(path), "--seed", "6", "--input", "c", "--runner", "DirectRunner"])
    assert (config.pair, config.scan.input, config.beam_args) == (
        PairConfig(low=0.1, high=0.2, seed=6),
        here("c"),
        ("--runner", "DirectRunner"),
    )


@pytest.mark.parametrize("command", ["embed", "pair", "shard", "report"])
def test_a_stage_takes_what_is_not_given_from_the_outputs_config(tmp_path: Path, command: str) -> None:
    write_config(tmp_path / "config.json", SAVED)
    config = parse(command, ["--output", str(tmp_path)])
    assert config == Config(
        scan=SAVED.scan, pair=SAVED.pair, shard=SAVED.shard, beam_args=SAVED.beam_args, run=RunConfig(output=str(tmp_path), threads=3)
    )
    assert parse(command, [f"--output={tmp_path}"]) == config


def test_run_starts_from_the_defaults_whatever_the_output_holds(tmp_path: Path) -> None:
    write_config(tmp_path / "config.json", SAVED)
    assert parse("run", ["--output", str(tmp_path), "--input", "x"]).pair == PairConfig()


@pytest.mark.parametrize(
    ("command", "argv", "message"),
    [
        ("run", ["--input", "a"], "--output is missing: name the folder"),
        ("run", ["--output", "o"], "--input is missing: name crawl files"),
        ("scan", ["--output", "o"], "--input is missing"),
        ("pair", ["--output", "/nowhere/at/all"], "/nowhere/at/all holds no run: start with `pagepairs run`"),
        (
            "run",
            ["--input", "a", "--output", "o", "--pairs-per-episod", "3"],
            "no flag --pairs-per-episod; the nearest is --pairs-per-episode",
        ),
        ("run", ["--input", "a", "--output", "o", "--runer=FlinkRunner"], "no flag --runer; the nearest is --runner"),
        ("run", ["--input", "a", "--output", "o", "-x"], "'-x' belongs to no flag"),
        ("run", ["--input", "a", "--output", "o", "--config"], "--config is missing its value"),
        ("run", ["--input", "a", "--output", "o", "--dry_run=True"], "--dry_run=True: --dry-run takes no value: it checks the run"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(command: str, argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(command, argv)


def test_beam_flags_pass_through() -> None:
    beam = ["--runner", "FlinkRunner", "--flink_master=localhost:8081", "--parallelism", "4", "--experiments=a"]
    config = parse("run", ["--input", "i", "--output", "o", *beam, "--seed", "3"])
    assert config.beam_args == tuple(beam)
    assert config.pair.seed == 3
    assert {"--runner", "--project", "--flink_master", "--parallelism", "--temp_location", "--setup_file"} <= beam_flags()


def test_files_that_beam_flags_name_mean_the_same_from_every_folder() -> None:
    [package, requirements, prism] = here("setup.py", "r.txt", "prism")
    given = ["--setup_file", "./setup.py", "--requirements_file=r.txt", "--prism_location=prism", "--temp_location=gs://b/t"]
    kept = ("--setup_file", package, f"--requirements_file={requirements}", f"--prism_location={prism}", "--temp_location=gs://b/t")
    assert parse("run", ["--input", "i", "--output", "o", *given]).beam_args == kept
    url = "--prism_location=https://github.com/apache/beam/releases/tag/v2.77.0"
    assert parse("run", ["--input", "i", "--output", "o", url]).beam_args == (url,)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"pair": {"sede": 1}}, "no such setting: pair.sede"),
        ({"pairs": {"seed": 1}}, "no such setting: pairs"),
        ({"shard": {"size": 3}}, "--size 3"),
    ],
)
def test_an_unknown_or_wrong_setting_in_a_config_file_is_named(tmp_path: Path, value: dict[str, Any], message: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=message):
        parse("run", ["--config", str(tmp_path / "c.json"), "--input", "a", "--output", "o"])


@pytest.mark.parametrize("content", [None, "{", "[]", '{"shard": {"size": "256"}}', '{"scan": 3}'])
def test_a_config_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_text(content)
    assert main("run", ["--config", str(path), "--input", "a", "--output", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"pagepairs: --config {path}")


@pytest.mark.parametrize("argv", [["--size", "3"], ["--low", "0.3"], ["--seed", "-1"], ["--low", "0.9", "--high", "0.1"]])
def test_a_value_out_of_range_exits_with_2_and_names_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    try:
        code = main("run", ["--input", str(tmp_path), "--output", str(tmp_path / "o"), *argv])
    except SystemExit as end:  # the parser's own way out
        code = int(end.code or 0)
    assert code == 2
    shown = "".join(capsys.readouterr())
    assert f"{argv[0]} {argv[1]}: " in " ".join(shown.replace("│", " ").split())
    assert not (tmp_path / "o").exists()


def test_a_dry_run_prints_configuration_and_plan_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")
    assert main("run", ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "o"), "--encoder", "builtin", "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["configuration"]["embed"]["encoder"] == "builtin"
    assert (shown["plan"]["stages"][0], shown["plan"]["band"]["low"]) == ("scan", 0.3)
    assert not (tmp_path / "o").exists()


def test_an_input_that_does_not_exist_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("run", ["--input", str(tmp_path / "none.warc"), "--output", str(tmp_path / "o"), "--encoder", "builtin"]) == 3
    assert "none.warc" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_block_list_that_cannot_be_read_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")
    (tmp_path / "list").write_text("example.org\nnot a domain\n")
    argv = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "o"), "--encoder", "builtin", "--block-list"]
    assert main("run", [*argv, str(tmp_path / "none")]) == 2
    assert f"--block-list {tmp_path / 'none'}: " in capsys.readouterr().err
    assert main("run", [*argv, str(tmp_path / "list")]) == 2
    assert "line 2" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_stage_pair_before_scan_exits_with_3_and_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(tmp_path / "config.json", SAVED)
    assert main("pair", ["--output", str(tmp_path)]) == 3
    assert "run `pagepairs scan" in capsys.readouterr().err
