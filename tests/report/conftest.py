"""A small consistent run folder with real JPEGs in a folder source, and texts that want to break the page."""

import hashlib
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pagepairs.files import write_json, write_parquet
from pagepairs.images import encode_jpeg
from pagepairs.keys import pair_id, text_key
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import CANDIDATES, DROPS, EPISODES, IMAGES, PAIRS, SHARDS, UNITS, embeddings_schema, rows_to_table
from pipeline.report import write_report
from pipeline.runners import pipeline_options
from pipeline.sources import SourceMap, find_units

LOW, HIGH = 0.3, 0.9
HOSTILE_PAGE = "https://evil.example/\"><script>alert(1)</script>/\u202egnp.exe?q='&quot;<!--"
HOSTILE_ALT = '</script><script>alert(2)</script><img src=x onerror="alert(3)">\u2066\u202e{{ 7 * 7 }}'
HOSTILE_URL = "javascript:alert(4)//\x1b[31m\"'><svg onload=alert(5)>"
PAGE_SIZES = (5, 4, 4, 3, 2, 2)


DUPLICATES = {"captures": 20, "exact_copy": 3, "equal_hash": 2, "near_hash": 1, "kept": 14, "near_pairs": 1, "groups": {"2": 1}}
DUPLICATES |= {"components": {"2": 1}}
APPEARANCES = {
    "pages": {"most": 20, "images": {"1": 11, "2": 3, "5-8": 1, "17-32": 1}},
    "hosts": {"most": 5, "images": {"1": 15, "3-4": 1}},
}


@dataclass(frozen=True, kw_only=True)
class MadeRun:
    """A run folder, its crawl, and the rows that it was made from."""

    output: str
    crawl: str
    candidates: list[dict[str, Any]]
    episodes: list[dict[str, Any]]
    images: list[dict[str, Any]]
    drops: list[dict[str, Any]]
    duplicates: dict[str, Any] = field(default_factory=dict)

    def write_report(self) -> str:
        options = pipeline_options((), 1)
        return write_report(self.output, locate=SourceMap(find_units((self.crawl,)), self.output), pipeline_options=options)


def write_dataset(output: str, name: str, tables: list[pa.Table], counters: dict[str, Any] | None = None) -> None:
    folder = os.path.join(output, name)
    files = [write_parquet(os.path.join(folder, f"part-{i:05d}.parquet"), table) for i, table in enumerate(tables)]
    write_manifest(folder, Manifest(dataset=name, digest="0" * 64, files=tuple(files), counters=counters or {}))


def make_images(crawl: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    rows = []
    for page, size in enumerate(PAGE_SIZES):
        for number in range(size):
            width, height = 240 + 40 * number, 200 + 60 * page
            colours = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            rgb = np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC))
            path = crawl / f"p{page}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(np.ascontiguousarray(rgb), 90))
            rows.append(image_row(path.read_bytes(), f"p{page}/{number}.jpg", width, height))
    return rows


def image_row(body: bytes, source: str, width: int, height: int) -> dict[str, Any]:
    url = f"https://host{source[1]}.example/{source}"
    found = {"image_id": hashlib.sha256(body).hexdigest(), "image_url": url, "url_key": text_key(url), "bytes": len(body)}
    place = {"source": source, "offset": 0, "length": len(body), "width": width, "height": height, "format": "jpeg"}
    return found | place | {"phash": 1, "pdq": bytes(32), "texture": 90, "time": None, "digest_key": "", "reason": ""}


def make_episodes(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for page in range(len(PAGE_SIZES)):
        members = [image for image in images if image["source"].startswith(f"p{page}/")]
        if page == 5:  # shows a pair of page 0 too
            members += [image for image in images if image["source"] in ("p0/0.jpg", "p0/1.jpg")]
        url = HOSTILE_PAGE if page == 0 else f"https://site{page % 2}.example/stories/{page}"
        shown = [
            {
                "image_id": image["image_id"],
                "image_url": image["image_url"],
                "position": at,
                "alt": HOSTILE_ALT if at == 0 else f"view {at}",
            }
            | {"width": image["width"], "height": image["height"]}
            for at, image in enumerate(members)
        ]
        rows.append({"page_url": url, "page_key": text_key(url), "images": shown})
    return rows


def make_candidates(episodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for episode in sorted(episodes, key=lambda row: row["page_key"]):
        for a, b in itertools.combinations(sorted(episode["images"], key=lambda image: image["image_id"]), 2):
            # A function of the pair alone; spread over the scale, some of them on edges of bins.
            similarity = float(np.float32(round(int(text_key(a["image_id"] + b["image_id"])[:4], 16) / 65535 * 1.2 - 0.2, 2)))
            reason = "below_low" if similarity < LOW else "above_high" if similarity > HIGH else ""
            if not reason and any((row["a_id"], row["b_id"]) == (a["image_id"], b["image_id"]) for row in rows):
                reason = "on_another_page"
            ids = {"a_id": a["image_id"], "b_id": b["image_id"], "a_url": a["image_url"], "b_url": b["image_url"]}
            rows.append(
                {"page_url": episode["page_url"], "page_key": episode["page_key"], **ids, "similarity": similarity, "reason": reason}
            )
    return rows


def make_pairs(candidates: list[dict[str, Any]], images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    place = {image["image_id"]: image for image in images}
    rows = []
    for row in candidates:
        if row["reason"] == "":
            sides: dict[str, Any] = {}
            for name, side in (("condition", "a"), ("target", "b")):
                image = place[row[f"{side}_id"]]
                sides |= {f"{name}_id": row[f"{side}_id"], f"{name}_url": row[f"{side}_url"], f"{name}_alt": ""}
                sides |= {f"{name}_{column}": image[column] for column in ("source", "offset", "length")}
            found = {"pair_id": pair_id(sides["condition_id"], sides["target_id"]), "page_count": 1}
            rows.append(found | {"page_url": row["page_url"], "similarity": row["similarity"]} | sides)
    return sorted(rows, key=lambda row: row["pair_id"])


def make_drops() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "stage": "scan",
            "reason": "too_small",
            "error": False,
            "page_url": "",
            "image_url": f"https://host.example/icon-{i}.png",
            "detail": "16 x 16",
        }
        for i in range(40)
    ]
    rows.append(
        {"stage": "scan", "reason": "broken_record", "error": True, "page_url": "", "image_url": "", "detail": "crawl.warc.gz at 812"}
    )
    rows.append(
        {"stage": "pair", "reason": "not_in_crawl", "error": False, "page_url": HOSTILE_PAGE, "image_url": HOSTILE_URL, "detail": ""}
    )
    for reason in ("too_small", "too_small", "animated"):
        dropped = {"stage": "pair", "reason": "image_dropped", "error": False, "page_url": "https://site1.example/", "detail": reason}
        rows.append(dropped | {"image_url": f"https://host.example/{HOSTILE_ALT}"})
    return rows


def count_stage(rows: list[dict[str, Any]], kept: int, stage: str) -> dict[str, Any]:
    of_stage = [row for row in rows if row["stage"] == stage]
    dropped: dict[str, int] = {}
    for row in of_stage:
        if not row["error"]:
            dropped[row["reason"]] = dropped.get(row["reason"], 0) + 1
    return {"in": kept + len(of_stage), "kept": kept, "dropped": dropped, "errors": sum(row["error"] for row in of_stage)}


def build_run(root: Path) -> MadeRun:
    """Writes a crawl and what a run over it leaves behind, without a report."""
    crawl, output = root / "crawl", str(root / "out")
    images = make_images(crawl)
    episodes, drops = make_episodes(images), make_drops()
    candidates = make_candidates(episodes)
    pairs = make_pairs(candidates, images)
    reasons = [row["reason"] for row in candidates]
    bins = [min(199, int(np.floor((row["similarity"] + 1) * 100))) for row in candidates]
    ledger = {"in": len(candidates), "kept": reasons.count(""), "errors": 0}
    ledger |= {"dropped": {reason: reasons.count(reason) for reason in ("below_low", "above_high", "on_another_page") if reason in reasons}}
    ledger |= {"histogram": {"low": -1.0, "high": 1.0, "counts": [bins.count(i) for i in range(200)]}}
    ledger |= {"encoder": "builtin", "band": {"low": LOW, "high": HIGH, "source": "measured"}}
    # Rows of a page stand in several files, rows of a pair in one.
    parts = [[row for row in candidates if int(row["a_id"][:2], 16) % 2 == part] for part in (0, 1)]
    members = sum(len(episode["images"]) for episode in episodes)

    write_dataset(
        output, "images", [rows_to_table(images[:7], IMAGES), rows_to_table(images[7:], IMAGES)], count_stage(drops, len(images), "scan")
    )
    write_dataset(output, "units", [rows_to_table(images, UNITS)])
    vectors = [{"image_id": image["image_id"], "embedding": np.array([1, 0], np.float16)} for image in images]
    write_dataset(output, "embeddings/builtin", [rows_to_table(vectors, embeddings_schema(2))], count_stage([], len(images), "embed"))
    pair_counts = count_stage(drops, members, "pair") | {"not_sampled": 3, "duplicates": DUPLICATES, "appearances": APPEARANCES}
    write_dataset(output, "episodes", [rows_to_table(episodes[:2], EPISODES), rows_to_table(episodes[2:], EPISODES)], pair_counts)
    write_dataset(output, "candidates", [rows_to_table(part, CANDIDATES) for part in parts], ledger)
    write_dataset(output, "pairs", [rows_to_table(pairs, PAIRS)])
    bodies = {image["image_id"]: (crawl / image["source"]).read_bytes() for image in images}
    shards = [row | {f"{side}_image": bodies[row[f"{side}_id"]] for side in ("condition", "target")} for row in pairs]
    write_dataset(output, "shards", [rows_to_table(shards, SHARDS)], count_stage([], len(pairs), "shard"))
    for stage in ("scan", "embed", "pair", "shard"):
        name = "embed-builtin" if stage == "embed" else stage
        write_dataset(output, f"drops/{name}", [rows_to_table([row for row in drops if row["stage"] == stage], DROPS)])
    write_settings(output, str(crawl))
    return MadeRun(
        output=output, crawl=str(crawl), candidates=candidates, episodes=episodes, images=images, drops=drops, duplicates=DUPLICATES
    )


def write_settings(output: str, crawl: str) -> None:
    scan = {"input": [crawl], "max_bytes": 50_000_000, "max_pixels": 100_000_000, "decode_timeout_s": 60.0, "animations": "drop"}
    write_json(os.path.join(output, "config.json"), {"scan": scan, "pair": {"low": None, "high": None}, "run": {"output": output}})
    stages = {stage: {"seconds": 2.0, "records": 10} for stage in ("scan", "embed", "pair", "shard")}
    write_json(os.path.join(output, "run.json"), {"stages": stages, "versions": {"python": "3.11"}, "runner": "FnApiRunner"})


@pytest.fixture
def made_run(tmp_path: Path) -> MadeRun:
    """A run folder of one's own, to be changed at will, without a report."""
    return build_run(tmp_path)


@pytest.fixture(scope="session")
def reported_run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """A run folder with its report; not to be changed."""
    run = build_run(tmp_path_factory.mktemp("reported"))
    run.write_report()
    return run
