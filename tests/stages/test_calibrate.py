import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters.calibration import inside
from pagepairs.config import Config, PairConfig
from pagepairs.files import read_json, write_json, write_parquet
from pagepairs.manifest import Manifest, read_dataset, read_manifest, write_manifest
from pagepairs.records import embeddings_schema, rows_to_table, vectors_of
from pipeline import calibrate
from pipeline.bands import find_band
from pipeline.commands import main
from pipeline.run import run_stages
from pipeline.scores import score_pairs

Settings = Callable[..., Config]
OTHER = "siglip-base"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, photo: Callable[..., None], settings_of: Settings) -> Path:
    """A run over four pages, and the vectors of a second encoder: a made one, whose cosines lie higher and differ a little."""
    root = tmp_path_factory.mktemp("made")
    for page, seeds in (("one", range(6)), ("two", range(6, 11)), ("three", (0, 1, 20, 21)), ("four", (30, 31))):
        for seed in seeds:
            photo(root / "in" / page / f"{seed}.jpg", seed)
    run_stages(settings_of(root, pair=PairConfig(low=0.0, high=0.2)), ("scan", "embed", "pair"), lambda line: None)
    table = read_dataset(str(root / "out" / "embeddings" / "builtin"))
    rng = np.random.Generator(np.random.Philox(key=1))
    vectors = vectors_of(table["embedding"]).astype(np.float64)
    vectors += rng.normal(0, 0.02, vectors.shape) + 0.05
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_vectors(root / "out", dict(zip(table["image_id"].to_pylist(), vectors.astype(np.float16), strict=True)))
    return root / "out"


def write_vectors(output: Path, vectors: dict[str, np.ndarray], weights: str = "1") -> None:
    rows = [{"image_id": name, "embedding": vector} for name, vector in vectors.items()]
    folder, width = str(output / "embeddings" / OTHER), len(next(iter(vectors.values())))
    file = write_parquet(f"{folder}/unit.parquet", rows_to_table(rows, embeddings_schema(width)))
    counters: dict[str, Any] = {"in": len(rows), "kept": len(rows), "dropped": {}, "errors": 0}
    counters["encoder"] = {"name": OTHER, "weights": weights}
    write_manifest(folder, Manifest(dataset=f"embeddings/{OTHER}", digest="0" * 64, files=(file,), counters=counters))


def vectors_by_id(output: Path, folder: str) -> dict[str, np.ndarray]:
    table = read_dataset(str(output / "embeddings" / folder))
    return dict(zip(table["image_id"].to_pylist(), vectors_of(table["embedding"]).astype(np.float64), strict=True))


def flags(output: Path, **changes: object) -> list[str]:
    values = {"output": output, "reference": "builtin", "low": 0.0, "high": 0.2, "encoder": OTHER} | changes
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def test_scores_are_those_of_the_stored_vectors_each_pair_once(made: Path) -> None:
    scored = score_pairs(str(made), ("builtin", OTHER))
    rows = scored.rows.to_pylist()
    candidates = read_dataset(str(made / "candidates")).to_pylist()
    by_page = {(row["page_key"], row["a_id"], row["b_id"]): row["similarity"] for row in candidates}
    once = sorted({(row["a_id"], row["b_id"]) for row in candidates})
    assert sorted((row["a_id"], row["b_id"]) for row in rows) == once
    assert (scored.found, scored.without_vector) == (len(once), 0)
    assert len(once) == len(candidates) - 1  # the pair of photos 0 and 1 stands on two pages
    assert [by_page[row["page_key"], row["a_id"], row["b_id"]] for row in rows] == scored.similarity[0].tolist()
    other = vectors_by_id(made, OTHER)
    assert scored.similarity[1].tolist() == [float(np.float32(other[row["a_id"]] @ other[row["b_id"]])) for row in rows]
    pages = sorted({row["page_key"] for row in rows})
    assert scored.page.tolist() == [pages.index(row["page_key"]) for row in rows]


def test_a_sample_holds_whole_pages_and_changes_with_the_seed_only(made: Path) -> None:
    whole = score_pairs(str(made), ("builtin", OTHER))
    size = np.bincount(whole.page)
    some = score_pairs(str(made), ("builtin", OTHER), limit=12)
    counted = {name: some.rows["page_key"].to_pylist().count(name) for name in set(some.rows["page_key"].to_pylist())}
    assert 0 < sum(counted.values()) <= 12 or len(counted) == 1
    assert set(counted.values()) <= set(size.tolist())
    assert some.rows.equals(score_pairs(str(made), ("builtin", OTHER), limit=12).rows)
    assert {len(score_pairs(str(made), ("builtin", OTHER), limit=12, seed=seed).rows) for seed in range(8)} != {some.rows.num_rows}


def test_pairs_without_a_vector_are_left_out_and_said(made: Path) -> None:
    vectors = vectors_by_id(made, OTHER)
    try:
        gone = sorted(vectors)[0]
        write_vectors(made, {name: vector.astype(np.float16) for name, vector in vectors.items() if name != gone})
        scored = score_pairs(str(made), ("builtin", OTHER))
        assert scored.without_vector == scored.found - len(scored.page) > 0
        assert gone not in scored.rows["a_id"].to_pylist() + scored.rows["b_id"].to_pylist()
    finally:
        write_vectors(made, {name: vector.astype(np.float16) for name, vector in vectors.items()})


def test_a_calibration_keeps_as_many_pairs_and_pair_reads_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made / "calibration.json"
    assert calibrate.main("calibrate", flags(made)) == 0
    shown = capsys.readouterr()
    found = read_json(str(path))
    scored = score_pairs(str(made), ("builtin", OTHER))
    reference = inside(scored.similarity[0], 0.0, 0.2)
    kept = inside(scored.similarity[1], found["encoder"]["low"], found["encoder"]["high"])
    assert (found["reference"]["kept"], found["encoder"]["kept"]) == (reference.sum(), kept.sum())
    assert kept.sum() == reference.sum()
    assert found["jaccard"] == (reference & kept).sum() / (reference | kept).sum()
    assert found["encoder"]["digest"] == {"name": OTHER, "weights": "1"}
    assert found["intervals"]["low"][0] <= found["encoder"]["low"] <= found["intervals"]["low"][1]
    assert "are a small sample" in found["notes"][0]
    assert f"of {len(scored.page)} pairs of 4 pages" in shown.out
    assert f"pagepairs pair --output {made} --band {path}" in shown.out
    assert [line.split(":")[0] for line in shown.err.splitlines()] == ["calibrate"] * 4

    # The run knows one encoder only: the calibration is of none of its own.
    assert main("pair", ["--output", str(made), "--band", str(path)]) == 2
    assert f"--band {path} is of {OTHER}, this run has --encoder builtin: embed with {OTHER} first" in capsys.readouterr().err
    config = read_json(str(made / "config.json"))
    write_json(str(made / "config.json"), config | {"embed": config["embed"] | {"encoder": f"builtin,{OTHER}"}})
    assert main("pair", ["--output", str(made), "--band", str(path)]) == 0
    counters = read_manifest(str(made / "candidates")).counters
    assert (counters["encoder"], counters["kept"]) == (OTHER, kept.sum())
    band = {"low": found["encoder"]["low"], "high": found["encoder"]["high"], "source": "calibrated: builtin 0 to 0.2"}
    assert counters["band"] == band
    assert "band" not in counters["settings"]

    # Other vectors under the same name; then the first encoder's own numbers again.
    write_json(str(path), found | {"encoder": found["encoder"] | {"digest": {"name": OTHER, "weights": "2"}}})
    assert main("pair", ["--output", str(made)]) == 2
    assert f"is of another {OTHER} (weights '2' there, '1' here): calibrate again" in capsys.readouterr().err
    assert main("pair", ["--output", str(made), "--low", "0", "--high", "0.2"]) == 0
    assert read_manifest(str(made / "candidates")).counters["encoder"] == "builtin"
    write_json(str(made / "config.json"), config)


def test_what_is_missing_is_named_with_the_command(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(arguments: list[str]) -> str:
        assert calibrate.main("calibrate", arguments) == 2
        return capsys.readouterr().err

    command = f"pagepairs embed --output {made} --encoder builtin,clip-b32"
    assert f"--output {made} has no complete vectors of clip-b32: run `{command}` first" in said(flags(made, encoder="clip-b32"))
    both = (
        f"has no complete vectors of dinov2-base and clip-b32: run `pagepairs embed --output {made} --encoder dinov2-base,clip-b32` first"
    )
    assert both in said(flags(made, reference="dinov2-base", encoder="clip-b32"))
    assert "--reference builtin and --encoder builtin are one encoder" in said(flags(made, encoder="builtin"))
    with pytest.raises(ValueError, match=r"--low 0\.5 --high 0\.4: cosines"):
        calibrate.CalibrateConfig(output="out", encoder=OTHER, low=0.5, high=0.4)
    with pytest.raises(ValueError, match="--encoder is missing"):
        calibrate.CalibrateConfig(output="out")
    assert f"--output {tmp_path} holds no run" in said(["--output", str(tmp_path), "--encoder", OTHER])
    assert "the reference keeps none of" in said(flags(made, low=0.999, high=1.0))
    assert f"--reference {OTHER} has no similarity band of its own" in said(
        ["--output", str(made), "--reference", OTHER, "--encoder", "builtin"]
    )


def test_a_band_is_low_and_high_or_a_calibration(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"--band c\.json: leave it out, or --low and --high"):
        PairConfig(band="c.json", low=0.3, high=0.9)
    config = settings()
    siglip = dataclasses.replace(config, embed=dataclasses.replace(config.embed, encoder=OTHER))
    with pytest.raises(
        ValueError, match=r"siglip-base has no .* \(low 0\.65, the paper's; no high cut is published\): .*pagepairs calibrate"
    ):
        find_band(siglip)
    assert find_band(config)[:2] == (0.3, 0.9)
    for name, text, message in (("absent", None, "No such file"), ("other", "{}", "is no calibration.json"), ("bad", "[", "is no cali")):
        path = tmp_path / f"{name}.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ValueError, match=message):
            find_band(dataclasses.replace(config, pair=PairConfig(band=str(path))))
