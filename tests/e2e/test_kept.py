"""What an output folder holds is kept where it still holds, done again where it does not, and never mixed."""

import json
import os
import shutil
from pathlib import Path

import pytest
from made_crawls import site, write_site, write_warc
from outputs import assert_conserved, assert_sound, counters, data_hashes, journal_files

STAGES = ("scan", "embed", "pair", "shard")


@pytest.fixture
def copied_run(site_run: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(site_run, tmp_path / "out"))


def places(output: Path, *datasets: str) -> dict[str, int]:
    """Returns the inode of every file of the datasets; a file that is written again gets another."""
    return {str(path): path.stat().st_ino for name in datasets for path in (output / name).rglob("*") if path.is_file()}


def kept_stages(err: str) -> list[str]:
    return [line.split(":")[0] for line in err.splitlines() if ": kept, " in line]


def rebuilt_stages(err: str) -> list[str]:
    return [line.split(":")[0] for line in err.splitlines() if "building it again, then replacing it" in line]


def test_the_same_command_again_keeps_every_stage(site_files: list[Path], copied_run: Path, pagepairs) -> None:
    datasets = ("images", "pages", "links", "aliases", "units", "embeddings", "drops", ".work/scan")
    datasets += ("episodes", "candidates", "pairs", "shards")
    before = places(copied_run, *datasets)
    done = pagepairs("run", "--input", *site_files, "--output", copied_run, "--encoder", "builtin")
    assert (done.code, kept_stages(done.err), rebuilt_stages(done.err)) == (0, list(STAGES), [])
    assert places(copied_run, *datasets) == before


def test_another_band_redoes_pair_and_shard_and_says_so(
    site_files: list[Path], site_run: Path, copied_run: Path, tmp_path: Path, pagepairs
) -> None:
    kept = places(
        copied_run, "images", "pages", "links", "aliases", "units", "embeddings", "drops/scan", "drops/embed-builtin", ".work/scan"
    )
    done = pagepairs("run", "--input", *site_files, "--output", copied_run, "--encoder", "builtin", "--low", 0.7, "--high", 0.8)
    assert (done.code, kept_stages(done.err), rebuilt_stages(done.err)) == (0, ["scan", "embed"], ["pair", "shard"]), done.err
    assert kept == {path: inode for path, inode in places(copied_run, ".").items() if path in kept}
    assert_conserved(copied_run)
    assert_sound(copied_run)
    report = json.loads((copied_run / "report" / "report.json").read_text())
    assert (report["similarity"]["low"], report["similarity"]["high"]) == (0.7, 0.8)
    dropped = counters(copied_run, "candidates")["dropped"]
    assert dropped["below_low"] > 0
    assert dropped["above_high"] > 0
    fresh = tmp_path / "fresh"
    pagepairs("run", "--input", *site_files, "--output", fresh, "--encoder", "builtin", "--low", 0.7, "--high", 0.8)
    assert data_hashes(copied_run) == data_hashes(fresh)
    back = pagepairs("run", "--input", *site_files, "--output", copied_run, "--encoder", "builtin")
    assert (kept_stages(back.err), rebuilt_stages(back.err)) == (["scan", "embed"], ["pair", "shard"])
    assert data_hashes(copied_run) == data_hashes(site_run)


def test_another_shard_setting_redoes_shard_only(copied_run: Path, pagepairs) -> None:
    before = places(copied_run, "images", "embeddings", "episodes", "candidates", "pairs")
    done = pagepairs("shard", "--output", copied_run, "--quality", 60)
    assert (done.code, kept_stages(done.err), rebuilt_stages(done.err)) == (0, [], ["shard"])
    assert places(copied_run, "images", "embeddings", "episodes", "candidates", "pairs") == before
    assert_conserved(copied_run)


def test_other_scan_settings_are_refused_with_the_difference(site_files: list[Path], site_run: Path, copied_run: Path, pagepairs) -> None:
    command = ["run", "--input", *site_files, "--output", copied_run, "--encoder", "builtin", "--min-side-px", 270]
    config = (copied_run / "config.json").read_bytes()
    done = pagepairs(*command)
    assert done.code == 2
    assert "min_side_px was 200, is 270" in done.err
    assert "--rebuild" in done.err
    assert len(done.err.splitlines()) == 1
    assert data_hashes(copied_run) == data_hashes(site_run)
    assert (copied_run / "config.json").read_bytes() == config
    rebuilt = pagepairs(*command, "--rebuild")
    assert rebuilt.code == 5  # all pictures are 280 x 260
    assert counters(copied_run, "images")["dropped"] == {"too_small": 24}
    assert "--rebuild: throwing away" in rebuilt.err
    assert_conserved(copied_run)
    assert_sound(copied_run)


def test_more_input_adds_units_and_keeps_what_was_scanned(site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs) -> None:
    output = tmp_path / "out"
    first = pagepairs("run", "--input", *site_files[:2], "--output", output, "--encoder", "builtin")
    assert first.code == 0, first.err
    journal, vectors = journal_files(output), places(output, "embeddings/builtin")
    vectors = {path: inode for path, inode in vectors.items() if not path.endswith("manifest.json")}
    assert (len(journal), len(vectors)) == (4, 2)  # two units of scan, two of embed
    done = pagepairs("run", "--input", *site_files, "--output", output, "--encoder", "builtin")
    assert done.code == 0, done.err
    assert "scan: 2 of 4 units were scanned before and are kept" in done.err
    assert "embed: 2 of 4 units were embedded before and are kept" in done.err
    assert journal.items() <= journal_files(output).items()
    assert vectors.items() <= places(output, "embeddings/builtin").items()
    assert data_hashes(output) == data_hashes(site_run)
    assert_sound(output)


@pytest.mark.slow
def test_less_input_leaves_nothing_of_the_rest(site_files: list[Path], copied_run: Path, tmp_path: Path, pagepairs) -> None:
    done = pagepairs("run", "--input", *site_files[:2], "--output", copied_run, "--encoder", "builtin")
    assert done.code == 0, done.err
    fresh = tmp_path / "fresh"
    pagepairs("run", "--input", *site_files[:2], "--output", fresh, "--encoder", "builtin")
    assert data_hashes(copied_run) == data_hashes(fresh)
    again = pagepairs("run", "--input", *site_files, "--output", copied_run, "--encoder", "builtin")
    assert again.code == 0, again.err  # the journal still knows the first run, so its files must still be there or be made again
    assert_conserved(copied_run)
    assert_sound(copied_run)


def test_a_changed_crawl_file_is_scanned_again(tmp_path: Path, pagepairs) -> None:
    files = write_site(tmp_path / "crawl", files=3, pages=6)
    output, fresh = tmp_path / "out", tmp_path / "fresh"
    assert pagepairs("run", "--input", *files, "--output", output, "--encoder", "builtin").code == 0
    at_first, stat, data = data_hashes(output), files[1].stat(), files[1].read_bytes()
    write_warc(files[1], site([1, 4, 7]))
    done = pagepairs("run", "--input", *files, "--output", output, "--encoder", "builtin")
    assert done.code == 0, done.err
    assert "scan: 2 of 3 units were scanned before and are kept" in done.err
    assert counters(output, "images")["in"] == 21
    pagepairs("run", "--input", *files, "--output", fresh, "--encoder", "builtin")
    assert data_hashes(output) == data_hashes(fresh)
    files[1].write_bytes(data)
    os.utime(files[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert pagepairs("run", "--input", *files, "--output", output, "--encoder", "builtin").code == 0
    assert data_hashes(output) == at_first


def test_a_file_of_other_content_that_looks_the_same_is_noticed_when_it_is_read(tmp_path: Path, pagepairs) -> None:
    """Size and modification time say that nothing changed; the ids that embed and shard check say otherwise."""
    file = write_warc(tmp_path / "crawl.warc.gz", site(range(3)))
    output = tmp_path / "out"
    assert pagepairs("run", "--input", file, "--output", output, "--encoder", "builtin").code == 0
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[-200] ^= 255  # in the last image
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = pagepairs("shard", "--output", output, "--quality", 90)
    assert done.code == 0, done.err
    assert "scan:" not in done.err
    expected = {"in": 9, "kept": 7, "dropped": {"source_changed": 2}, "errors": 0}
    assert {name: counters(output, "shards")[name] for name in expected} == expected
    assert_conserved(output)


def test_limit_then_everything_then_limit(site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs) -> None:
    quick = pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin", "--limit", 5)
    assert quick.code == 0, quick.err
    assert counters(tmp_path, "images")["in"] == 5
    assert_conserved(tmp_path)
    quick_hashes = data_hashes(tmp_path)
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin")
    assert done.code == 0, done.err
    assert data_hashes(tmp_path) == data_hashes(site_run)
    assert_sound(tmp_path)
    assert pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin", "--limit", 5).code == 0
    assert data_hashes(tmp_path) == quick_hashes


def test_stage_by_stage_is_the_same_as_run(site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs) -> None:
    output = tmp_path / "out"
    assert pagepairs("scan", "--input", *site_files, "--output", output).code == 0
    early = pagepairs("pair", "--output", output, "--low", 0.3, "--high", 0.9)
    assert early.code == 3
    assert "pagepairs embed" in early.err
    assert pagepairs("embed", "--output", output, "--encoder", "builtin").code == 0
    for stage in ("pair", "shard", "report"):
        done = pagepairs(stage, "--output", output)
        assert done.code == 0, done.err
    ours = data_hashes(output)
    if ours != data_hashes(site_run):  # the band was given above, which digest and card say; the rows are the same
        ours = {name: value for name, value in ours.items() if not name.endswith(("manifest.json", "shards/README.md"))}
    assert ours.items() <= data_hashes(site_run).items()
    assert_sound(output)


def test_a_strange_folder_is_not_written_to(site_files: list[Path], tmp_path: Path, pagepairs) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_bytes(b"mine")
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin")
    assert done.code == 2
    assert "another --output" in done.err
    assert (tmp_path / "images" / "holiday.jpg").read_bytes() == b"mine"
