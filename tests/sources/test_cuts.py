"""Large archives are cut into units between records: nothing is read twice, nothing is lost."""

import itertools
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import JPEG, arc, arc_head, by_record, http, request, sidecar, tar, wacz, warc

from pagepairs.config import ScanConfig
from pipeline.sources import ErrorRecord, LinkRecord, Record, find_units, frames, read_unit

Read = Callable[..., list[Record]]
SITE = "https://example.com"


def images(number: int) -> list[tuple[str, bytes]]:
    return [(f"{SITE}/{number}-{index}.jpg", JPEG + bytes([number, index])) for index in range(3)]


def warc_records() -> list[bytes]:
    """Twelve pages, each before its images; the last image of each is named by a Referer header only."""
    records = []
    for number in range(12):
        *named, requested = images(number)
        page = f"{SITE}/{number}.html"
        records.append(warc(page, http("".join(f"<img src={url}>" for url, _ in named).encode(), "text/html")))
        records += [warc(url, http(body, "image/jpeg")) for url, body in named]
        pair = [warc(requested[0], request(page), "request"), warc(requested[0], http(requested[1], "image/jpeg"))]
        records += pair if number % 2 else pair[::-1]
    return records


def arc_records() -> list[bytes]:
    return [arc_head(), *(arc(url, http(body, "image/jpeg")) for number in range(12) for url, body in images(number))]


def samples() -> bytes:
    bodies = [(f"{number}-{index}", url, body) for number in range(12) for index, (url, body) in enumerate(images(number))]
    texts = [(f"{key}.json", sidecar(url=url, page_url=f"{SITE}/{key[0]}", caption=key)) for key, url, _ in bodies]
    return tar([*((f"{key}.jpg", body) for key, _, body in bodies), *texts])  # all images, then all that is said of them


MADE = {
    "crawl.warc": lambda: b"".join(warc_records()),
    "crawl.warc.gz": lambda: by_record(warc_records()),
    "crawl.arc": lambda: b"".join(arc_records()),
    "crawl.arc.gz": lambda: by_record(arc_records()),
    "crawl.wacz": lambda: wacz({"a.warc.gz": (by_record(warc_records()), zipfile.ZIP_STORED), "b.warc": (b"\r\n", 0)}),
    "samples.tar": samples,
}


def counted(records: list[Record]) -> Counter[str]:
    """Counts what was read, but for what depends on where a page and a request that names it were cut apart."""
    return Counter(
        repr((record.page_url, record.image_url, record.via))
        if isinstance(record, LinkRecord) and record.via == "referer"
        else repr(record)
        for record in records
    )


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("cut_bytes", [1, 700, 5_000])
def test_units_together_are_the_whole(tmp_path: Path, read_all: Read, monkeypatch: pytest.MonkeyPatch, name: str, cut_bytes: int) -> None:
    path = tmp_path / name
    path.write_bytes(MADE[name]())
    whole = read_all(path)
    assert len(find_units((str(path),))) <= 2
    monkeypatch.setattr(frames, "CUT_BYTES", cut_bytes)
    units = find_units((str(path),))
    assert len(units) > 2
    assert all(before.stop <= after.start for before, after in itertools.pairwise(units))
    found, expected = counted(read_all(path)), counted(whole)
    if name == "samples.tar":  # a page is told once a unit
        found = Counter(dict.fromkeys(found, 1))
    assert found == expected


def test_an_archive_that_is_gzipped_as_a_whole_is_one_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(by_record([b"".join(warc_records())]))
    monkeypatch.setattr(frames, "CUT_BYTES", 100)
    assert [(unit.start, unit.stop) for unit in find_units((str(path),))] == [(0, path.stat().st_size)]


def test_sources_are_found_without_a_look_into_them(tmp_path: Path) -> None:
    for name, make in MADE.items():
        (tmp_path / name).write_bytes(make())
    units = find_units((str(tmp_path),), cut=False)
    assert [(unit.source, unit.start, unit.stop) for unit in units] == [(name, 0, 0) for name in sorted(MADE)]


def test_damage_belongs_to_one_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [by_record([record]) for record in warc_records()]
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(b"".join(records)[: -len(records[-1]) // 2])
    monkeypatch.setattr(frames, "CUT_BYTES", len(records[0]))
    units = find_units((str(path),))
    errors = [[record for record in read_unit(unit, ScanConfig()) if isinstance(record, ErrorRecord)] for unit in units]
    assert [len(found) for found in errors] == [0] * (len(units) - 1) + [1]
    assert f"at offset {sum(map(len, records[:-1]))}" in errors[-1][0].detail
