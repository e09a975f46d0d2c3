"""What settings change in a whole run, and what pages and their owners ask for."""

import hashlib
import io
import json
from pathlib import Path

from made_crawls import Response, encode, page, picture, site, write_warc
from outputs import assert_conserved, counters, pair_set, rows
from PIL import Image

A, B = "https://a.example", "https://b.example"


def image_id(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def image(url: str, view: int, theme: int = 1, **more: object) -> Response:
    return Response(url=url, body=picture(theme, view), **more)


def run(pagepairs, folder: Path, records: list[Response], *flags: object) -> Path:
    """Runs all stages over the records and returns the output; it must hold pairs, and conserve what went in."""
    output = folder / "out"
    done = pagepairs("run", "--input", write_warc(folder / "crawl.warc.gz", records), "--output", output, "--encoder", "builtin", *flags)
    assert done.code == 0, done.err
    assert_conserved(output)
    return output


def reasons(output: Path, stage: str) -> dict[tuple[str, str], str]:
    """Returns the reason of each dropped record by page and image; scan knows no page."""
    return {(row["page_url"], row["image_url"]): row["reason"] for row in rows(output, f"drops/{stage}")}


def members(output: Path) -> dict[str, list[str]]:
    return {row["page_url"]: [one["image_id"] for one in row["images"]] for row in rows(output, "episodes")}


def test_dry_run_prints_settings_and_plan_and_writes_nothing(site_files: list[Path], tmp_path: Path, pagepairs) -> None:
    output = tmp_path / "out"
    done = pagepairs("run", "--input", *site_files, "--output", output, "--encoder", "builtin", "--seed", 3, "--dry-run")
    assert (done.code, done.err) == (0, "")
    said = json.loads(done.out)
    assert said["configuration"]["pair"]["seed"] == 3
    assert said["configuration"]["scan"]["input"] == [str(path) for path in site_files]
    plan = said["plan"]
    assert plan["stages"] == ["scan", "embed", "pair", "shard", "report"]
    assert (plan["files"], plan["units"], plan["bytes"]) == (4, 4, sum(path.stat().st_size for path in site_files))
    assert plan["output"] == str(output)
    assert not output.exists()


def test_episodes_by_folder_and_by_host(tmp_path: Path, pagepairs) -> None:
    pages = [f"{A}/{folder}/{n}.html" for folder in ("x", "y") for n in range(2)]
    records = [page(url, [f"/{n}.jpg"]) for n, url in enumerate(pages)] + [image(f"{A}/{n}.jpg", n) for n in range(4)]
    ids = [image_id(picture(1, n)) for n in range(4)]
    by_path = run(pagepairs, tmp_path / "path", records, "--group-by", "path")
    assert {url: sorted(one) for url, one in members(by_path).items()} == {f"{A}/x/": sorted(ids[:2]), f"{A}/y/": sorted(ids[2:])}
    assert {row["page_url"] for row in rows(by_path, "shards")} == {f"{A}/x/", f"{A}/y/"}
    by_host = run(pagepairs, tmp_path / "host", records, "--group-by", "host")
    assert {url: sorted(one) for url, one in members(by_host).items()} == {A: sorted(ids)}
    assert counters(by_host, "candidates")["in"] == 6


def test_both_directions_write_every_pair_twice(site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs) -> None:
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin", "--directions", "both")
    assert done.code == 0, done.err
    assert_conserved(tmp_path)
    one = pair_set(site_run)
    assert pair_set(tmp_path) == one | {(target, condition, similarity) for condition, target, similarity in one}
    assert counters(tmp_path, "shards")["kept"] == 2 * len(one) == len({row["pair_id"] for row in rows(tmp_path, "shards")})
    assert rows(tmp_path, "candidates") == rows(site_run, "candidates")


def test_the_seed_changes_choices_only(site_files: list[Path], tmp_path: Path, pagepairs) -> None:
    found = []
    for seed in (0, 1):
        output = tmp_path / str(seed)
        done = pagepairs(
            "run", "--input", *site_files, "--output", output, "--encoder", "builtin", "--seed", seed, "--pairs-per-episode", 2
        )
        assert done.code == 0, done.err
        assert_conserved(output)
        assert counters(output, "candidates")["in"] == 8 * 2
        found.append({(row["a_id"], row["b_id"]) for row in rows(output, "candidates")})
    assert found[0] != found[1]


def blocked_crawl() -> list[Response]:
    """Page 1 shows 0 1 2 and copy; page 2 is blocked; c.example serves 3; `copy` holds the bytes of 0."""
    records = [
        page(f"{A}/1", ["/0.jpg", "/1.jpg", "/2.jpg", "/4.jpg", "/5.jpg", "https://img.c.example/3.jpg", "/id.jpg"]),
        page(f"{A}/2", ["/1.jpg", "/2.jpg"]),
        page(f"{B}/3", ["/copy.jpg", f"{A}/1.jpg", f"{A}/2.jpg"]),
        Response(url=f"{B}/copy.jpg", body=picture(1, 0)),
        image("https://img.c.example/3.jpg", 3),
        image(f"{A}/id.jpg", 6),
    ]
    return records + [image(f"{A}/{n}.jpg", n) for n in (0, 1, 2, 4, 5)]


def test_block_list(tmp_path: Path, pagepairs) -> None:
    block = tmp_path / "block.txt"
    block.write_text(f"# what we must not use\nc.example\n{A}/0.jpg\n{A}/2?utm_source=x#top\n{image_id(picture(1, 6))}\n")
    output = run(pagepairs, tmp_path, blocked_crawl(), "--block-list", block)
    assert reasons(output, "scan") == {("", url): "blocked" for url in ("https://img.c.example/3.jpg", f"{A}/0.jpg", f"{A}/id.jpg")}
    assert reasons(output, "pair") == {
        (f"{A}/1", f"{A}/0.jpg"): "image_dropped",
        (f"{A}/1", "https://img.c.example/3.jpg"): "image_dropped",
        (f"{A}/1", f"{A}/id.jpg"): "image_dropped",
        (f"{A}/2", f"{A}/1.jpg"): "page_blocked",
        (f"{A}/2", f"{A}/2.jpg"): "page_blocked",
        (f"{B}/3", f"{B}/copy.jpg"): "copy_removed",
    }
    assert {row["detail"] for row in rows(output, "drops/pair") if row["reason"] == "image_dropped"} == {"blocked"}


def opted_out_crawl() -> list[Response]:
    """Two images, a page by header and a page by meta element whose owners said no, a copy of one image, and three free images."""
    free = [f"/{n}.jpg" for n in range(3)]
    records = [
        page(f"{A}/1", [*free, "/noai.jpg", "/tdm.jpg"]),
        page(f"{A}/2", free, headers=(("X-Robots-Tag", "noindex, noimageai"),)),
        page(f"{A}/3", free[:2], head='<meta name="robots" content="noai">'),
        page(f"{A}/4", ["/copy.jpg", *free[1:]]),
        image(f"{A}/noai.jpg", 7, headers=(("X-Robots-Tag", "noai"),)),
        image(f"{A}/tdm.jpg", 8, headers=(("tdm-reservation", "1"),)),
        Response(url=f"{A}/copy.jpg", body=picture(1, 7)),
    ]
    return records + [image(f"{A}/{n}.jpg", n) for n in range(3)]


def test_opt_outs_are_honoured(tmp_path: Path, pagepairs) -> None:
    output = run(pagepairs, tmp_path, opted_out_crawl())
    assert reasons(output, "scan") == {("", f"{A}/noai.jpg"): "opt_out", ("", f"{A}/tdm.jpg"): "opt_out"}
    assert reasons(output, "pair") == {
        (f"{A}/1", f"{A}/noai.jpg"): "image_dropped",
        (f"{A}/1", f"{A}/tdm.jpg"): "image_dropped",
        (f"{A}/4", f"{A}/copy.jpg"): "copy_removed",
        **{(f"{A}/{page}", f"{A}/{view}.jpg"): "page_opt_out" for page, views in ((2, 3), (3, 2)) for view in range(views)},
    }
    used = {row[f"{side}_id"] for row in rows(output, "shards") for side in ("condition", "target")}
    assert used == {image_id(picture(1, view)) for view in range(3)}


def test_opt_outs_can_be_ignored(tmp_path: Path, pagepairs) -> None:
    output = run(pagepairs, tmp_path, opted_out_crawl(), "--ignore-opt-out")
    assert reasons(output, "scan") == reasons(output, "pair") == {}
    assert set(members(output)) == {f"{A}/{n}" for n in (1, 2, 3, 4)}


def test_copies_boilerplate_and_captures(tmp_path: Path, pagepairs) -> None:
    """One crawl: a copy on the same page, a larger copy elsewhere, a logo on four pages, an image and a page that were captured twice."""
    large = Image.open(io.BytesIO(picture(1, 0))).resize((560, 520), Image.Resampling.LANCZOS)
    records = [
        page(f"{A}/1", ["/0.jpg", "/same.jpg", "/1.jpg", "/logo.jpg"]),
        page(f"{A}/2", ["/large.png", "/1.jpg", "/6.jpg", "/logo.jpg"]),
        page(f"{A}/3?utm_source=mail", ["/changed.jpg", "/2.jpg", "/logo.jpg"], date="2025-03-02T10:00:00Z"),
        page(f"{A}/3#again", ["/changed.jpg", "/2.jpg", "/3.jpg"], date="2025-03-09T10:00:00Z"),
        page(f"{A}/4", ["/4.jpg", "/5.jpg", "/logo.jpg"]),
        Response(url=f"{A}/same.jpg", body=picture(1, 0)),
        Response(url=f"{A}/large.png", body=encode(large, "PNG"), kind="image/png"),
        image(f"{A}/logo.jpg", 0, theme=9),
        image(f"{A}/changed.jpg", 20, date="2025-03-02T10:00:05Z"),
        image(f"{A}/changed.jpg", 21, date="2025-03-09T10:00:05Z"),
    ]
    records += [image(f"{A}/{n}.jpg", n) for n in range(7)]
    output = run(pagepairs, tmp_path, records, "--max-pages-per-image", 3)
    best, name = image_id(encode(large, "PNG")), {n: image_id(picture(1, n)) for n in (*range(7), 20, 21)}
    assert members(output) == {
        f"{A}/1": [best, name[1]],
        f"{A}/2": [best, name[1], name[6]],
        f"{A}/3": members(output)[f"{A}/3"],  # below: both captures are one page, in an order of their own
        f"{A}/4": [name[4], name[5]],
    }
    assert sorted(members(output)[f"{A}/3"]) == sorted([name[20], name[21], name[2], name[3]])
    assert reasons(output, "pair") == {
        (f"{A}/1", f"{A}/same.jpg"): "duplicate_on_page",
        (f"{A}/3", f"{A}/2.jpg"): "duplicate_on_page",
        **{(f"{A}/{n}", f"{A}/logo.jpg"): "boilerplate_pages" for n in (1, 2, 3, 4)},
    }
    shared = {(row["page_url"], row["reason"]) for row in rows(output, "candidates") if {row["a_id"], row["b_id"]} == {best, name[1]}}
    assert {page_url for page_url, _ in shared} == {f"{A}/1", f"{A}/2"}
    assert {reason for _, reason in shared} in ({"", "on_another_page"}, {"above_high"}, {"below_low"})


def test_an_image_smaller_than_the_size_is_never_enlarged(tmp_path: Path, pagepairs) -> None:
    records = [*site([1]), page(f"{A}/1", ["/0.jpg", "/1.jpg", "/2.jpg"]), *(image(f"{A}/{n}.jpg", n) for n in range(2))]
    records.append(Response(url=f"{A}/2.jpg", body=picture(1, 2, width=300, height=230)))
    output = run(pagepairs, tmp_path, records, "--size", 256)
    assert reasons(output, "pair") == {(f"{A}/1", f"{A}/2.jpg"): "smaller_than_size"}
