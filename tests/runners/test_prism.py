"""Beam's Prism, asked for by name: another program with another order of bundles gives the same bytes."""

from pathlib import Path

from outputs import assert_conserved, assert_sound, data_hashes


def test_prism_gives_the_bytes_of_the_local_runner(site: Path, site_run: Path, prism: Path, tmp_path: Path, shell) -> None:
    flags = ["--runner=PrismRunner", f"--prism_location={prism}"]
    done = shell("run", "--input", site, "--output", tmp_path / "out", "--encoder", "builtin", *flags)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert data_hashes(tmp_path / "out") == data_hashes(site_run)
    assert_conserved(tmp_path / "out")
    assert_sound(tmp_path / "out")
