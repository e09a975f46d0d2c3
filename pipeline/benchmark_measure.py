"""What an index finds: its images are changed by seed, the cut is set or taken, and both signals are counted on what came out."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dedup.benchmark_build import check_recall, write_vectors
from dedup.benchmark_cut import Seen, choose_cut, mild_similarities, nearest_others, nearest_similarities, recall_table
from dedup.benchmark_hashes import MIN_TEXTURE, HashSearch, match_all, match_hashes, pdq_array
from dedup.benchmark_vectors import OpenVectors, choose_search, nearest_items, open_vectors
from dedup.changes import CHANGES, change
from dedup.hashes import pdq256, phash64
from encoders import Encoder, embed_all
from pagepairs.images import working_image
from pagepairs.keys import mix, prefix64
from pipeline.ahead import map_ahead
from pipeline.benchmark_config import BenchmarkConfig
from pipeline.benchmark_images import SCAN, Items, read_items
from pipeline.benchmark_items import Item, find_items
from pipeline.look import pixels


def measure(
    folder: str, items: Items, hashes: HashSearch, encoder: Encoder | None, config: BenchmarkConfig
) -> Generator[str, None, dict[str, Any]]:
    """Writes the vectors of an index and measures what it finds; yields lines for the user, returns cut, search and calibration."""
    found: dict[str, Any] = {"cut": 0.0, "cut_source": "", "search": None, "calibration": None}
    if not items.paths:
        return found
    ids, rows, flat = items.table["item_id"].to_pylist(), _sample(items.table, config), int(hashes.kinds_K[-1])
    changed = dict(_see_changed([(items.paths[row], ids[row]) for row in rows], encoder, config))
    similarities, vectors = None, None
    if encoder is not None and items.vectors_ND is not None:
        search = choose_search(items.table.num_rows, kind=config.index, candidates=config.candidates, nprobe=config.nprobe)
        write_vectors(folder, items.vectors_ND, search)
        vectors = open_vectors(folder, search)
        similarities = {kind: nearest_similarities(vectors, seen) for kind, seen in changed.items()}
        if config.cut is not None:
            cut, source = config.cut, "--cut"
        else:
            cut, source = choose_cut(encoder.name, encoder.width, mild_similarities(changed, similarities))
        found |= {"cut": cut, "cut_source": source, "search": check_recall(folder, search, cut=cut, seed=config.seed)}
        yield f"cut {cut} ({source}); {search.kind} index, decision recall {found['search']['decision_recall']:.4f}"
    if not len(rows):
        return found
    table = recall_table(changed, hashes, similarities, found["cut"])
    if flat:
        yield f"{flat:,} flat image{'s' * (flat > 1)} left out of cut and recall: no change of them is looked for"
    yield from _show(table)
    if config.unrelated:
        unrelated = _match_unrelated(hashes, vectors, encoder, config, found["cut"])
    else:
        unrelated = _match_each_other(hashes, items, rows, found["cut"])
    yield _false_matches(unrelated)
    return found | {"calibration": {"changes": table, "unrelated": unrelated, "seed": config.seed, "images": len(rows), "flat": flat}}


def _match_unrelated(
    hashes: HashSearch, vectors: OpenVectors | None, encoder: Encoder | None, config: BenchmarkConfig, cut: float
) -> dict[str, Any]:
    """Counts the images of --unrelated that match, by hash and by embedding."""
    batch, threads = config.embed.batch_size, config.decode_threads
    other = read_items(find_items(config.unrelated, "--unrelated").items, encoder, batch_size=batch, threads=threads)
    columns = _hash_columns(other.table)
    textured = columns[2] >= MIN_TEXTURE
    near = nearest_items(vectors, other.vectors_ND[textured])[1] if vectors and other.vectors_ND is not None else None
    by_hash = len(match_hashes(hashes, *columns)[0])
    return {"source": "--unrelated", "images": other.table.num_rows, "hash": by_hash} | _count_near(near, cut)


def _match_each_other(hashes: HashSearch, items: Items, rows: np.ndarray, cut: float) -> dict[str, Any]:
    """Counts the sampled items that another item matches; equal files are one item."""
    ids = np.array(items.table["item_id"].to_pylist())
    query, item, _ = match_all(hashes, *_hash_columns(items.table.take(pa.array(rows))))
    by_hash = len(np.unique(query[ids[rows][query] != ids[item]]))
    near = None if items.vectors_ND is None else nearest_others(items.vectors_ND, ids.tolist(), rows)
    return {"source": "the other images of the test set itself", "images": len(rows), "hash": by_hash} | _count_near(near, cut)


def _count_near(near: np.ndarray | None, cut: float) -> dict[str, Any]:
    if near is None or not len(near):
        return {}
    return {"embedding": int((near >= np.float32(cut)).sum()), "highest": round(float(near.max()), 4)}


def _sample(items: pa.Table, config: BenchmarkConfig) -> np.ndarray:
    """Rows of the images to change: of those that are not flat the ones with the lowest keyed hashes, in the order of the index."""
    textured = np.flatnonzero(items["texture"].to_numpy() >= MIN_TEXTURE)
    keys = mix(prefix64(items["item_id"])[textured], config.seed)
    return textured[np.sort(np.argsort(keys, kind="stable")[: config.sample])]


def _see_changed(sample: list[tuple[str, str]], encoder: Encoder | None, config: BenchmarkConfig) -> Iterator[tuple[str, Seen]]:
    """Yields each kind of change with what a crawl would know of the images after it; one kind is held in memory at a time."""
    threads = config.decode_threads
    for kind in CHANGES if sample else ():

        def see(item: tuple[str, str], kind: str = kind) -> tuple[int, bytes, int, np.ndarray | None]:
            path, item_id = item
            rgb = change(pixels(Item(path=path, name=path).read(SCAN.max_bytes), SCAN).rgb, kind, key=item_id, seed=config.seed)
            working = working_image(rgb)
            return phash64(working), *pdq256(working), None if encoder is None else encoder.preprocess(rgb)

        seen = [found for _, found in map_ahead(see, sample, threads=threads, window=2 * threads)]
        phash, pdq, texture, inputs = zip(*seen, strict=True)
        yield (
            kind,
            Seen(
                phash_N=np.array(phash, np.uint64),
                pdq_N32=np.frombuffer(b"".join(pdq), np.uint8).reshape(-1, 32),
                texture_N=np.array(texture),
                vectors_ND=None if encoder is None else embed_all(encoder, inputs, batch_size=config.embed.batch_size).astype(np.float16),
            ),
        )


def _hash_columns(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return table["phash"].to_numpy(), pdq_array(table["pdq"].cast(pa.binary())), table["texture"].to_numpy()


def _show(table: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"{'change':<17}{'images':>7}{'hash':>8}{'embedding':>11}{'either':>8}{'neither':>9}"
    for row in table:
        shares = [f"{row[name] / row['images']:.1%}" for name in ("hash", "embedding", "either")]
        mark = "" if row["mild"] else "  (hard)"
        yield f"{row['change']:<17}{row['images']:>7}{shares[0]:>8}{shares[1]:>11}{shares[2]:>8}{row['neither']:>9}{mark}"


def _false_matches(unrelated: Mapping[str, Any]) -> str:
    by_embedding = f", {unrelated['embedding']:,} by embedding (highest {unrelated['highest']})" if "embedding" in unrelated else ""
    return f"false matches among {unrelated['images']:,} images ({unrelated['source']}): {unrelated['hash']:,} by hash{by_embedding}"
