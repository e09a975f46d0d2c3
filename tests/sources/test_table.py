"""Tables: rows with bytes, rows with paths, rows that cannot be used."""

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagepairs.config import ScanConfig
from pipeline.references import read_images
from pipeline.sources import ErrorRecord, ImageRecord, LinkRecord, PageRecord, Record, SourceMap, find_units, read_unit

BODIES = [b"\xff\xd8\xff one", b"\xff\xd8\xff two", b"\xff\xd8\xff three"]
ROWS: list[dict[str, Any]] = [
    {"page_url": "https://a.com/1?utm_source=x", "image_url": "https://a.com/i/0.jpg", "alt": "zero"},
    {"page_url": "https://a.com/1", "image_url": "/i/1.jpg#x", "alt": None},
    {"page_url": "https://a.com/2", "image_url": "https://a.com/i/2.jpg", "alt": "two"},
]


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    names = list(rows[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, **options)
    elif path.suffix in (".csv", ".tsv"):
        comma = "," if path.suffix == ".csv" else "\t"
        lines = [names, *([str(row[name] if row[name] is not None else "") for name in names] for row in rows)]
        path.write_text("\n".join(comma.join(line) for line in lines) + "\n", encoding="utf-8")
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(*inputs: Path, max_bytes: int = 1_000_000) -> list[Record]:
    return [record for unit in find_units(tuple(map(str, inputs))) for record in read_unit(unit, ScanConfig(max_bytes=max_bytes))]


def image_of(records: list[Record]) -> list[ImageRecord]:
    return [record for record in records if isinstance(record, ImageRecord)]


def check_pages_and_links(records: list[Record]) -> None:
    assert [record.url for record in records if isinstance(record, PageRecord)] == ["https://a.com/1", "https://a.com/2"]
    links = [record for record in records if isinstance(record, LinkRecord)]
    assert [(link.page_url, link.image_url, link.position, link.alt, link.via) for link in links] == [
        ("https://a.com/1", "https://a.com/i/0.jpg", 0, "zero", "table"),
        ("https://a.com/1", "https://a.com/i/1.jpg", 1, "", "table"),
        ("https://a.com/2", "https://a.com/i/2.jpg", 2, "two", "table"),
    ]
    assert [image.url for image in image_of(records)] == [link.image_url for link in links]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.tsv", "t.jsonl", "t.jsonl.gz"])
def test_rows_with_paths_are_read_in_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub" / "i").mkdir(parents=True)
    for index, body in enumerate(BODIES):
        (tmp_path / "sub" / "i" / f"{index} é.jpg").write_bytes(body)
    table = write(tmp_path / "sub" / name, [row | {"path": f"i/{index} é.jpg", "bytes": 5} for index, row in enumerate(ROWS)])
    for given, prefix in ((table, ""), (tmp_path, "sub/")):
        records = read(given)
        check_pages_and_links(records)
        assert [(image.source, image.offset, image.length, image.spill) for image in image_of(records)] == [
            (f"{prefix}i/{index} é.jpg", 0, len(body), False) for index, body in enumerate(BODIES)
        ]
        ids = [hashlib.sha256(body).hexdigest() for body in BODIES]
        references = [(key, image.source, image.offset, image.length) for key, image in zip(ids, image_of(records), strict=True)]
        assert list(read_images(references, SourceMap(find_units((str(given),)), ""))) == BODIES


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.tsv", "t.jsonl", "t.jsonl.gz"])
@pytest.mark.parametrize("column", ["bytes", "image", "jpg"])
def test_rows_with_bytes_are_spilled(tmp_path: Path, name: str, column: str) -> None:
    bodies = BODIES if name == "t.parquet" else [base64.b64encode(body).decode() for body in BODIES]
    records = read(write(tmp_path / name, [row | {column: body} for row, body in zip(ROWS, bodies, strict=True)]))
    check_pages_and_links(records)
    assert [(image.body, image.source, image.offset, image.spill) for image in image_of(records)] == [
        (body, name, index, True) for index, body in enumerate(BODIES)
    ]


def test_an_image_struct_and_other_names(tmp_path: Path) -> None:
    rows = [
        {"page": row["page_url"], "url": row["image_url"], "caption": row["alt"], "image": {"bytes": body, "path": None}}
        for row, body in zip(ROWS, BODIES, strict=True)
    ]
    records = read(write(tmp_path / "t.parquet", rows))
    check_pages_and_links(records)
    assert [image.body for image in image_of(records)] == BODIES


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../out.jpg", "path_outside_input"),
        ("/etc/hostname", "path_outside_input"),
        ("sub/../../out.jpg", "path_outside_input"),
        ("..", "path_outside_input"),
        (".", "path_outside_input"),
        ("in\x00.jpg", "path_outside_input"),
        ("gone.jpg", "missing_file"),
        ("in", "missing_file"),
        ("", "missing_file"),
        ("in/../in.jpg", ""),
    ],
)
def test_paths_that_lead_nowhere(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "out.jpg").write_bytes(BODIES[0])
    (tmp_path / "root" / "in.jpg").write_bytes(BODIES[0])
    [image] = image_of(read(write(tmp_path / "root" / "t.jsonl", [ROWS[0] | {"path": path}])))
    assert (image.reason, image.body) == (reason, b"" if reason else BODIES[0])


def test_a_path_may_leave_the_folder_of_the_table_but_not_the_input(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "a.jpg").write_bytes(BODIES[0])
    table = write(tmp_path / "tables" / "t.jsonl", [ROWS[0] | {"path": "../a.jpg"}])
    assert [(i.source, i.reason) for i in image_of(read(tmp_path)) if i.url == ROWS[0]["image_url"]] == [("a.jpg", "")]
    assert [image.reason for image in image_of(read(table))] == ["path_outside_input"]


def test_bodies_up_to_the_limit(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", [ROWS[0] | {"bytes": b"x" * 10}, ROWS[1] | {"bytes": b"x" * 11}, ROWS[2] | {"bytes": None}])
    assert [(image.reason, len(image.body)) for image in image_of(read(table, max_bytes=10))] == [
        ("", 10),
        ("too_many_bytes", 0),
        ("missing_file", 0),
    ]
    (tmp_path / "a.jpg").write_bytes(b"x" * 11)
    table = write(tmp_path / "t.jsonl", [ROWS[0] | {"path": "a.jpg"}])
    assert [image.reason for limit in (10, 11) for image in image_of(read(table, max_bytes=limit))] == ["too_many_bytes", ""]


def test_pos_gives_the_position(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"bytes": "eA==", "pos": pos} for pos in (7, None, "3", "x", -1, 2**31)]
    records = read(write(tmp_path / "t.jsonl", rows))
    assert [record.position for record in records if isinstance(record, LinkRecord)] == [7, 1, 3]
    assert [record.detail for record in records if isinstance(record, ErrorRecord)] == [
        "t.jsonl line 4: pos 'x' is no number",
        "t.jsonl line 5: pos -1 lies outside 0 to 2147483647",
        "t.jsonl line 6: pos 2147483648 lies outside 0 to 2147483647",
    ]


def test_broken_lines_of_jsonl(tmp_path: Path) -> None:
    good = json.dumps(ROWS[0] | {"bytes": "eA=="})
    lines = [
        good,
        "{",
        "",
        "[]",
        '{"page_url": "https://a.com/1", "bytes": "eA=="}',
        good.replace("eA==", "!"),
        good,
        good.replace("zero", "\\ud800"),
    ]
    (tmp_path / "t.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"page_url": "\xff"}\n')
    records = read(tmp_path / "t.jsonl")
    assert [record.detail.split(":")[0] for record in records if isinstance(record, ErrorRecord)] == [
        f"t.jsonl line {line}" for line in (2, 4, 5, 6, 9)
    ]
    assert {record.reason for record in records if isinstance(record, ErrorRecord)} == {"broken_record"}
    assert len(image_of(records)) == 3
    assert [record.alt for record in records if isinstance(record, LinkRecord)] == ["zero", "zero", "?"]


def test_broken_lines_of_csv(tmp_path: Path) -> None:
    rows = [
        "page_url,image_url,bytes",
        "https://a.com/1,https://a.com/0.jpg,eA==",
        "https://a.com/1,x",
        '"https://a.com/1"x,b.jpg,eA==',
        "",
        "https://a.com/1,c.jpg,eA==",
    ]
    (tmp_path / "t.csv").write_bytes("\r\n".join(rows).encode() + b"\r\nhttps://a.com/\xff,d.jpg,eA==\r\n,e.jpg,eA==\r\n")
    records = read(tmp_path / "t.csv")
    assert [image.url for image in image_of(records)] == ["https://a.com/0.jpg", "https://a.com/c.jpg"]
    assert [record.detail for record in records if isinstance(record, ErrorRecord)] == [
        "t.csv line 3: 2 fields, 3 columns",
        "t.csv line 4: ',' expected after '\"'",
        "t.csv line 7: not UTF-8",
        "t.csv line 8: no page_url",
    ]


def test_a_truncated_jsonl_gz_gives_what_stands_before(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"bytes": "eA==", "x": hashlib.sha256(bytes([index])).hexdigest()} for index in range(200)]
    path = write(tmp_path / "t.jsonl.gz", rows)
    path.write_bytes(path.read_bytes()[:-2000])
    records = read(path)
    assert 100 < len(image_of(records)) < 200
    assert [record.reason for record in records if isinstance(record, ErrorRecord)] == ["broken_record"]


def test_large_parquet_files_are_cut_at_row_groups(tmp_path: Path) -> None:
    rows = [
        {"page_url": f"https://a.com/{index // 8}", "image_url": f"https://a.com/{index}.jpg", "bytes": b"x"} for index in range(45_000)
    ]
    path = write(tmp_path / "t.parquet", rows, row_group_size=8_000)
    units = find_units((str(path),))
    assert [(unit.start, unit.stop) for unit in units] == [(0, 2), (2, 4), (4, 6)]
    assert len({unit.name for unit in units}) == 3
    records = read(path)
    assert [image.offset for image in image_of(records)] == list(range(45_000))
    assert [record.position for record in records if isinstance(record, LinkRecord)] == list(range(45_000))
    assert len({record.capture for record in records if isinstance(record, LinkRecord)}) == 1


def test_empty_tables_are_empty_crawls(tmp_path: Path) -> None:
    schema = pa.schema([("page_url", pa.string()), ("image_url", pa.string()), ("bytes", pa.binary())])
    pq.write_table(schema.empty_table(), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("page_url,image_url,path\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "t.jsonl").write_text("\n")
    for name in ("t.parquet", "t.csv", "empty.csv", "t.jsonl"):
        assert read(tmp_path / name) == []


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.tsv", "t.jsonl"])
def test_missing_columns_are_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"img": "x", "page_url": "y", "path": "z"}])
    with pytest.raises(
        ValueError, match=r"has the columns img, page_url, path: image_url missing; needed are page_url, image_url and either bytes or path"
    ):
        find_units((str(path),))


def test_urls_alone_stop_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    path = write(tmp_path / "my table.csv", [{"page": "x", "url": "y", "caption": "z"}])
    with pytest.raises(ValueError, match="no images") as error:
        find_units((str(path),))
    assert (
        f"img2dataset --url_list '{path}' --input_format csv --url_col url --caption_col caption --save_additional_columns '[\"page\"]' "
        f"--output_format parquet --disable_all_reencoding True --output_folder '{path}.images'\n"
    ) in str(error.value)


def test_a_parquet_column_of_numbers_is_no_image(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [ROWS[0] | {"bytes": 12345}])
    with pytest.raises(ValueError, match="URLs but no images"):
        find_units((str(path),))


def test_no_parquet_under_the_name(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match="is no Parquet file"):
        find_units((str(tmp_path / "t.parquet"),))


def test_the_example_table_has_the_memberships_of_the_example_archive(shared_data: Path) -> None:
    def memberships(records: list[Record]) -> set[tuple[str, str]]:
        ids = {image.url: hashlib.sha256(image.body).hexdigest() for image in image_of(records)}
        return {(link.page_url, ids[link.image_url]) for link in records if isinstance(link, LinkRecord) and link.image_url in ids}

    table = read(shared_data / "crawl_howtocook" / "manifest.jsonl", max_bytes=50_000_000)
    archive = read(shared_data / "howtocook.warc.gz", max_bytes=50_000_000)
    assert len(memberships(table)) == 154
    assert memberships(table) == memberships(archive)


def test_damaged_gzip_before_the_columns_are_known_is_one_error(tmp_path: Path) -> None:
    whole = write(tmp_path / "t.jsonl.gz", [{**row, "path": "x"} for row in ROWS]).read_bytes()
    for damaged in (whole[:30], whole[:3], whole[:12] + b"\xff" * 40, whole[:-4]):
        (tmp_path / "t.jsonl.gz").write_bytes(damaged)
        errors = [record for record in read(tmp_path / "t.jsonl.gz") if isinstance(record, ErrorRecord)]
        assert [error.reason for error in errors] == ["broken_record"]
        assert errors[0].detail.startswith("t.jsonl.gz after row ")


def test_a_parquet_file_whose_metadata_is_damaged_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{**row, "path": "x"} for row in ROWS])
    whole = path.read_bytes()
    path.write_bytes(whole[:-60] + b"\xff" * 52 + whole[-8:])
    with pytest.raises(ValueError, match=r"t\.parquet is no Parquet file: "):
        read(path)


def test_a_text_of_a_parquet_file_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"], pa.binary()).buffers())
    table = pa.table({"page_url": ["https://a.com/1"] * 3, "image_url": ["1.jpg", "2.jpg", "3.jpg"], "bytes": BODIES, "alt": texts})
    pq.write_table(table, tmp_path / "t.parquet")
    records = read(tmp_path / "t.parquet")
    assert [image.url for image in image_of(records)] == ["https://a.com/1.jpg", "https://a.com/3.jpg"]
    (error,) = [record for record in records if isinstance(record, ErrorRecord)]
    assert error.detail.startswith("t.parquet row 1: 'utf-8' codec can't decode byte 0xff")


def test_a_csv_header_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('page_url,image_url,path,"alt"x\nhttps://a.com/1,1.jpg,1.jpg,\n')
    with pytest.raises(ValueError, match=r"t\.csv does not begin with the names of its columns: "):
        read(tmp_path / "t.csv")
