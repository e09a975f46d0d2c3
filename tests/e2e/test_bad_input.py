"""What the web, and users, get wrong: each a drop with its reason, or one clear sentence; never a traceback, never half a file."""

import csv
import errno
import gzip
import io
import json
import os
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_crawls import Response, encode, page, picture, png_header, site, write_warc
from outputs import assert_conserved, assert_sound, counters, data_hashes, half_written, rows
from PIL import Image

PAGE = "https://bad.example/page"


def gif() -> bytes:
    frames = [Image.new("RGB", (300, 300), colour) for colour in ("red", "blue")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


# What the server sends under /NAME, and what becomes of it.
BAD_IMAGES = {
    "truncated.jpg": (picture(50, 0)[:3000], "broken_image"),
    "cut-header.jpg": (picture(50, 0)[:12], "broken_image"),
    "empty.jpg": (b"", "empty_body"),
    "page.jpg": (b"<!doctype html><title>not found</title>", "not_an_image"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="500" height="500"/>', "unsupported_format"),
    "bomb.png": (png_header(50_000, 50_000), "too_many_pixels"),
    "moving.gif": (gif(), "animated"),
    "narrow.jpg": (picture(51, 0, width=199, height=300), "too_small"),
    "banner.jpg": (picture(52, 0, width=640, height=210), "aspect"),
    "flat.png": (encode(Image.new("RGB", (300, 300), "gray"), "PNG"), "low_texture"),
    "noise.jpg": (bytes(range(256)) * 4, "unsupported_format"),  # no magic bytes that anybody knows
}


def test_every_bad_image_is_a_drop_with_its_reason(tmp_path: Path, pagepairs) -> None:
    names = [*BAD_IMAGES, "gone.jpg", "1.jpg", "2.jpg", "narrow-enough.jpg"]
    records = [page(PAGE, [f"/{name}" for name in names])]
    records += [Response(url=f"https://bad.example/{name}", body=body) for name, (body, _) in BAD_IMAGES.items()]
    records += [Response(url="https://bad.example/gone.jpg", body=picture(53, 0), status="404 Not Found")]
    records += [Response(url=f"https://bad.example/{view}.jpg", body=picture(1, view)) for view in (1, 2)]
    records += [Response(url="https://bad.example/narrow-enough.jpg", body=picture(1, 3, width=200, height=300))]
    crawl = write_warc(tmp_path / "crawl.warc.gz", records)
    done = pagepairs("run", "--input", crawl, "--output", tmp_path / "out", "--encoder", "builtin")
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    expected = {f"https://bad.example/{name}": reason for name, (_, reason) in BAD_IMAGES.items()} | {
        "https://bad.example/gone.jpg": "http_status"
    }
    assert {row["image_url"]: row["reason"] for row in rows(tmp_path / "out", "drops/scan")} == expected
    references = {row["image_url"]: (row["reason"], row["detail"]) for row in rows(tmp_path / "out", "drops/pair")}
    small = {"https://bad.example/narrow-enough.jpg": ("smaller_than_size", "")}
    assert references == {url: ("image_dropped", reason) for url, reason in expected.items()} | small
    assert counters(tmp_path / "out", "shards")["kept"] == 1
    assert_conserved(tmp_path / "out")


def raw_record(url: bytes, kind: bytes, body: bytes) -> bytes:
    """Returns a response record with a URL that no writer would write."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n" + body
    head = b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Date: 2025-03-02T10:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
    head += b"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-%012d>\r\n" % (len(url) * 1000 + len(body) % 1000)
    return gzip.compress(head + b"WARC-Target-URI: " + url + b"\r\nContent-Length: %d\r\n\r\n" % len(http) + http + b"\r\n\r\n")


def test_invalid_utf8_in_pages_and_urls(tmp_path: Path, pagepairs) -> None:
    html = b"<html><head><meta charset=utf-8><title>\xff\xfe</title></head>"
    html += b'<body>\xc3\x28<img src="/a.jpg" alt="\xf0\x28\x8c"><img src="/b\xff.jpg">'
    archive = tmp_path / "crawl.warc.gz"
    archive.write_bytes(
        raw_record(b"https://bad.example/\xff\xfe/", b"text/html; charset=utf-8", html)
        + raw_record(b"https://bad.example/a.jpg", b"image/jpeg", picture(1, 0))
        + raw_record(b"https://bad.example/b\xff.jpg", b"image/jpeg", picture(1, 1))
    )
    done = pagepairs("run", "--input", archive, "--output", tmp_path / "out", "--encoder", "builtin")
    assert (done.code, "Traceback" in done.err) in ((0, False), (5, False)), done.err
    assert counters(tmp_path / "out", "images")["kept"] == 2
    assert len(rows(tmp_path / "out", "links")) == 2
    assert_conserved(tmp_path / "out")


def test_a_damaged_archive_gives_what_stands_before_the_damage(tmp_path: Path, pagepairs) -> None:
    whole = write_warc(tmp_path / "whole" / "crawl.warc.gz", site(range(3)))
    cut = tmp_path / "cut" / "crawl.warc.gz"
    cut.parent.mkdir()
    cut.write_bytes(whole.read_bytes()[:-500])
    done = pagepairs("run", "--input", cut, "--output", tmp_path / "out", "--encoder", "builtin")
    assert done.code == 0, done.err
    assert counters(tmp_path / "out", "images") == {"in": 9, "kept": 8, "dropped": {}, "errors": 1}
    (error,) = [row for row in rows(tmp_path / "out", "drops/scan") if row["error"]]
    assert error["reason"] == "broken_archive"
    assert "crawl.warc.gz at offset " in error["detail"]
    assert_conserved(tmp_path / "out")


def test_a_page_with_a_hundred_thousand_references(tmp_path: Path, pagepairs) -> None:
    missing = [f"/missing/{n}.jpg" for n in range(50_000)]
    sources = ["/1.jpg", *missing, *["/2.jpg"] * 50_000]
    records = [page(PAGE, sources), *(Response(url=f"https://bad.example/{view}.jpg", body=picture(1, view)) for view in (1, 2))]
    crawl = write_warc(tmp_path / "crawl.warc.gz", records)
    started = time.monotonic()
    done = pagepairs("run", "--input", crawl, "--output", tmp_path / "out", "--encoder", "builtin")
    assert done.code == 0, done.err
    assert time.monotonic() - started < 90
    pair = counters(tmp_path / "out", "episodes")
    assert (pair["in"], pair["kept"]) == (100_001, 2)
    assert pair["dropped"] == {"not_in_crawl": 50_000, "duplicate_on_page": 49_999}
    assert_conserved(tmp_path / "out")


def test_a_page_with_more_images_than_an_episode_holds(tmp_path: Path, pagepairs) -> None:
    urls = [f"https://bad.example/{n}.jpg" for n in range(12)]
    records = [page(PAGE, urls), *(Response(url=url, body=picture(1, view)) for view, url in enumerate(urls))]
    crawl = write_warc(tmp_path / "crawl.warc.gz", records)
    done = pagepairs(
        *("run", "--input", crawl, "--output", tmp_path / "out", "--encoder", "builtin"),
        "--max-images-per-page",
        8,
        "--pairs-per-episode",
        10,
    )
    assert done.code == 0, done.err
    pair = counters(tmp_path / "out", "episodes")
    assert (pair["kept"], pair["dropped"], pair["not_sampled"]) == (8, {"page_cap": 4}, 28 - 10)
    assert_conserved(tmp_path / "out")


def table_row(view: int, **more: object) -> dict[str, object]:
    return {"page_url": PAGE, "image_url": f"https://bad.example/{view}.jpg", "path": f"{view}.jpg"} | more


def test_bad_rows_of_a_table(tmp_path: Path, pagepairs) -> None:
    for view in (1, 2):
        (tmp_path / f"{view}.jpg").write_bytes(picture(1, view))
    lines = [json.dumps(row).encode() for row in (table_row(1), table_row(2), table_row(3), table_row(4, path="../secret.jpg"))]
    lines += [
        b"{not json",
        b'{"page_url": "\xff\xfe", "image_url": "https://bad.example/5.jpg", "path": "1.jpg"}',
        b'{"page_url": "https://bad.example/"}',
    ]
    (tmp_path / "table.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    done = pagepairs("run", "--input", tmp_path / "table.jsonl", "--output", tmp_path / "out", "--encoder", "builtin")
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    scan = counters(tmp_path / "out", "images")
    assert scan["in"] == 7
    assert scan["dropped"] == {"missing_file": 1, "path_outside_input": 1}
    assert scan["kept"] + scan["errors"] == 5
    assert scan["errors"] >= 2
    assert counters(tmp_path / "out", "shards")["kept"] == 1
    assert_conserved(tmp_path / "out")


def test_invalid_utf8_in_a_csv(tmp_path: Path, pagepairs) -> None:
    for view in (1, 2, 3):
        (tmp_path / f"{view}.jpg").write_bytes(picture(1, view))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["page_url", "image_url", "path", "alt"])
    writer.writeheader()
    writer.writerows(table_row(view, alt=alt) for view, alt in ((1, "tea"), (2, "CAFE"), (3, "milk")))
    (tmp_path / "table.csv").write_bytes(text.getvalue().encode().replace(b"CAFE", b"caf\xe9"))
    done = pagepairs("run", "--input", tmp_path / "table.csv", "--output", tmp_path / "out", "--encoder", "builtin")
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    assert counters(tmp_path / "out", "images") == {"in": 3, "kept": 2, "dropped": {}, "errors": 1}
    (error,) = rows(tmp_path / "out", "drops/scan")
    assert (error["reason"], "table.csv" in error["detail"]) == ("broken_record", True)
    assert_conserved(tmp_path / "out")


def test_no_pair_is_its_own_exit_code_and_still_a_whole_output(tmp_path: Path, pagepairs) -> None:
    (tmp_path / "empty.warc.gz").write_bytes(b"")
    write_warc(tmp_path / "info.warc.gz", [])
    write_warc(tmp_path / "single.warc.gz", site(range(3), views=1))
    images = {"empty": 0, "info": 0, "single": 3}
    for name, count in images.items():
        output = tmp_path / name
        done = pagepairs("run", "--input", tmp_path / f"{name}.warc.gz", "--output", output, "--encoder", "builtin")
        assert (done.code, "Traceback" in done.err) == (5, False), done.err
        sentence = "no pair was found; " if count else "the crawl holds no image: "
        assert done.err.splitlines()[-1].startswith(f"pagepairs: {sentence}")
        assert (output / "report" / "report.html").is_file()
        assert counters(output, "images")["in"] == count
        assert counters(output, "episodes")["dropped"] == ({"single_image": 3} if count else {})
        assert_conserved(output)
        assert_sound(output)


BAD_TABLES = {
    "columns.csv": ("a,b\n1,2\n", "page_url"),
    "urls.csv": ("page_url,image_url\nhttps://a.example/,https://a.example/1.jpg\n", "img2dataset"),
    "urls.jsonl": ('{"page_url": "https://a.example/", "image_url": "https://a.example/1.jpg"}\n', "img2dataset"),
    "broken.parquet": ("PAR1", "no Parquet file"),
    "strange.txt": ("hello", "no source reads this kind of file"),
    "picture.jpg": ("", "give the folder"),
}


def bad_inputs(folder: Path) -> dict[Path, str]:
    """Writes inputs that cannot be used; returns what the sentence about each must say."""
    for name, (text, _) in BAD_TABLES.items():
        (folder / name).write_text(text)
    pq.write_table(pa.table({"page_url": ["https://a.example/"], "image_url": ["https://a.example/1.jpg"]}), folder / "urls.parquet")
    (folder / "nothing").mkdir()
    said = {folder / name: text for name, (_, text) in BAD_TABLES.items()}
    more = {
        "urls.parquet": "img2dataset",
        "nothing": "nothing there",
        "absent.warc.gz": "no such file",
        "absent-*.warc.gz": "nothing there",
    }
    return said | {folder / name: text for name, text in more.items()}


def test_unusable_inputs_are_one_sentence(tmp_path: Path, pagepairs) -> None:
    (tmp_path / "in").mkdir()
    for path, text in bad_inputs(tmp_path / "in").items():
        done = pagepairs("run", "--input", path, "--output", tmp_path / "out", "--encoder", "builtin")
        assert (done.code, text in done.err, str(path) in done.err, "Traceback" in done.err) == (3, True, True, False), (path, done.err)
        assert not (tmp_path / "out").exists()


def test_one_bad_table_among_good_inputs_stops_before_anything_is_written(site_files: list[Path], tmp_path: Path, pagepairs) -> None:
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    done = pagepairs("run", "--input", *site_files, tmp_path / "columns.csv", "--output", tmp_path / "out", "--encoder", "builtin")
    assert done.code == 3
    assert not (tmp_path / "out").exists()


def resize(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_full_disk_at_any_stage_and_then_more_room(site_files: list[Path], site_run: Path, small_disk: Path, pagepairs) -> None:
    output = small_disk / "out"
    command = ["run", "--input", *site_files, "--output", output, "--encoder", "builtin"]
    reached = []
    for size in ("16k", "180k", "260k", "300k", "720k"):
        resize(small_disk, f"size={size}")
        done = pagepairs(*command)
        assert (done.code, "Traceback" in done.err) == (4, False), (size, done.err)
        assert os.strerror(errno.ENOSPC) in done.err.splitlines()[-1]
        assert str(output) in done.err.splitlines()[-1]
        assert half_written(output) == []
        reached.append(done.err.splitlines()[-2].split(":")[0] if len(done.err.splitlines()) > 1 else "")
    assert reached == ["", "scan", "embed", "embed", "pair"]  # the last stage that was finished
    resize(small_disk, "size=64m")
    done = pagepairs(*command)
    assert done.code == 0, done.err
    assert data_hashes(output) == data_hashes(site_run)
    assert_sound(output)


def test_a_read_only_output(site_files: list[Path], small_disk: Path, pagepairs) -> None:
    resize(small_disk, "ro")
    done = pagepairs("run", "--input", *site_files, "--output", small_disk / "out", "--encoder", "builtin")
    assert (done.code, len(done.err.splitlines())) == (4, 1), done.err
    assert os.strerror(errno.EROFS) in done.err


@pytest.mark.parametrize("below", ["", "out", "deep/out"])
def test_an_output_that_is_or_lies_below_a_file(site_files: list[Path], tmp_path: Path, pagepairs, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path / "file" / below, "--encoder", "builtin")
    assert (done.code, len(done.err.splitlines())) == (4, 1), done.err
    assert "--output" in done.err
    assert (tmp_path / "file").read_text() == "mine"


WRONG_SETTINGS = [
    (["--encodr", "builtin"], "--encoder"),
    (["--hihg", "0.8"], "--high"),
    (["--min-side", "200"], "--min-side-px"),
    (["--runer", "FlinkRunner"], "--runner"),
    (["--low", "0.3"], "give --low and --high together"),
    (["--low", "0.9", "--high", "0.3"], "must lie below --high 0.3"),
    (["--low", "-2", "--high", "0.3"], "between -1 and 1"),
    (["--limit", "many"], "--limit"),
    (["--size", "4"], "give at least 16 pixels"),
    (["--group-by", "site"], "--group-by"),
    (["--encoder", "buildin"], "the nearest is builtin"),
    (["--encoder", "tflite:/nowhere.tflite", "--low", "0.3", "--high", "0.9"], "/nowhere.tflite"),
    (["--encoder", "dinov2-small", "--encoder-weights", "/nowhere"], "/nowhere"),
    (["--encoder", "builtin", "--runner", "DaskRunner"], "--runner DaskRunner"),
    (["--encoder", "builtin", "--direct_running_mode", "multi_threading"], "--workers"),
    (["--encoder", "builtin", "--block-list", "/nowhere.txt"], "--block-list /nowhere.txt"),
    (["--encoder", "builtin", "--config", "/nowhere.json"], "--config /nowhere.json"),
    (["--encoder", "builtin", "stray"], "stray"),
]


@pytest.mark.parametrize(("flags", "text"), WRONG_SETTINGS)
def test_a_wrong_setting_stops_before_the_first_record(
    site_files: list[Path], tmp_path: Path, pagepairs, flags: list[str], text: str
) -> None:
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path / "out", *flags)
    assert (done.code, text in done.err, "Traceback" in done.err) == (2, True, False), done.err
    assert not (tmp_path / "out").exists()


def test_weights_that_are_nowhere_say_what_to_do(site_files: list[Path], tmp_path: Path, shell) -> None:
    done = shell(
        "run", "--input", *site_files, "--output", tmp_path / "out", "--encoder", "dinov2-small", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)
    )
    assert done.code == 2
    assert "--encoder-weights" in done.err
    assert "--encoder builtin" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"scan": 1}', '{"scan": {"colour": 1}}', '{"scan": {"limit": "many"}}', '{"other": {}}'])
def test_a_config_that_is_none(site_files: list[Path], tmp_path: Path, pagepairs, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    done = pagepairs("run", "--config", tmp_path / "config.json", "--input", *site_files, "--output", tmp_path / "out")
    assert (done.code, len(done.err.splitlines()), "config.json" in done.err) == (2, 1, True), done.err


def test_a_block_list_with_a_wrong_line(site_files: list[Path], tmp_path: Path, pagepairs) -> None:
    (tmp_path / "block.txt").write_text("site.example\nnot a domain\n")
    done = pagepairs(
        "run", "--input", *site_files, "--output", tmp_path / "out", "--encoder", "builtin", "--block-list", tmp_path / "block.txt"
    )
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert "line 2" in done.err


def test_a_stage_without_a_run_before_it(tmp_path: Path, pagepairs) -> None:
    for stage in ("embed", "pair", "shard", "report"):
        done = pagepairs(stage, "--output", tmp_path / "out")
        assert (done.code, "pagepairs run" in done.err, "Traceback" in done.err) == (2, True, False), (stage, done.err)


def test_the_command_line_as_a_process(tmp_path: Path, shell) -> None:
    done = shell("rnu")
    assert (done.code, done.err) == (2, "pagepairs: no command 'rnu', the nearest is 'run'; pagepairs --help lists all\n")
    done = shell("run", "--input", tmp_path / "absent.warc.gz", "--output", tmp_path / "out", "--encoder", "builtin")
    assert (done.code, done.err) == (3, f"pagepairs: --input {tmp_path}/absent.warc.gz: there is no such file or folder\n")
