"""The real crawl, end to end: what goes in comes out somewhere, and every pair is what its row says."""

import hashlib
import io
import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from outputs import assert_conserved, assert_sound, counters, pair_set, rows
from PIL import Image
from warcio.archiveiterator import ArchiveIterator

from pagepairs.keys import pair_id


def read_crawl(path: Path) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Returns the images by URL and the `img` references by page URL, read by other libraries than the product's."""
    images, pages = {}, {}
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type != "response":
                continue
            url, body = record.rec_headers["WARC-Target-URI"], record.content_stream().read()
            if record.http_headers["Content-Type"].startswith("image/"):
                images[url] = body
            else:
                pages[url] = re.findall(r"<img[^>]* src=[\"']?([^\"' >]+)", body.decode())
    return images, pages


def test_counts_of_the_crawl(shared_data: Path, howtocook_run: Path) -> None:
    images, pages = read_crawl(shared_data / "howtocook.warc.gz")
    assert (len(pages), len(images), sum(map(len, pages.values()))) == (40, 154, 165)  # as the crawl's description says
    assert counters(howtocook_run, "images") == {"in": 154, "kept": 154, "dropped": {}, "errors": 0}
    assert {row["image_id"] for row in rows(howtocook_run, "images")} == {hashlib.sha256(body).hexdigest() for body in images.values()}
    assert len(rows(howtocook_run, "pages")) == 40
    assert len(rows(howtocook_run, "links")) == 165
    pair = counters(howtocook_run, "episodes")
    assert pair["in"] == 165
    assert pair["dropped"]["not_in_crawl"] == 11
    assert pair["kept"] + sum(pair["dropped"].values()) - 11 == 154  # those that resolve


def test_every_stage_conserves_and_the_ledger_agrees(howtocook_run: Path) -> None:
    assert_conserved(howtocook_run)
    assert_sound(howtocook_run)


def test_a_run_with_a_pretrained_network(shared_data: Path, tmp_path: Path, pagepairs) -> None:
    [network] = (shared_data / "encoder_mobilenet").glob("*.tflite")
    run = ["run", "--input", shared_data / "howtocook.warc.gz", "--output", tmp_path, "--encoder", f"tflite:{network}"]
    assert pagepairs(*run).code == 2  # nobody measured a band for it
    done = pagepairs(*run, "--low", 0.3, "--high", 0.9)
    assert done.code == 0, done.err
    assert_conserved(tmp_path, f"tflite-{network.stem}")
    assert_sound(tmp_path)
    assert str(network.parent) not in (tmp_path / "candidates" / "manifest.json").read_text()
    assert json.loads((tmp_path / "report" / "report.json").read_text())["similarity"]["encoder"] == f"tflite-{network.stem}"


def test_report_json_says_what_the_manifests_say(howtocook_run: Path) -> None:
    report = json.loads((howtocook_run / "report" / "report.json").read_text())
    stages = {"scan": "images", "embed": "embeddings/builtin", "pair": "episodes", "candidates": "candidates", "shard": "shards"}
    assert set(report["stages"]) == set(stages)
    for stage, dataset in stages.items():
        counted = counters(howtocook_run, dataset)
        assert report["stages"][stage] == {name: counted[name] for name in ("in", "kept", "dropped", "errors")}, stage
    similarity = report["similarity"]
    ledger = np.array([row["similarity"] for row in rows(howtocook_run, "candidates")], np.float64)
    expected, edges = np.histogram(ledger, bins=200, range=(-1, 1))
    np.testing.assert_allclose(similarity["edges"], edges, atol=1e-12)
    assert similarity["counts"] == expected.tolist()
    assert similarity["encoder"] == "builtin"
    inside = (ledger >= similarity["low"]) & (ledger <= similarity["high"])
    assert similarity["kept"] == inside.sum() == len(rows(howtocook_run, "pairs"))


def test_the_table_of_the_same_crawl_gives_the_same_pairs(shared_data: Path, howtocook_run: Path, tmp_path: Path, pagepairs) -> None:
    manifest = shared_data / "crawl_howtocook" / "manifest.jsonl"
    done = pagepairs("run", "--input", manifest, "--output", tmp_path / "out", "--encoder", "builtin")
    assert done.code == 0, done.err
    assert_conserved(tmp_path / "out")
    assert pair_set(tmp_path / "out") == pair_set(howtocook_run)
    assert len(pair_set(howtocook_run)) > 50


def test_every_pair_is_what_its_row_says(shared_data: Path, howtocook_run: Path) -> None:
    images, _ = read_crawl(shared_data / "howtocook.warc.gz")
    links = {(row["page_url"], row["image_url"]) for row in rows(howtocook_run, "links")}
    vectors = {
        row["image_id"]: np.array(row["embedding"], np.float16).astype(np.float64) for row in rows(howtocook_run, "embeddings/builtin")
    }
    band = counters(howtocook_run, "candidates")["band"]
    pairs = rows(howtocook_run, "shards")
    assert len(pairs) > 50
    for row in pairs:
        assert (row["page_url"], row["condition_url"]) in links
        assert (row["page_url"], row["target_url"]) in links
        assert row["pair_id"] == pair_id(row["condition_id"], row["target_id"])
        for side in ("condition", "target"):
            # On this crawl no image has a copy, so the id is that of what stands under its own URL.
            assert hashlib.sha256(images[row[f"{side}_url"]]).hexdigest() == row[f"{side}_id"]
            assert Image.open(io.BytesIO(row[f"{side}_image"])).size == (256, 256)
        similarity = np.float32(np.dot(vectors[row["condition_id"]], vectors[row["target_id"]]))
        assert similarity == np.float32(row["similarity"])
        assert band["low"] <= similarity <= band["high"]
    assert len({row["pair_id"] for row in pairs}) == len({frozenset((r["condition_id"], r["target_id"])) for r in pairs}) == len(pairs)


def test_a_pairs_reference_holds_the_image_that_its_id_names(shared_data: Path, howtocook_run: Path) -> None:
    with (shared_data / "howtocook.warc.gz").open("rb") as file:
        for row in rows(howtocook_run, "pairs"):
            for side in ("condition", "target"):
                assert row[f"{side}_source"] == "howtocook.warc.gz"
                file.seek(row[f"{side}_offset"])
                record = next(iter(ArchiveIterator(io.BytesIO(file.read(row[f"{side}_length"])))))
                assert hashlib.sha256(record.content_stream().read()).hexdigest() == row[f"{side}_id"]


def test_pixels_are_those_of_the_image_cropped_to_its_centre(shared_data: Path, howtocook_run: Path) -> None:
    images, _ = read_crawl(shared_data / "howtocook.warc.gz")
    by_id = {hashlib.sha256(body).hexdigest(): body for body in images.values()}
    for row in rows(howtocook_run, "shards")[::10]:
        source = Image.open(io.BytesIO(by_id[row["target_id"]])).convert("RGB")
        side = min(source.size)
        left, top = (source.width - side) // 2, (source.height - side) // 2
        wanted = source.resize((64, 64), Image.Resampling.BOX, box=(left, top, left + side, top + side))
        found = Image.open(io.BytesIO(row["target_image"])).resize((64, 64), Image.Resampling.BOX)
        assert np.abs(np.asarray(wanted, np.float64) - np.asarray(found, np.float64)).mean() < 4


def test_vectors_are_float16_of_unit_length(howtocook_run: Path) -> None:
    table = pq.read_table(next((howtocook_run / "embeddings" / "builtin").glob("*.parquet")))
    vectors = np.stack(table["embedding"].to_numpy()).astype(np.float64)
    assert str(table.schema.field("embedding").type.value_type) == "halffloat"
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3


def test_shards_open_with_duckdb(howtocook_run: Path) -> None:
    found = duckdb.sql(
        f"select pair_id, similarity, octet_length(condition_image) n from '{howtocook_run}/shards/*.parquet' order by pair_id"
    ).fetchall()
    expected = [(row["pair_id"], row["similarity"], len(row["condition_image"])) for row in rows(howtocook_run, "shards")]
    assert found == sorted(expected)


def test_shards_open_with_pyarrow_as_a_folder(howtocook_run: Path) -> None:
    table = pq.read_table(sorted((howtocook_run / "shards").glob("*.parquet")))
    assert table.column_names == [
        *("pair_id", "page_url", "condition_id", "target_id", "condition_url", "target_url", "similarity"),
        *("condition_image", "target_image"),
    ]
    assert str(table.schema.field("similarity").type) == "float"
    assert all(group <= 256 for group in _row_groups(howtocook_run / "shards"))


def _row_groups(folder: Path) -> list[int]:
    files = [pq.ParquetFile(path) for path in folder.glob("*.parquet")]
    sizes = [file.metadata.row_group(group).num_rows for file in files for group in range(file.num_row_groups)]
    for file in files:
        file.close()
    return sizes


def test_shards_open_with_datasets(howtocook_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    files = [str(path) for path in sorted((howtocook_run / "shards").glob("*.parquet"))]
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path), split="train")
    assert found["pair_id"][:] == [row["pair_id"] for row in rows(howtocook_run, "shards")]
    for side in ("condition", "target"):
        assert Image.open(io.BytesIO(found[0][f"{side}_image"])).size == (256, 256)
    decoded = found.cast_column("condition_image", datasets.Image())
    assert decoded[0]["condition_image"].size == (256, 256)
