import subprocess
import sys

import pytest

from pagepairs import __version__
from pagepairs.cli import COMMANDS, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name}" not in out] == []


def test_no_command_is_an_error_and_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: pagepairs COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(("typed", "near"), [("pairs", "pair"), ("shrad", "shard"), ("scna", "scan")])
def test_an_unknown_command_names_the_nearest(typed: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed]) == 2
    assert f"no command '{typed}', the nearest is '{near}'" in capsys.readouterr().err


def test_the_command_is_handed_its_name_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.commands

    seen = []
    monkeypatch.setattr(pipeline.commands, "main", lambda name, argv: seen.append((name, argv)) or 5)
    assert main(["pair", "--low", "0.1"]) == 5
    assert seen == [("pair", ["--low", "0.1"])]


def test_help_loads_neither_beam_nor_torch() -> None:
    heavy = ("apache_beam", "torch", "pyarrow", "tyro")
    code = f"import sys; from pagepairs.cli import main; main(['--help']); sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
