"""Large archives are cut into units between records: nothing is read twice, nothing is lost."""

import csv
import gzip
import io
import itertools
import json
import re
import zipfile
from base64 import b64encode
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


def table_rows() -> list[dict[str, str]]:
    """Rows whose texts hold what separates rows and fields; pages come back in other units."""
    alts = ["plain", "two\nlines", 'a "quote", a comma', "\r\n\r\n", "\n", "tab\tand é 改刀", '""', ""]
    return [
        {
            "page_url": f"{SITE}/{number % 5}",
            "image_url": f"{SITE}/{number}.jpg",
            "bytes": b64encode(JPEG + bytes([number])).decode(),
            "alt": alt,
        }
        for number, alt in enumerate(alts * 5)
    ]


def csv_table(delimiter: str, mark: str = "") -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["page_url", "image_url", "bytes", "alt"], delimiter=delimiter)
    writer.writeheader()
    for row in table_rows():
        writer.writerow(row)
        buffer.write("\r\n" if len(row["alt"]) == 5 else "")  # an empty line is no row
    return (mark + buffer.getvalue() + f'broken{delimiter}"row" x\n' + f"{SITE}{delimiter}too few\n").encode() + b"\xff\n"


def json_table() -> bytes:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in table_rows()]
    return ("\n \n".join(lines) + "no json\n\n").encode() + json.dumps({"page_url": SITE}).encode()


MADE = {
    "crawl.warc": lambda: b"".join(warc_records()),
    "crawl.warc.gz": lambda: by_record(warc_records()),
    "crawl.arc": lambda: b"".join(arc_records()),
    "crawl.arc.gz": lambda: by_record(arc_records()),
    "crawl.wacz": lambda: wacz({"a.warc.gz": (by_record(warc_records()), zipfile.ZIP_STORED), "b.warc": (b"\r\n", 0)}),
    "samples.tar": samples,
    "table.csv": lambda: csv_table(","),
    "marked.csv": lambda: csv_table(",", "\ufeff"),
    "table.tsv": lambda: csv_table("\t"),
    "table.jsonl": json_table,
}


def counted(records: list[Record]) -> Counter[str]:
    """Counts what was read, but for what depends on where a page and a request that names it were cut apart."""
    return Counter(
        repr((record.page_url, record.image_url, record.via))
        if isinstance(record, LinkRecord) and record.via == "referer"
        else re.sub(r" line \d+( after byte \d+)?:", " line:", repr(record))
        for record in records
    )


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("cut_bytes", [1, 700, 5_000])
def test_units_together_are_the_whole(tmp_path: Path, read_all: Read, monkeypatch: pytest.MonkeyPatch, name: str, cut_bytes: int) -> None:
    path = tmp_path / name
    path.write_bytes(MADE[name]())
    whole = read_all(path)
    assert len(find_units((str(path),))) <= 2
    assert len(whole) >= 36
    monkeypatch.setattr(frames, "CUT_BYTES", cut_bytes)
    units = find_units((str(path),))
    assert len(units) > 2
    assert all(before.stop <= after.start for before, after in itertools.pairwise(units))
    found, expected = counted(read_all(path)), counted(whole)
    if name.startswith(("samples", "table", "marked")):  # a page is told once a unit
        found, expected = Counter(dict.fromkeys(found, 1)), Counter(dict.fromkeys(expected, 1))
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


@pytest.mark.parametrize("name", ["table.csv", "table.jsonl"])
def test_a_row_that_cannot_be_read_says_where(tmp_path: Path, read_all: Read, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(MADE[name]())
    monkeypatch.setattr(frames, "CUT_BYTES", 1_000)
    last = find_units((str(path),))[-1]
    assert last.rows_before > 30
    [detail] = [r.detail for r in read_all(path) if isinstance(r, ErrorRecord) and ("expected after" in r.detail or "no JSON" in r.detail)]
    found = re.match(rf"{name} line (\d+) after byte (\d+): ", detail)
    assert found is not None
    behind = path.read_bytes()[int(found[2]) :].splitlines()
    assert re.match(b"broken|no json", behind[int(found[1]) - 1])


def test_a_compressed_table_is_one_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.jsonl.gz"
    path.write_bytes(gzip.compress(json_table()))
    monkeypatch.setattr(frames, "CUT_BYTES", 100)
    assert [(unit.start, unit.stop) for unit in find_units((str(path),))] == [(0, path.stat().st_size)]


def test_damage_belongs_to_one_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [by_record([record]) for record in warc_records()]
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(b"".join(records)[: -len(records[-1]) // 2])
    monkeypatch.setattr(frames, "CUT_BYTES", len(records[0]))
    units = find_units((str(path),))
    errors = [[record for record in read_unit(unit, ScanConfig()) if isinstance(record, ErrorRecord)] for unit in units]
    assert [len(found) for found in errors] == [0] * (len(units) - 1) + [1]
    assert f"at offset {sum(map(len, records[:-1]))}" in errors[-1][0].detail
