"""Stage pair, step pairs: a pair found on several pages is kept once; which of its images is the condition."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.keys import mix, pair_id, prefix64
from pagepairs.records import CANDIDATES, PAIRS
from pipeline.journal import Outcome
from pipeline.pair_job import CARRIED, PairJob

HISTOGRAM_BINS = 200


class Pairs:
    """Writes the ledger of candidates and the pairs that stay."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int) -> Outcome:
        job = self._job
        candidates = job.read_range("candidates", part)
        assert candidates is not None  # every part of `episodes` writes its file
        candidates = candidates.take(pa.array(np.lexsort(_candidate_keys(candidates)[::-1])))
        candidates, page_count = keep_lowest_page(candidates)
        kept = pc.equal(candidates["reason"], "")
        pairs = direct_pairs(
            candidates.filter(kept), page_count[kept.to_numpy(zero_copy_only=False)], job.config.directions, job.config.seed
        )
        ledger = candidates.select(CANDIDATES.names)
        files = {"candidates": [job.write_final("candidates", part, ledger)], "pairs": [job.write_final("pairs", part, pairs)]}
        reasons = {row["values"]: row["counts"] for row in pc.value_counts(ledger["reason"]).to_pylist()}
        counters: dict[str, Any] = {"in": ledger.num_rows, "kept": reasons.pop("", 0), "dropped": reasons, "errors": 0}
        job.meter.add(1)
        return Outcome(files=files, counters=counters | {"pairs": pairs.num_rows, "histogram": histogram(ledger["similarity"].to_numpy())})


def _candidate_keys(candidates: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns page, a and b of each candidate as uint64: of 64 random bits each, so that no two candidates share all three."""
    page, a, b = (prefix64(candidates[name]) for name in ("page_key", "a_id", "b_id"))
    return page, a, b


def histogram(similarity: np.ndarray) -> list[int]:
    """Counts similarities in 200 equal bins of [-1, 1]; bin i holds [-1 + i/100, -1 + (i+1)/100)."""
    bins = np.floor((similarity.astype(np.float64) + 1) * (HISTOGRAM_BINS / 2)).astype(np.int64)
    return [int(n) for n in np.bincount(np.clip(bins, 0, HISTOGRAM_BINS - 1), minlength=HISTOGRAM_BINS)]


def keep_lowest_page(candidates: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Keeps each pair of the band on the page with the lowest key; on others it becomes on_another_page.

    Returns:
      The candidates, and int32 of their length: on how many pages the pair was found.
    """
    page, a, b = _candidate_keys(candidates)
    order = np.lexsort((page, b, a))
    a, b = a[order], b[order]
    first = np.append(True, (a[1:] != a[:-1]) | (b[1:] != b[:-1]))[: len(a)]
    group = np.cumsum(first) - 1
    again, pages = np.empty(len(a), bool), np.empty(len(a), np.int32)
    again[order], pages[order] = ~first, np.bincount(group)[group]
    # Similarity depends on the pair only, so all rows of a pair are in the band or none is.
    kept = pc.equal(candidates["reason"], "")
    reason = pc.if_else(pc.and_(kept, pa.array(again)), "on_another_page", candidates["reason"])
    return candidates.set_column(candidates.schema.get_field_index("reason"), "reason", reason), pages


def direct_pairs(candidates: pa.Table, page_count: np.ndarray, directions: str, seed: int) -> pa.Table:
    """Gives each kept candidate its direction, by a hash of the pair, or both; returns rows of PAIRS sorted by pair_id."""
    flip = (mix(seed, prefix64(candidates["a_id"]), prefix64(candidates["b_id"]), 1) & np.uint64(1)).astype(bool)
    forward = _directed(candidates, pa.array(flip), page_count)
    pairs = pa.concat_tables([forward, _directed(candidates, pa.array(~flip), page_count)]) if directions == "both" else forward
    return pairs.take(pa.array(np.argsort(prefix64(pairs["pair_id"]))))


def _directed(candidates: pa.Table, flip: pa.Array, page_count: np.ndarray) -> pa.Table:
    columns = {"page_url": candidates["page_url"], "similarity": candidates["similarity"], "page_count": pa.array(page_count, pa.int32())}
    for name in ("id", "url", *CARRIED):
        a, b = candidates[f"a_{name}"], candidates[f"b_{name}"]
        columns[f"condition_{name}"], columns[f"target_{name}"] = pc.if_else(flip, b, a), pc.if_else(flip, a, b)
    ids = zip(columns["condition_id"].to_pylist(), columns["target_id"].to_pylist(), strict=True)
    columns["pair_id"] = pa.array([pair_id(condition, target) for condition, target in ids], pa.string())
    return pa.table({name: columns[name] for name in PAIRS.names}).cast(PAIRS)
