"""The example crawl: the same bytes for a seed, readable by two libraries, and pictures that are what the truth table calls them."""

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastwarc import ArchiveIterator as FastIterator
from fastwarc import WarcRecord, WarcRecordType
from warcio import ArchiveIterator

from dedup.hashes import hamming64
from dedup.near import near_in_buckets
from encoders import band_of, load_encoder
from pagepairs.config import ScanConfig
from pagepairs.files import write_parquet
from pagepairs.images import ImageError, decode
from pagepairs.keys import text_key
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import CANDIDATES, DROPS, EPISODES, IMAGES
from pipeline.look import Look, look

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MARGIN = 0.03
"""How far inside or outside the band the cosine of every named pair lies."""


def run_example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=EXAMPLES.parent, env={"PYTHONPATH": str(EXAMPLES.parent)}, check=False
    )


def is_image(record: WarcRecord) -> bool:
    """Tells whether a response says that it is an image."""
    return record.http_headers is not None and (record.http_headers.get("Content-Type") or "").startswith("image/")


def make(folder: Path, *arguments: str) -> Path:
    done = run_example("make_crawl.py", "--output", str(folder), *arguments)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("crawl"))


@pytest.fixture(scope="module")
def truth(crawl: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (crawl / "truth.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def bodies(crawl: Path) -> dict[str, bytes]:
    """Every response that says it is an image, by its id."""
    found = {}
    for record in ArchiveIterator(io.BytesIO((crawl / "crawl.warc.gz").read_bytes())):
        if record.rec_type == "response" and record.http_headers.get_header("Content-Type", "").startswith("image/"):
            body = record.content_stream().read()
            found[hashlib.sha256(body).hexdigest()] = body
    return found


@pytest.fixture(scope="module")
def looks(bodies: dict[str, bytes]) -> dict[str, Look | str]:
    """What scan's decoder makes of each body: facts, or the reason why there are none."""

    def seen(body: bytes) -> Look | str:
        try:
            return look(body, ScanConfig())
        except ImageError as error:
            return error.reason

    return {name: seen(body) for name, body in bodies.items()}


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_other_bytes(crawl: Path, tmp_path: Path) -> None:
    again, other = make(tmp_path / "again"), make(tmp_path / "other", "--seed", "1")
    for name in ("crawl.warc.gz", "truth.jsonl"):
        assert (again / name).read_bytes() == (crawl / name).read_bytes()
        assert (other / name).read_bytes() != (crawl / name).read_bytes()
    assert (crawl / "crawl.warc.gz").stat().st_size < 30e6


def test_too_few_pages_is_one_clear_sentence(tmp_path: Path) -> None:
    done = run_example("make_crawl.py", "--output", str(tmp_path / "few"), "--pages", "20")
    assert done.returncode == 2
    assert "--pages 20: give at least 21" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "few").exists()


def test_every_outcome_occurs(truth: list[dict[str, str]]) -> None:
    assert {row["expected"] for row in truth if row["record"] == "image"} == {
        *("kept", "empty_body", "http_status", "not_an_image", "unsupported_format", "broken_image", "too_many_pixels", "animated"),
        *("too_small", "aspect", "low_texture", "opt_out"),
    }
    assert {row["expected"] for row in truth if row["record"] == "reference"} == {
        *("kept", "not_in_crawl", "image_dropped", "page_opt_out", "duplicate_on_page", "boilerplate_pages", "boilerplate_hosts"),
        *("copy_removed", "smaller_than_size", "single_image", "same_images_as_other_page"),
    }
    assert {row["expected"] for row in truth if row["record"] == "candidate"} == {"kept", "below_low", "above_high", "on_another_page"}


def test_both_warc_readers_see_the_same_records_and_the_truth_names_each_image(crawl: Path, truth: list[dict[str, str]]) -> None:
    data = (crawl / "crawl.warc.gz").read_bytes()
    slow = Counter((record.rec_type, record.rec_headers.get_header("WARC-Target-URI")) for record in ArchiveIterator(io.BytesIO(data)))
    fast: Counter[tuple[str | None, str | None]] = Counter()
    images: Counter[str | None] = Counter()
    for record in FastIterator(io.BytesIO(data)):
        assert record.verify_payload_digest() or record.record_type == WarcRecordType.revisit
        fast[record.headers["WARC-Type"], record.headers["WARC-Target-URI"]] += 1
        if record.record_type == WarcRecordType.response and is_image(record):
            images[record.headers["WARC-Target-URI"]] += 1
    assert fast == slow
    assert images == Counter(row["image_url"] for row in truth if row["record"] == "image")
    ids = [record.rec_headers.get_header("WARC-Record-ID") for record in ArchiveIterator(io.BytesIO(data))]
    assert len(set(ids)) == len(ids)


def test_the_decoder_finds_what_the_truth_table_says(truth: list[dict[str, str]], looks: dict[str, Look | str]) -> None:
    found, expected = {}, {}
    for row in truth:
        if row["record"] == "image" and row["expected"] not in ("http_status", "opt_out"):  # these two stand in headers
            seen = looks[row["image_id"]]
            found[row["image_url"]] = seen if isinstance(seen, str) else seen.reason or "kept"
            expected[row["image_url"]] = row["expected"]
    assert found == expected


def test_only_intended_copies_are_near_each_other(truth: list[dict[str, str]], looks: dict[str, Look | str]) -> None:
    names: dict[str, set[str]] = {}
    for row in truth:
        seen = looks.get(row["image_id"])
        if row["record"] == "image" and isinstance(seen, Look) and not seen.reason:
            names.setdefault(row["image_id"], set()).add("/".join(row["image_url"].split("/")[3:]))
    ids = sorted(names)
    band, which = np.repeat(np.arange(4, dtype=np.uint8), len(ids)), np.tile(np.arange(len(ids)), 4)
    phash = np.array([looks[name].phash for name in ids], np.uint64)
    pdq = np.stack([np.frombuffer(looks[name].pdq, np.uint8) for name in ids])
    pairs = zip(*near_in_buckets(band, phash[which], pdq[which]), strict=True)
    near = [(which[left], which[right]) for left, right in pairs]
    found = {frozenset(names[ids[a]] | names[ids[b]]): int(hamming64(phash[a], phash[b])) for a, b in near}
    prints = ("prints/large.png", "prints/medium.jpg", "prints/small.webp")
    equal = [("rights/reserved.png", "copies/again.jpg"), ("static/logo.png",)]
    equal += [("photos/114-0.webp", "borrowed/recompressed.jpg"), *combinations(prints, 2)]
    moved = [("photos/114-1.webp", "borrowed/brighter.jpg"), ("refused.jpg", "borrowed/refused.jpg")]
    ours = {frozenset(pair): bits for pair, bits in found.items() if not any("sizes-" in name or "choice-" in name for name in pair)}
    assert ours == {frozenset(pair): ours.get(frozenset(pair)) for pair in [*equal, *moved]}
    assert {ours[frozenset(pair)] for pair in moved} <= {1, 2, 3, 4}


def test_named_pairs_lie_clearly_on_their_side_of_the_band(truth: list[dict[str, str]], bodies: dict[str, bytes]) -> None:
    encoder, band = load_encoder("builtin"), band_of("builtin")
    assert band is not None
    named = [row for row in truth if row["record"] == "candidate"]
    vectors = {}
    for name in {row[end] for row in named for end in ("image_id", "other_id")}:
        image = decode(bodies[name], max_bytes=10**8, max_pixels=10**8, timeout_s=60)
        vectors[name] = encoder.embed(encoder.preprocess(image.rgb)[np.newaxis])[0].astype(np.float16).astype(np.float64)
    limits = {
        "kept": (band.low + MARGIN, band.high - MARGIN),
        "on_another_page": (band.low + MARGIN, band.high - MARGIN),
        "below_low": (-1.0, band.low - MARGIN),
        "above_high": (band.high + MARGIN, 1.001),
    }
    wrong = []
    for row in named:
        cosine = float(vectors[row["image_id"]] @ vectors[row["other_id"]])
        low, high = limits[row["expected"]]
        if not low <= cosine <= high:
            wrong.append((row["page_url"], row["expected"], cosine))
    assert wrong == []


def write_run(output: Path, truth: list[dict[str, str]]) -> None:
    """Writes the datasets that a run leaves when everything goes as the truth table says."""
    rows: dict[str, list[dict[str, object]]] = {"images": [], "drops/scan": [], "drops/pair": [], "episodes": [], "candidates": []}
    for row in truth:
        drop = {
            "stage": row["stage"],
            "reason": row["expected"],
            "error": False,
            "page_url": row["page_url"],
            "image_url": row["image_url"],
        }
        if row["record"] == "candidate":
            reason = "" if row["expected"] == "kept" else row["expected"]
            rows["candidates"].append({"page_url": row["page_url"], "a_id": row["image_id"], "b_id": row["other_id"], "reason": reason})
        elif row["expected"] != "kept":
            rows[f"drops/{row['stage']}"].append({**drop, "detail": row.get("detail", "")})
        elif row["record"] == "image":
            rows["images"].append({"image_url": row["image_url"], "image_id": row["image_id"], "reason": ""})
        else:
            image = {"image_id": row["image_id"] or "canonical", "image_url": row["image_url"]}
            rows["episodes"].append({"page_url": row["page_url"], "images": [image]})
    schemas = {"images": IMAGES, "drops/scan": DROPS, "drops/pair": DROPS, "episodes": EPISODES, "candidates": CANDIDATES}
    for name, schema in schemas.items():
        info = write_parquet(str(output / name / "part.parquet"), pa.Table.from_pylist(rows[name], schema=schema))
        write_manifest(str(output / name), Manifest(dataset=name, digest="", files=(info,), counters={}))


def test_check_accepts_what_the_truth_says(crawl: Path, truth: list[dict[str, str]], tmp_path: Path) -> None:
    write_run(tmp_path, truth)
    done = run_example("check_crawl.py", "--truth", str(crawl / "truth.jsonl"), "--output", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"{len(truth)} of {len(truth)} as the truth table says, 0 that it does not name\n")


def test_check_of_an_unfinished_run_is_one_clear_sentence(crawl: Path, tmp_path: Path) -> None:
    done = run_example("check_crawl.py", "--truth", str(crawl / "truth.jsonl"), "--output", str(tmp_path))
    assert done.returncode == 2
    assert "images does not exist: give the --output of a finished `pagepairs run`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("record", ["image", "reference", "candidate"])
def test_check_finds_what_is_missing_extra_or_different(record: str, crawl: Path, truth: list[dict[str, str]], tmp_path: Path) -> None:
    rows = [dict(row) for row in truth]
    some = [row for row in rows if row["record"] == record and row["expected"] == "kept" and row["image_id"]]
    rows.remove(some[0])
    some[1]["expected"] = "low_texture" if record != "candidate" else "below_low"
    if record != "candidate":  # the truth table names only some candidates
        rows.append({**some[2], "image_url": "https://extra.example/picture.jpg"})
    write_run(tmp_path, rows)
    done = run_example("check_crawl.py", "--truth", str(crawl / "truth.jsonl"), "--output", str(tmp_path))
    *lines, summary = done.stdout.splitlines()
    assert done.returncode == 1
    extra = int(record != "candidate")
    assert summary == f"{len(truth) - 2} of {len(truth)} as the truth table says, {extra} that it does not name"
    assert len(lines) == 2 + extra
    assert sum(line.endswith(", found nothing") for line in lines) == 1
    assert sum(line.endswith(("found low_texture", "found below_low")) for line in lines) == 1
    assert sum(": expected nothing, found kept" in line and "https://extra.example/picture.jpg" in line for line in lines) == extra


def test_first_of_two_pages_is_chosen_by_the_projects_key(truth: list[dict[str, str]]) -> None:
    twins = {row["expected"]: row["page_url"] for row in truth if row["record"] == "candidate" and "/twins/" in row["page_url"]}
    assert text_key(twins["kept"]) < text_key(twins["on_another_page"])
