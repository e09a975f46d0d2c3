"""How the signals of one image are put together, and what the report shows of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dedup.benchmark import Benchmark
from pagepairs.files import write_parquet
from pagepairs.records import IMAGES, MATCHES
from pipeline import match_passes
from pipeline.match_passes import SURVIVORS
from pipeline.pair_matches import SHOWN, join_signals, mark_matches, shown_mask

_FOUND = pa.schema([("image_id", pa.string()), ("benchmark", pa.int16()), ("item", pa.int64())])
_NEAR = pa.schema([*_FOUND, ("similarity", pa.float32())])


def benchmark(name: str, *, cut: float = 0.5, encoder: str = "builtin") -> Benchmark:
    known: dict[str, Any] = {"folder": "", "items": 9, "width": 3, "cut_source": "", "search": None, "content": name, "manifest": {}}
    return Benchmark(name=name, cut=cut, encoder={"name": encoder} if encoder else None, spec=encoder, **known)


def joined(by_hash: list[tuple], near: list[tuple], benchmarks: list[Benchmark]) -> list[tuple]:
    tables = []
    for rows, schema in ((by_hash, _FOUND), (near, _NEAR)):
        tables.append(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema))
    found = join_signals(tables[0], tables[1], benchmarks).to_pylist()
    return [(row["benchmark"], row["image_id"], row["item"], row["similarity"], row["signal"]) for row in found]


def test_each_image_gets_one_row_a_benchmark_with_its_signals() -> None:
    by_hash = [("both", 0, 1), ("both", 0, 1), ("hash", 0, 2), ("other", 0, 3), ("unseen", 0, 4)]  # `both` stood in two files
    near = [("both", 0, 1, 0.9), ("both", 0, 1, 0.9), ("hash", 0, 2, 0.25), ("other", 0, 3, 0.25), ("other", 0, 7, 0.5)]
    near += [("embedding", 0, 5, 0.75), ("below", 0, 6, 0.499)]
    assert joined(by_hash, near, [benchmark("a")]) == [
        (0, "below", 6, np.float32(0.499), ""),
        (0, "both", 1, np.float32(0.9), "both"),
        (0, "embedding", 5, 0.75, "embedding"),
        (0, "hash", 2, 0.25, "hash"),
        (0, "other", 3, 0.25, "both"),  # another item is nearer by embedding; the hash names the picture
        (0, "unseen", 4, None, "hash"),  # it has no vector
    ]


def test_benchmarks_do_not_see_each_other() -> None:
    near = [("x", 0, 1, 0.75), ("x", 1, 2, 0.75)]
    assert joined([("x", 2, 3)], near, [benchmark("a"), benchmark("b", cut=0.8), benchmark("c", encoder="")]) == [
        (0, "x", 1, 0.75, "embedding"),
        (1, "x", 2, 0.75, ""),
        (2, "x", 3, None, "hash"),
    ]


def test_survivors_are_the_nearest_and_bounded() -> None:
    near = [(f"{n:03}", 0, n, n / 256) for n in range(100)]
    found = joined([], near, [benchmark("a", cut=0.9)])
    assert [row[1] for row in found] == [f"{n:03}" for n in range(100 - SURVIVORS, 100)]
    found = joined([], [(f"{n:03}", 0, n, float(-n)) for n in range(100)], [benchmark("a", encoder="")])  # bits that differ
    assert [(row[1], row[3]) for row in found] == [(f"{n:03}", None) for n in range(SURVIVORS)]


def matches(rows: list[tuple[str, str, str, float | None, int | None]]) -> pa.Table:
    names = ("image_id", "benchmark", "signal", "similarity", "pdq_distance")
    return pa.Table.from_pylist([dict.fromkeys(MATCHES.names) | dict(zip(names, row, strict=True)) for row in rows], schema=MATCHES)


def test_the_report_shows_survivors_and_the_weakest_matches_of_each_benchmark() -> None:
    table = matches(
        [
            *((f"e{n}", "a", "embedding", 0.6 + n / 1000, 90) for n in range(30)),
            ("both", "a", "both", 0.55, 1),
            ("survivor", "a", "", 0.4, 90),
            ("h1", "list", "hash", None, 0),
        ]
    )
    shown = [row["image_id"] for row, there in zip(table.to_pylist(), shown_mask(table), strict=True) if there]
    assert shown == [*(f"e{n}" for n in range(SHOWN)), "survivor", "h1"]
    assert shown_mask(MATCHES.empty_table()).tolist() == []


def test_only_images_without_a_reason_are_marked(tmp_path: Path) -> None:
    path = str(tmp_path / "matches.parquet")
    write_parquet(path, matches([("hit", "a", "hash", None, 0), ("out", "a", "both", 0.9, 0), ("near", "a", "", 0.4, 90)]))
    reasons = {"hit": "", "out": "opt_out", "near": "", "far": ""}
    rows = [dict.fromkeys(IMAGES.names) | {"image_id": name, "reason": reason} for name, reason in reasons.items()]
    marked = mark_matches(pa.Table.from_pylist(rows, schema=IMAGES), path)
    assert marked.schema.names == IMAGES.names
    assert dict(zip(reasons, marked["reason"].to_pylist(), strict=True)) == {
        "hit": "benchmark_match",
        "out": "opt_out",
        "near": "",
        "far": "",
    }


def test_every_index_is_opened_once_a_process_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(match_passes, "local_copy", lambda folder: calls.append(f"copy {folder}") or folder)
    monkeypatch.setattr("dedup.benchmark_hashes.open_hashes", lambda folder: calls.append(f"hashes {folder}"))
    monkeypatch.setattr("dedup.benchmark_vectors.open_vectors", lambda folder, _search: calls.append(f"vectors {folder}"))
    many = [dataclasses.replace(benchmark(f"many-{n}"), folder=f"gs://indexes/{n}") for n in range(68)]
    for _file in range(3):
        for one in many:
            match_passes.hashes_of(one)
            match_passes.vectors_in(one)
    assert sorted(calls) == sorted(f"{what} gs://indexes/{n}" for n in range(68) for what in ("copy", "hashes", "vectors"))
