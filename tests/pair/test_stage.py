"""Stage pair as a whole: each drop reason with one reference just on either side, and agreement with the slow version."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from slow_pair import reasons, slow_pair
from small_crawl import Crawl, Paired, finish_pair, image_id, pair_job, run_pair, unit_vector

import pipeline.jobs
from pagepairs.config import PairConfig
from pagepairs.keys import text_key
from pipeline.jobs import gather


def ordered(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: [str(row[name]) for name in names])


def assert_agree(found: Paired, expected: dict[str, list[dict[str, Any]]]) -> None:
    assert ordered(found.rows["episodes"], "page_key") == ordered(expected["episodes"], "page_key")
    assert ordered(found.rows["copies"], "image_id") == ordered(expected["copies"], "image_id")
    names = ("page_url", "image_url", "reason", "detail")
    assert ordered(found.rows["drops/pair"], *names) == ordered(expected["drops/pair"], *names)
    candidates = (
        [{name: row[name] for name in found.rows["candidates"][0]} for row in expected["candidates"]] if found.rows["candidates"] else []
    )
    assert ordered(found.rows["candidates"], "page_key", "a_id", "b_id") == ordered(candidates, "page_key", "a_id", "b_id")
    assert len(candidates) == len(expected["candidates"])
    assert ordered(found.rows["pairs"], "pair_id") == expected["pairs"]
    pages, pairs = found.outcomes["episodes"].counters, found.outcomes["pairs"].counters
    assert pages["dropped"] == reasons(expected["drops/pair"])
    assert pages["kept"] == sum(len(row["images"]) for row in expected["episodes"])
    assert (pages["in"], pages["errors"], pages["episodes"]) == (
        pages["kept"] + sum(pages["dropped"].values()),
        0,
        len(expected["episodes"]),
    )
    possible = sum(len(row["images"]) * (len(row["images"]) - 1) // 2 for row in expected["episodes"])
    assert pages["not_sampled"] == possible - len(expected["candidates"])
    counts = reasons(expected["candidates"])
    assert pairs["kept"] == counts.pop("", 0)
    assert pairs["dropped"] == counts
    assert (pairs["in"], pairs["pairs"], sum(pairs["histogram"])) == (
        len(expected["candidates"]),
        len(expected["pairs"]),
        len(expected["candidates"]),
    )


# One crawl in which every reason has a reference that it drops and one just on the other side

CONFIG = PairConfig(max_pages_per_image=3, max_hosts_per_image=2, max_images_per_page=3, pairs_per_episode=3)


def both_sides() -> Crawl:
    crawl = Crawl()
    for name in "uvw":  # company for the images that are looked at; one set a page, 30 degrees apart
        for n in range(30):
            crawl.image(f"{name}{n}", angle={"u": 0, "v": 30, "w": 60}[name])
    crawl.page("crawled/", "u0", "v0", "missing")
    crawl.image("seen", angle=60)
    crawl.page("crawled/too", "u1", "seen")
    for reason in ("too_small", "low_texture"):
        crawl.drop(reason, reason)
    crawl.drop("also dropped", "aspect")
    crawl.image("also dropped", angle=60)
    crawl.page("dropped/", "u2", "v2", "too_small", "low_texture", "also dropped")
    crawl.image("opted", reason="opt_out")
    crawl.image("blocked", reason="blocked")
    crawl.drop("opted", "opt_out")
    crawl.page("policy/", "u3", "v3", "opted", "blocked")
    opted = crawl.rows["images"][-2]["phash"]
    crawl.image("copy of opted", phash=opted, width=9_000)
    crawl.image("near copy of opted", phash=opted ^ 0b111111, pdq=b"\xff" * 6 + bytes(26), angle=60)
    crawl.image("7 bits from opted", phash=opted ^ 0b1111111 << 16, angle=60)
    crawl.image("49 bits of PDQ from opted", phash=opted, pdq=b"\xff" * 6 + b"\x80" + bytes(25), angle=30)
    crawl.image("flat as opted", phash=opted, texture=49, angle=90)
    crawl.page("copies/", "u4", "copy of opted", "near copy of opted")
    crawl.page("copies/not", "7 bits from opted", "49 bits of PDQ from opted", "flat as opted")
    for reason, n in (("page_opt_out", 5), ("page_blocked", 22)):
        crawl.link(reason, f"u{n}", reason=reason)
        crawl.link(reason, f"v{n}", capture=2)
        crawl.page(f"{reason}/open", f"u{n}", f"v{n}")
    crawl.page("twice/", "u6", "v6", "u6")
    crawl.image("small v6", phash=int(image_id("v6")[:16], 16), width=320, height=256)
    crawl.page("twice/copy", "u7", "v6", "small v6")
    for n in range(4):  # "everywhere" on 4 pages of 2 hosts, "often" on 3 of them
        crawl.page(f"{'ab'[n % 2]}.pages/{n}", f"u{8 + n}", f"v{8 + n}", "everywhere", *["often"] * (n < 3))
    for n in range(3):  # "hosted" on 3 hosts, "two hosts" on 2 of them
        crawl.page(f"host{n}", f"u{12 + n}", f"v{12 + n}", "hosted", *["two hosts"] * (n < 2))
    for name in ("everywhere", "often", "hosted", "two hosts"):
        crawl.image(name, angle=60)
    crawl.image("no vector", angle=None)
    crawl.page("vectors/", "u15", "v15", "no vector")
    crawl.image("255", angle=60, height=255, width=999)
    crawl.image("256", angle=60, height=256, width=256)
    crawl.page("sizes/", "u16", "255", "256")
    crawl.page("cap/full", "u17", "v17", "w17")
    crawl.page("cap/over", "u18", "v18", "w18", "w19")
    crawl.page("alone/", "u20")
    crawl.page("alone/not", "u21", "v21")
    crawl.page("mirror/1", "u23", "v23", "missing")
    crawl.page("mirror/2", "small v23", "u23")
    crawl.image("small v23", phash=int(image_id("v23")[:16], 16) ^ 7, width=320, height=256)
    crawl.page("mirror/not", "u23", "w23")
    return crawl


MIRRORS = [
    (["u23", "v23"], {"missing": "not_in_crawl"}),
    (["small v23", "u23"], {}),
]
_last = max((0, 1), key=lambda n: text_key(f"https://mirror/{n + 1}"))
MIRRORS[_last] = ([], dict.fromkeys(MIRRORS[_last][0], "same_images_as_other_page") | MIRRORS[_last][1])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Paired:
    return run_pair(both_sides(), tmp_path_factory.mktemp("both"), config=CONFIG, parts=2)


@pytest.mark.parametrize(
    ("page", "kept", "dropped"),
    [
        ("crawled/", ["u0", "v0"], {"missing": "not_in_crawl"}),
        ("crawled/too", ["u1", "seen"], {}),
        ("dropped/", ["u2", "v2", "also dropped"], {"too_small": "image_dropped", "low_texture": "image_dropped"}),
        ("policy/", ["u3", "v3"], {"opted": "image_dropped", "blocked": "image_dropped"}),
        ("copies/", [], {"u4": "single_image", "copy of opted": "copy_removed", "near copy of opted": "copy_removed"}),
        ("copies/not", ["7 bits from opted", "49 bits of PDQ from opted", "flat as opted"], {}),
        ("page_opt_out", [], {"u5": "page_opt_out", "v5": "page_opt_out"}),
        ("page_opt_out/open", ["u5", "v5"], {}),
        ("page_blocked", [], {"u22": "page_blocked", "v22": "page_blocked"}),
        ("page_blocked/open", ["u22", "v22"], {}),
        ("twice/", ["u6", "v6"], {"u6": "duplicate_on_page"}),
        ("twice/copy", ["u7", "v6"], {"small v6": "duplicate_on_page"}),
        ("a.pages/0", ["u8", "v8", "often"], {"everywhere": "boilerplate_pages"}),
        ("b.pages/3", ["u11", "v11"], {"everywhere": "boilerplate_pages"}),
        ("host0", ["u12", "v12", "two hosts"], {"hosted": "boilerplate_hosts"}),
        ("host2", ["u14", "v14"], {"hosted": "boilerplate_hosts"}),
        ("vectors/", ["u15", "v15"], {"no vector": "not_embedded"}),
        ("sizes/", ["u16", "256"], {"255": "smaller_than_size"}),
        ("cap/full", ["u17", "v17", "w17"], {}),
        ("alone/", [], {"u20": "single_image"}),
        ("alone/not", ["u21", "v21"], {}),
        ("mirror/1", *MIRRORS[0]),
        ("mirror/2", *MIRRORS[1]),
        ("mirror/not", ["u23", "w23"], {}),
    ],
)
def test_each_reason_and_just_the_other_side(both: Paired, page: str, kept: list[str], dropped: dict[str, str]) -> None:
    assert both.episodes().get(page, []) == kept
    assert {image: reason for where, image, reason in both.drops() if where == page} == dropped


def test_a_page_over_the_cap_loses_one_image_and_keeps_the_order(both: Paired) -> None:
    kept, dropped = both.episodes()["cap/over"], [(image, reason) for page, image, reason in both.drops() if page == "cap/over"]
    assert [reason for _, reason in dropped] == ["page_cap"]
    assert kept == [name for name in ("u18", "v18", "w18", "w19") if name != dropped[0][0]]


def test_the_detail_of_a_dropped_image_is_the_reason_of_scan(both: Paired) -> None:
    details = {
        row["image_url"].removeprefix("https://img/"): row["detail"] for row in both.rows["drops/pair"] if row["reason"] == "image_dropped"
    }
    assert details == {"too_small": "too_small", "low_texture": "low_texture", "opted": "opt_out", "blocked": "blocked"}


def test_the_detail_of_a_removed_copy_is_the_reason_of_the_image_and_of_a_mirror_the_page_that_stays(both: Paired) -> None:
    details = {
        (row["image_url"].removeprefix("https://img/"), row["detail"]) for row in both.rows["drops/pair"] if row["reason"] == "copy_removed"
    }
    assert details == {("copy of opted", "opt_out"), ("near copy of opted", "opt_out")}
    details = {row["detail"] for row in both.rows["drops/pair"] if row["reason"] == "same_images_as_other_page"}
    assert details == {f"https://mirror/{2 - _last}"}


def test_the_crawl_of_both_sides_agrees_with_the_slow_version(both: Paired) -> None:
    assert_agree(both, slow_pair(both_sides(), CONFIG))


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> Paired:
    """Pairs at both bounds, beyond them, and on several pages."""
    crawl = Crawl()
    for name, angle in (("0", 0), ("30", 30), ("60", 60), ("90", 90), ("59", 59), ("29", 29)):
        crawl.image(name, angle=angle)
    for page, names in (
        ("low", ["0", "60"]),
        ("below", ["0", "90"]),
        ("high", ["30", "60"]),
        ("above", ["30", "59"]),
        ("x", ["0", "29"]),
        ("y", ["29", "0", "far"]),
        ("z", ["0", "far too", "29"]),
    ):
        crawl.page(page, *names)
    for name in ("far", "far too"):  # so that no two pages show the same images
        crawl.image(name, angle=200)
    # cos 60 = 0.5 and cos 30 as float16 vectors have them: the bounds are inclusive.
    found = without_far(slow_pair(crawl, PairConfig(), low=-1, high=1)["candidates"])
    at = {row["page_url"]: row["similarity"] for row in found}
    return run_pair(
        crawl, tmp_path_factory.mktemp("banded"), low=at["https://low"], high=at["https://x"], config=PairConfig(directions="both")
    )


def without_far(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "far" not in row["a_url"] + row["b_url"]]


def test_the_bounds_are_kept_and_beyond_them_nothing(banded: Paired) -> None:
    candidates = without_far(banded.rows["candidates"])
    found = {row["page_url"].removeprefix("https://"): row["reason"] for row in candidates}
    lowest = min("xyz", key=lambda page: text_key(f"https://{page}"))
    twins = dict.fromkeys("xyz", "on_another_page") | {lowest: ""}
    assert found == {"low": "", "below": "below_low", "high": "", "above": "", **twins} | {"above": found["above"]}
    similarity = {row["page_url"].removeprefix("https://"): row["similarity"] for row in candidates}
    assert {
        page: similarity["below"] < similarity["low"] <= value <= similarity["x"] for page, value in similarity.items() if found[page] == ""
    } == dict.fromkeys([page for page in found if found[page] == ""], True)


def test_a_pair_of_three_pages_is_written_once_with_their_number_and_in_both_directions(banded: Paired) -> None:
    pairs = [row for row in banded.rows["pairs"] if {row["condition_url"], row["target_url"]} == {"https://img/0", "https://img/29"}]
    assert [row["page_count"] for row in pairs] == [3, 3]
    assert {(row["condition_id"], row["target_id"]) for row in pairs} == {(image_id(a), image_id(b)) for a, b in (("0", "29"), ("29", "0"))}


# Agreement with the slow version, whatever the order, the files, the parts and the waves


def any_crawl(seed: int) -> Crawl:
    """Pages, captures, redirects, revisits, copies and opt-outs at random, so dense that rules meet."""
    rng, crawl = random.Random(seed), Crawl()
    names = [f"n{i}" for i in range(40)]
    for name in names:
        for time in rng.sample([None, 0, 10, 20, 30], rng.choice([1, 1, 2])):
            content = name if rng.random() < 0.7 else f"{name} at {time}"
            known = rng.random() < 0.4
            crawl.image(
                content,
                url=f"https://img/{name}",
                angle=rng.choice([None, 0, 20, 40, 40, 65, 65, 90, 180])
                if content not in names or image_id(content) not in crawl.vectors
                else None,
                time=time,
                reason=rng.choice(["opt_out", "blocked", *[""] * 60]),
                source=f"{content} {time}.warc",
                digest_key=text_key(f"digest:{content}") if known else "",
                **_looks(content),
            )
    kept = {row["image_id"] for row in crawl.rows["images"] if not row["reason"]}
    crawl.vectors = {name: vector for name, vector in crawl.vectors.items() if name in kept}
    for i in range(8):
        crawl.alias(f"https://img/r{i}", f"https://img/{rng.choice([*names, f'r{rng.randrange(8)}', 'd0'])}")
    for i in range(3):
        crawl.alias(f"https://img/v{i}", f"digest:{rng.choice(names)}")
    for name in ("d0", "d1", "n1", "r2"):
        crawl.drop(name, rng.choice(["too_small", "aspect", "animated"]))
    urls = [*names, *(f"r{i}" for i in range(8)), "v0", "v1", "v2", "d0", "d1", "gone"]
    for page in range(24):
        host, folder = rng.choice(["h1", "h2", "h3"]), rng.choice(["", "f/"])
        address = f"{host}/{folder}{page}"
        crawl.capture(address, reason=rng.choice(["page_opt_out", "page_blocked"]) if rng.random() < 0.06 else "")
        for capture in range(rng.choice([1, 1, 2])):
            time, closed = rng.choice([None, 0, 5, 15, 25]), rng.random() < 0.06
            for position in range(rng.randrange(1, 9)):
                reason = rng.choice(["page_opt_out", "page_blocked"]) if closed else ""
                for via in rng.choice([["img"], ["img", "srcset", "srcset"], ["referer"]]):
                    crawl.link(
                        address, rng.choice(urls), position=position, capture=capture, time=time, via=via, reason=reason, alt=f"{position}"
                    )
    return crawl


def _looks(content: str) -> dict[str, Any]:
    """The same size and hashes for the same content; some images are copies and near copies of each other, or nearly so."""
    rng = random.Random(content)
    size = {
        "width": rng.choice([255, 300, 640, 640, 640, 900]),
        "height": rng.choice([255, 480, 480, 480, 480]),
        "bytes": rng.choice([90, 100]),
    }
    if rng.random() < 0.6:
        return size
    flips = sum(1 << bit for bit in rng.sample(range(64), rng.choice([0, 0, 1, 2, 3, 4])))
    pdq = sum(1 << bit for bit in rng.sample(range(256), rng.choice([0, 10, 30])))
    return size | {"phash": rng.choice([0, 2**63 + 5]) ^ flips, "pdq": pdq.to_bytes(32, "big"), "texture": rng.choice([49, *[50] * 9])}


@pytest.mark.parametrize(
    ("seed", "parts", "files", "settings"),
    [
        (0, 1, 1, {}),
        (1, 4, 3, {"max_images_per_page": 5, "pairs_per_episode": 4, "seed": 7}),
        (2, 7, 2, {"max_pages_per_image": 7, "group_by": "path", "directions": "both"}),
        (3, 2, 5, {"max_hosts_per_image": 2, "group_by": "host", "max_images_per_page": 9}),
        (5, 3, 2, {"copy_cosine": 0.995}),
    ],
)
def test_any_crawl_agrees_with_the_slow_version(tmp_path: Path, seed: int, parts: int, files: int, settings: dict[str, Any]) -> None:
    crawl, config = any_crawl(seed), PairConfig(**settings)
    if config.copy_cosine is not None:  # vectors that differ, so that a few are alike
        crawl.vectors = {name: unit_vector(int(name[:4], 16) % 180, crawl.width) for name in crawl.vectors}
    expected = slow_pair(crawl, config)
    assert len(expected["pairs"]) >= 5
    assert_agree(run_pair(crawl, tmp_path, config=config, parts=parts, files=files, shuffle=seed), expected)


def mixed(part: int, pieces: Iterable[tuple[str, bytes | str]]) -> dict[str, pa.Table]:
    """Gathers a part with its rows in another order: no shuffle promises one."""
    rng = np.random.default_rng(part)
    return {tag: table.take(pa.array(rng.permutation(len(table)))) for tag, table in gather(part, pieces).items()}


def test_order_files_and_the_kind_of_shuffle_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl, config = any_crawl(4), PairConfig(max_images_per_page=5)
    found = [run_pair(crawl, tmp_path / "0", config=config, parts=3)]
    monkeypatch.setattr(pipeline.jobs, "is_local", lambda _: False)
    monkeypatch.setattr(pipeline.jobs, "_PACK_BYTES", 1)
    found.append(run_pair(crawl, tmp_path / "1", config=config, parts=3, files=4, shuffle=1))
    monkeypatch.setattr(pipeline.jobs, "gather", mixed)
    found.append(run_pair(crawl, tmp_path / "2", config=config, parts=3, files=4, shuffle=2))
    assert found[1].hashes == found[2].hashes == found[0].hashes
    assert {name: len(files) for name, files in found[0].hashes.items()} == dict.fromkeys(
        ["copies", "episodes", "drops/pair", "candidates", "pairs"], 3
    )


def test_what_is_done_is_not_done_again_and_a_lost_part_comes_back_byte_by_byte(tmp_path: Path) -> None:
    found = run_pair(any_crawl(5), tmp_path, parts=2)
    files = {path: path.stat().st_mtime_ns for path in (found.work / "final").rglob("*.parquet")}
    lost = found.work / "final" / "pairs" / "part-00001-of-00002.parquet"
    lost.unlink()
    (found.work / "done" / "pairs" / "part-00001-of-00002.json").unlink()
    again = finish_pair(pair_job(tmp_path / "out", tmp_path / "work", parts=2))
    assert again.hashes == found.hashes
    touched = {path.name for path, time in files.items() if path.stat().st_mtime_ns != time}
    assert touched == {lost.name}


def test_a_crawl_without_rows_leaves_empty_datasets(tmp_path: Path) -> None:
    found = run_pair(Crawl(), tmp_path, parts=2)
    assert found.rows == {"copies": [], "episodes": [], "drops/pair": [], "candidates": [], "pairs": []}
    assert found.outcomes["pairs"].counters == {"in": 0, "kept": 0, "dropped": {}, "errors": 0, "pairs": 0, "histogram": [0] * 200}


def test_links_without_any_image_are_not_in_the_crawl(tmp_path: Path) -> None:
    crawl = Crawl()
    crawl.page("p", "a", "b")
    crawl.drop("b", "broken_image")
    found = run_pair(crawl, tmp_path, parts=1)
    assert found.drops() == {("p", "a", "not_in_crawl"), ("p", "b", "image_dropped")}


def test_a_page_under_many_addresses_and_hosts_is_one_page_and_no_boilerplate(tmp_path: Path) -> None:
    crawl, config = Crawl(), PairConfig(max_pages_per_image=2, max_hosts_per_image=1)
    for n in range(4):
        crawl.image(str(n), angle=20 * n)
    pages = [f"host{n % 3}/page?sid={n}" for n in range(9)]
    for page in pages:
        crawl.page(page, "0", "1", "2", "3")
    found = run_pair(crawl, tmp_path, config=config, parts=2)
    assert_agree(found, slow_pair(crawl, config))
    assert len(found.rows["episodes"]) == 1
    assert {reason for _, _, reason in found.drops()} == {"same_images_as_other_page"}


def test_pages_that_show_nothing_but_a_logo_and_a_banner_are_pages_of_their_own(tmp_path: Path) -> None:
    crawl, config = Crawl(), PairConfig(max_pages_per_image=2)
    for n in range(2):
        crawl.image(str(n), angle=40 * n)
    for page in range(3):
        crawl.page(f"host/{page}", "0", "1")
    found = run_pair(crawl, tmp_path, config=config)
    assert_agree(found, slow_pair(crawl, config))
    assert {reason for _, _, reason in found.drops()} == {"boilerplate_pages"}


def test_mirrors_above_the_cap_keep_the_same_images_and_stay_mirrors(tmp_path: Path) -> None:
    crawl, config = Crawl(), PairConfig(max_images_per_page=3)
    for n in range(8):
        crawl.image(str(n), angle=10 * n)
    for page in ("one", "two"):
        crawl.page(page, *(str(n) for n in range(8)))
    found = run_pair(crawl, tmp_path, config=config)
    assert_agree(found, slow_pair(crawl, config))
    assert [len(row["images"]) for row in found.rows["episodes"]] == [3]


def test_images_alike_anywhere_in_the_crawl_are_one_picture_with_a_cut(tmp_path: Path) -> None:
    """A crop that no hash finds, on a page of its own; a flat image at the same place is no copy of either."""
    crawl = Crawl()
    crawl.image("whole", angle=0, width=900)
    crawl.image("crop", angle=10)
    crawl.image("flat", angle=5, texture=49)
    for name, angle in (("a", 60), ("b", 90), ("c", 120)):
        crawl.image(name, angle=angle)
    for page, names in (("one", ["whole", "a"]), ("two", ["crop", "b"]), ("three", ["flat", "c"])):
        crawl.page(page, *names)
    apart = run_pair(crawl, tmp_path / "apart")
    assert apart.rows["copies"] == []
    found = run_pair(crawl, tmp_path / "found", config=PairConfig(copy_cosine=0.98), parts=2)
    copy = {"image_id": image_id("crop"), "canonical_id": image_id("whole"), "rule": "near_embedding"}
    assert found.rows["copies"] == [copy]
    pages = {row["page_url"]: [image["image_id"] for image in row["images"]] for row in found.rows["episodes"]}
    assert pages["https://two"] == [image_id("whole"), image_id("b")]
    assert pages["https://three"] == [image_id("flat"), image_id("c")]


def test_a_cap_below_the_number_of_alternatives_leaves_a_page_whole(tmp_path: Path) -> None:
    """Every element offers three sizes that are images of their own; the sample must hold images that the elements can still choose."""
    crawl, config = Crawl(), PairConfig(max_images_per_page=3)
    for page in range(6):
        for position in range(4):
            for size in range(3):
                name = f"{page} {position} {size}"
                crawl.image(name, angle=20 * position, width=500 + size)
                crawl.link(f"page{page}", name, position=position, via="srcset")
    assert_agree(run_pair(crawl, tmp_path, config=config, parts=2), slow_pair(crawl, config))
