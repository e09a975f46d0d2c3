"""The report's decontamination page: which benchmark images were in the crawl, which images came near, and a statement for a paper."""

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.manifest import dataset_files, find_manifest, read_dataset
from pagepairs.records import MATCHES
from pipeline.pair_matches import shown_mask
from pipeline.report_thumbnails import Thumbnail

PUBLISHED = (
    ("WebLI (PaLI), near-duplicates of 68 test sets, share of the crawl", "0.36 %"),
    ("FineVision, SSCD above 0.95 to 66 test sets, share of the images", "about 1 %"),
    ("CLIP, median of 35 test sets, share of the test set that is in the crawl", "2.2 %"),
)
"""What others removed, or found."""
_COLUMNS = ("image_id", "image_url", "benchmark", "item_id", "item", "phash_distance", "pdq_distance", "similarity", "signal")


def read_matches(output: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Returns what matches/ counted and the rows to show, with their thumbnails; None where no benchmark was kept out."""
    folder = os.path.join(output, "matches")
    manifest = find_manifest(folder)
    if manifest is None or not manifest.counters.get("benchmarks"):
        return None
    table = read_dataset(folder) if dataset_files(folder) else MATCHES.empty_table()
    shown = table.filter(pa.array(shown_mask(table)))
    order = [("benchmark", "ascending"), ("similarity", "ascending"), ("pdq_distance", "descending"), ("image_id", "ascending")]
    matches, survivors = (shown.filter(pc.equal(pc.equal(shown["signal"], ""), near)).sort_by(order).to_pylist() for near in (False, True))
    return dict(manifest.counters), [*matches, *survivors[::-1]]


def decontamination(counters: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the part of report.json about benchmarks."""
    return {
        "images": counters["images"],
        "flat": counters["flat"],
        "matched": counters["matched"],
        "published": [list(row) for row in PUBLISHED],
        "benchmarks": [dict(benchmark) | {"statement": statement(benchmark, counters["images"])} for benchmark in counters["benchmarks"]],
        "rows": [{name: row[name] for name in _COLUMNS} for row in rows],
    }


def match_pictures(rows: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, Thumbnail]) -> dict[str, str]:
    """Returns pictures as data URIs: of crawled images by id, of benchmark items by benchmark and id."""
    pictures = {image_id: thumbnail.data_uri for image_id, thumbnail in thumbnails.items()}
    for row in rows:
        if row["thumbnail"]:
            encoded = base64.b64encode(row["thumbnail"]).decode()
            pictures[f"{row['benchmark']}/{row['item_id']}"] = f"data:image/webp;base64,{encoded}"
    return pictures


def wanted_thumbnails(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the crawled images of the rows, as `read_thumbnails` takes them."""
    return [{"a_id": row["image_id"], "b_id": row["image_id"]} for row in rows]


def statement(benchmark: Mapping[str, Any], images: int) -> str:
    """Returns what a paper may say about one benchmark: what was compared with what, how, what was removed and what that misses."""
    return " ".join(_sentences(benchmark, images))


def _sentences(benchmark: Mapping[str, Any], images: int) -> Iterator[str]:
    versions, digest = benchmark["versions"], benchmark["encoder_digest"]
    # A list of hashes holds no files: neither bytes nor changes of them could be compared.
    by_bytes = "all were compared by their bytes, " if benchmark["calibration"] or benchmark["flat_items"] else ""
    by_hash = f"{benchmark['compared_by_hash']:,} {'' if by_bytes else 'were compared '}by perceptual hash"
    by_embedding = f" and {benchmark['compared_by_embedding']:,} by embedding" if digest else ""
    yield (
        f"Of the {images:,} distinct images of the crawl, {by_bytes}{by_hash}{by_embedding} "
        f"with the {benchmark['items']:,} images of {benchmark['name']}{_flat(benchmark)} "
        f"(pagepairs {versions['pagepairs']}, index {benchmark['content'][:16]}); "
        f"{benchmark['matched']:,} ({_share(benchmark['matched'], images)}) "
        "matched and were removed with all their copies before pairs were formed."
    )
    yield f"An image matches by hash ({benchmark['hash_rule']}; pdqhash {versions['pdqhash']})"
    if digest is None:
        yield "alone."
    else:
        yield (
            f"or by a cosine of at least {benchmark['cut']:.4g} ({benchmark['cut_source']}) between embeddings of {digest['name']} "
            f"(weights sha256 {digest['weights'][:16] or 'none'}, preprocessing {digest['preprocessing']}, {digest['library']}; "
            f"FAISS {versions['faiss-cpu']}, {benchmark['search']['kind']} index, "
            f"decision recall {benchmark['search']['decision_recall']:.4f})."
        )
    calibration = benchmark["calibration"]
    if calibration:
        missed = [f"{row['change']} {row['neither']} of {row['images']}" for row in calibration["changes"] if row["neither"]]
        changed = f"{calibration['images']:,} of its images that are not flat"
        yield f"Of {changed}, after seeded changes, both signals together miss: {', '.join(missed) or 'none'}."
        unrelated = calibration["unrelated"]
        wrong = max(unrelated["hash"], unrelated.get("embedding", 0))
        yield f"False matches among {unrelated['images']:,} images ({unrelated['source']}): {wrong:,}."


def _flat(benchmark: Mapping[str, Any]) -> str:
    """What was not compared in earnest: flat images of the test set."""
    return f", {benchmark['flat_items']:,} of them flat and compared by their bytes alone" if benchmark["flat_items"] else ""


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.3g} %"
