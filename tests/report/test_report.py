"""The report of a made run: its numbers against a recount, its page against hostile texts, its bytes against themselves."""

import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from selectolax.lexbor import LexborHTMLParser

import pipeline.jobs
from pagepairs.files import read_json, write_json, write_parquet
from pagepairs.manifest import Manifest, read_dataset, read_manifest, write_manifest
from pagepairs.records import DROPS, SCAN_DROPS, rows_to_table
from pagepairs.urls import host_of
from pipeline.report import write_report
from pipeline.report_json import find_warnings
from pipeline.report_summary import Summary
from pipeline.report_text import address, link, plain
from pipeline.runners import pipeline_options
from pipeline.sources import SourceMap, find_units


def report_of(run: Any) -> dict[str, Any]:
    report: dict[str, Any] = read_json(os.path.join(run.output, "report", "report.json"))
    return report


def page_of(run: Any) -> str:
    return Path(run.output, "report", "report.html").read_text(encoding="utf-8")


def lowest_pages(candidates: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """One row a pair: that of its lowest page."""
    lowest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in candidates:
        pair = (row["a_id"], row["b_id"])
        if pair not in lowest or row["page_key"] < lowest[pair]["page_key"]:
            lowest[pair] = row
    return lowest


def bin_of(similarity: float) -> int:
    return min(199, math.floor((similarity + 1) * 100))


def test_stages_are_the_counters_and_add_up(reported_run: Any) -> None:
    stages = report_of(reported_run)["stages"]
    folders = {"scan": "images", "embed": "embeddings/builtin", "pair": "episodes", "candidates": "candidates", "shard": "shards"}
    assert set(stages) == set(folders)
    for stage, folder in folders.items():
        counters = read_manifest(os.path.join(reported_run.output, folder)).counters
        assert stages[stage] == {name: counters[name] for name in ("in", "kept", "dropped", "errors")}
        assert stages[stage]["in"] == stages[stage]["kept"] + sum(stages[stage]["dropped"].values()) + stages[stage]["errors"]
    assert stages["scan"]["errors"] == 1


def test_stages_equal_a_recount_of_the_datasets(reported_run: Any) -> None:
    report, output = report_of(reported_run), reported_run.output
    stages = report["stages"]
    candidates = read_dataset(os.path.join(output, "candidates")).to_pylist()
    reasons = Counter(row["reason"] for row in candidates)
    assert stages["candidates"]["kept"] == reasons.pop("")
    assert stages["candidates"]["dropped"] == reasons
    assert set(reasons) == {"below_low", "above_high", "on_another_page"}
    for stage in ("scan", "embed", "pair", "shard"):
        drops = read_dataset(os.path.join(output, "drops", "embed-builtin" if stage == "embed" else stage)).to_pylist()
        assert stages[stage]["dropped"] == Counter(row["reason"] for row in drops if not row["error"])
        assert stages[stage]["errors"] == sum(row["error"] for row in drops)
    assert stages["shard"]["kept"] == read_manifest(os.path.join(output, "shards")).rows
    assert report["warnings"] == []


def test_similarity_equals_a_recount(reported_run: Any) -> None:
    similarity = report_of(reported_run)["similarity"]
    bins = Counter(bin_of(row["similarity"]) for row in reported_run.candidates)
    assert similarity["counts"] == [bins[i] for i in range(200)]
    assert similarity["edges"] == [round(i / 100 - 1, 2) for i in range(201)]
    assert (similarity["encoder"], similarity["low"], similarity["high"]) == ("builtin", 0.3, 0.9)
    assert similarity["kept"] == sum(row["reason"] == "" for row in reported_run.candidates)


def test_every_band_equals_a_recount(reported_run: Any) -> None:
    bands = report_of(reported_run)["bands"]
    rows = lowest_pages(reported_run.candidates).values()
    assert bands["pages"] == len({row["page_key"] for row in rows})
    for low in range(70, 200, 3):
        for high in range(low + 1, 201, 4):
            ends = low / 100 - 1, high / 100 - 1
            inside = [row for row in rows if np.float32(ends[0]) <= np.float32(row["similarity"]) <= np.float32(ends[1])]
            first, last = (2 * bands["edges"].index(round(end, 2)) + 1 for end in ends)
            assert sum(bands["pairs"][first : last + 1]) == len(inside)
            without = sum(n for i, j, n in bands["page_gaps"] if i <= first and j >= last)
            assert bands["pages"] - without == len({row["page_key"] for row in inside})


def test_pages_images_and_hosts_equal_a_recount(reported_run: Any) -> None:
    report = report_of(reported_run)
    kept = Counter(row["page_key"] for row in reported_run.candidates if row["reason"] == "")
    pages = {row["page_key"] for row in lowest_pages(reported_run.candidates).values()}
    assert report["pages"]["pairs_per_page"] == Counter(str(kept[page]) for page in pages)
    assert report["pages"]["images_per_page"] == Counter(str(len(row["images"])) for row in reported_run.episodes)
    assert report["pages"]["pairs_not_sampled"] == 3
    assert report["duplicates"] == reported_run.duplicates
    page = page_of(reported_run)
    for name, count in (("stands for itself", 14), ("the same bytes again", 3), ("equal pHash and PDQ", 2), ("near pHash and PDQ", 1)):
        assert re.search(rf"{name}.*?<td class=\"n\">{count}</td>", page, re.DOTALL)
    for name, cut in (("pages", 20), ("hosts", 5)):
        heading = page.index(f"Images by the number of {name} that show them; on more than {cut} they are boilerplate")
        for numbers, count in report["appearances"][name]["images"].items():
            assert re.search(rf"<bdi>{numbers}</bdi>.*?<td class=\"n\">{count}</td>", page[heading:], re.DOTALL)
        shown = sorted(report["appearances"][name]["images"], key=lambda numbers: page.index(f"<bdi>{numbers}</bdi>", heading))
        assert shown == {"pages": ["1", "2", "5-8", "17-32"], "hosts": ["1", "3-4"]}[name]
    for size in report["images"]["sizes"]:
        sides = [min(row["width"], row["height"]) for row in reported_run.images]
        assert size["images"] == sum(size["first_px"] <= side <= size["last_px"] for side in sides)
    assert sum(size["images"] for size in report["images"]["sizes"]) == len(reported_run.images)
    assert report["images"]["formats"] == {"jpeg": len(reported_run.images)}
    for kind, urls in (
        ("images", [row["image_url"] for row in reported_run.images]),
        ("episodes", [row["page_url"] for row in reported_run.episodes]),
    ):
        hosts = Counter(host_of(url) for url in urls)
        assert {row["host"]: row["count"] for row in report["hosts"][kind]} == hosts
        order = [(-row["count"], row["host"]) for row in report["hosts"][kind]]
        assert order == sorted(order)


def test_drops_name_their_number_and_examples(reported_run: Any) -> None:
    drops = {(row["stage"], row["reason"]): row for row in report_of(reported_run)["drops"]}
    assert drops["scan", "too_small"]["count"] == 40
    assert len(drops["scan", "too_small"]["examples"]) == 6
    known = {row["image_url"] for row in reported_run.drops if row["reason"] == "too_small"}
    assert {row["image_url"] for row in drops["scan", "too_small"]["examples"]} < known
    assert drops["scan", "broken_record"]["error"] is True
    assert drops["pair", "image_dropped"]["details"] == {"too_small": 2, "animated": 1}
    assert drops["candidates", "below_low"]["count"] == sum(row["reason"] == "below_low" for row in reported_run.candidates)


def test_dropped_images_are_shown_where_they_can_be_read(made_run: Any) -> None:
    image = made_run.images[3]
    place = {"source": image["source"], "offset": 0, "length": image["length"]}
    nowhere = {"source": "", "offset": 0, "length": 0}
    rows = [
        drop_row("scan", "too_small", "https://host.example/small.jpg") | place,
        drop_row("scan", "low_texture", "https://host.example/spilled.jpg") | nowhere,
        drop_row("scan", "opt_out", "https://host.example/reserved.jpg") | place,
        drop_row("scan", "broken_image", "https://host.example/broken.jpg") | place,
    ]
    write_rows(made_run, "scan", rows, SCAN_DROPS)
    kept, gone = made_run.images[4]["image_url"], "https://host.example/gone.jpg"
    rows = [drop_row("pair", "boilerplate_pages", kept), drop_row("pair", "page_opt_out", kept), drop_row("pair", "not_in_crawl", gone)]
    write_rows(made_run, "pair", rows, DROPS)
    made_run.write_report()
    thumbnails = json.loads(LexborHTMLParser(page_of(made_run)).css_first("#data").text())["thumbnails"]
    shown = {row["reason"]: row["examples"][0]["picture"] in thumbnails for row in report_of(made_run)["drops"] if row["examples"]}
    of_scan = {"too_small": True, "low_texture": False, "opt_out": False, "broken_image": False}
    assert shown == of_scan | {"boilerplate_pages": True, "page_opt_out": False, "not_in_crawl": False}


def drop_row(stage: str, reason: str, image_url: str) -> dict[str, Any]:
    return {"stage": stage, "reason": reason, "error": False, "page_url": "", "image_url": image_url, "detail": ""}


def write_rows(run: Any, stage: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    folder = os.path.join(run.output, "drops", stage)
    file = write_parquet(os.path.join(folder, "part-00000.parquet"), rows_to_table(rows, schema))
    write_manifest(folder, Manifest(dataset=f"drops/{stage}", digest="0" * 64, files=(file,), counters={}))


def test_examples_are_candidates_with_their_alt_texts(reported_run: Any) -> None:
    report = report_of(reported_run)
    rows = {(row["a_id"], row["b_id"], row["page_url"]): row for row in reported_run.candidates}
    once = lowest_pages(reported_run.candidates)
    alts = {(row["page_url"], image["image_id"]): image["alt"] for row in reported_run.episodes for image in row["images"]}
    assert {bin_of(row["similarity"]) for row in report["examples"]} == {bin_of(row["similarity"]) for row in once.values()}
    again = [example for example in report["examples"] if example["reason"] == "on_another_page"]
    assert again
    assert all({place.split()[1] for place in example["places"]} == {"on_another_page"} for example in again)
    for example in report["examples"]:
        row = rows[example["a_id"], example["b_id"], example["page_url"]]
        assert {name: example[name] for name in ("page_url", "similarity", "reason")} == {
            name: row[name] for name in ("page_url", "similarity", "reason")
        }
        assert example["a_alt"] == alts[row["page_url"], row["a_id"]]
        assert example["b_alt"] == alts[row["page_url"], row["b_id"]]


def test_page_loads_nothing(reported_run: Any) -> None:
    html = page_of(reported_run)
    page = LexborHTMLParser(html)
    for node in page.css("[src], [srcset], [data], [poster], link, iframe, object, embed, base, form"):
        pytest.fail(f"the page refers to a resource: {node.html}")
    assert "url(" not in page.css_first("style").text()
    assert "@import" not in page.css_first("style").text()
    policy = page.css_first("meta[http-equiv=Content-Security-Policy]").attributes["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert len(html) < 15_000_000


def test_hostile_texts_stay_text(reported_run: Any) -> None:
    html = page_of(reported_run)
    page = LexborHTMLParser(html)
    assert len(page.css("script")) == 4
    assert [node.attributes.get("id") for node in page.css("script[type='application/json']")] == ["data"]
    for node in page.css("*"):
        assert not [name for name in node.attributes if name.startswith("on")], node.html
    assert not page.css("svg, img")
    links = [node.attributes.get("href") or "" for node in page.css("a[href]")]
    assert all(re.match(r"https?://|#", href) for href in links)
    text = page.css_first("#drops").text()
    assert 'evil.example/"><script>alert(1)</script>' in text
    assert "javascript:alert(4)" in text
    assert "49" not in text  # no template is evaluated
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", text)


def test_data_survives_hostile_texts(reported_run: Any) -> None:
    data = json.loads(LexborHTMLParser(page_of(reported_run)).css_first("#data").text())
    assert len(data["examples"]) == len(report_of(reported_run)["examples"])
    assert any("</script><script>alert(2)</script>" in row["a_text"] + row["b_text"] for row in data["examples"])
    assert all(picture[0].startswith("data:image/webp;base64,") for picture in data["thumbnails"].values())


def test_same_input_gives_the_same_bytes(made_run: Any) -> None:
    made_run.write_report()
    first = {name: Path(made_run.output, "report", name).read_bytes() for name in ("report.html", "report.json")}
    value = read_json(os.path.join(made_run.output, "candidates", "manifest.json"))
    value["files"].reverse()
    write_json(os.path.join(made_run.output, "candidates", "manifest.json"), value)
    made_run.write_report()
    assert {name: Path(made_run.output, "report", name).read_bytes() for name in first} == first


def test_a_run_of_many_files_is_no_longer_job(made_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What names every file of a run, lists of paths and manifests, is read by the job, not part of its description."""
    described: list[int] = []
    run = beam.Pipeline.run

    def noted(job: beam.Pipeline, *args: Any) -> Any:
        if not args:
            described.append(len(job.to_runner_api().SerializeToString()))
        return run(job, *args)

    monkeypatch.setattr(beam.Pipeline, "run", noted)
    made_run.write_report()
    expected = {name: Path(made_run.output, "report", name).read_bytes() for name in ("report.html", "report.json")}
    monkeypatch.setattr(pipeline.jobs, "_NAMED_IN_JOB", 1)
    made_run.write_report()
    path = os.path.join(made_run.output, "shards", "manifest.json")  # whose files a report never reads
    value = read_json(path)
    more = [{"name": f"pairs-{n:05d}", "rows": 0, "bytes": 0, "sha256": hashlib.sha256(str(n).encode()).hexdigest()} for n in range(10_000)]
    write_json(path, value | {"files": value["files"] + more})
    made_run.write_report()
    assert {name: Path(made_run.output, "report", name).read_bytes() for name in expected} == expected
    assert described[2] < described[1] + 10_000 * 32 // 4  # a hash has 32 bytes
    assert not os.path.exists(os.path.join(made_run.output, ".work", "report"))


def test_a_missing_crawl_gives_reasons_for_thumbnails(made_run: Any) -> None:
    def locate(source: str) -> str:
        return os.path.join(made_run.crawl, source)

    shutil.rmtree(os.path.join(made_run.crawl, "p0"))
    write_report(made_run.output, locate=locate, pipeline_options=pipeline_options((), 1))
    thumbnails = json.loads(LexborHTMLParser(page_of(made_run)).css_first("#data").text())["thumbnails"]
    gone = {row["image_id"] for row in made_run.images if row["source"].startswith("p0/")}
    assert {image_id for image_id, picture in thumbnails.items() if picture == ["", "source_changed"]} == gone & set(thumbnails)
    assert gone & set(thumbnails)


def test_two_workers_give_the_same_bytes(made_run: Any) -> None:
    pages = []
    for workers in (1, 2):
        locate = SourceMap(find_units((made_run.crawl,)), made_run.output)
        path = write_report(made_run.output, locate=locate, pipeline_options=pipeline_options((), workers))
        pages.append(Path(path).read_bytes())
    assert pages[0] == pages[1]


def test_an_empty_run_says_so(made_run: Any) -> None:
    nothing = {"in": 0, "kept": 0, "dropped": {}, "errors": 0}
    for folder, _, names in os.walk(made_run.output):
        if "manifest.json" in names:
            path = os.path.join(folder, "manifest.json")
            manifest = read_json(path)
            counters = manifest["counters"]
            if "histogram" in counters:
                counters["histogram"]["counts"] = [0] * 200
            write_json(path, manifest | {"files": [], "rows": 0, "counters": counters | nothing if counters else {}})
    made_run.write_report()
    report = report_of(made_run)
    assert report["warnings"] == ["The input holds no image."]
    assert report["similarity"]["counts"] == [0] * 200
    assert report["examples"] == report["drops"] == []
    page = LexborHTMLParser(page_of(made_run))
    assert page.css_first("h1").text() == "0 pairs from 0 pages"
    assert "no page holds two images" in page.css_first("#similarity").text()
    assert json.loads(page.css_first("#data").text())["charts"] == {}


def counted(kept: int, dropped: dict[str, int], errors: int = 0) -> dict[str, Any]:
    return {"in": kept + sum(dropped.values()) + errors, "kept": kept, "dropped": dropped, "errors": errors}


@pytest.mark.parametrize(
    ("counts", "warnings"),
    [
        (counted(5, {"too_small": 95}), []),
        (counted(4, {"too_small": 96}), ["scan: too_small drops 96 of 100 records (96.0%): is its setting right for this crawl?"]),
        (counted(0, {"too_small": 9, "aspect": 1}), ["scan keeps nothing of 10 records."]),
        (counted(9, {"too_small": 1}) | {"in": 11}, ["scan: 11 records came in, but kept, dropped and errors add up to another number."]),
    ],
)
def test_warnings(counts: dict[str, Any], warnings: list[str]) -> None:
    ledger = Counter({f"drop/scan/{reason}": count for reason, count in counts["dropped"].items()})
    assert find_warnings({"scan": counts}, Summary(counts={"ledger": ledger})) == warnings


def test_a_ledger_that_differs_is_a_warning() -> None:
    summary = Summary(counts={"ledger": Counter({"drop/scan/aspect": 2, "error/scan/broken_record": 1})})
    assert find_warnings({"scan": counted(9, {"aspect": 3}, errors=1)}, summary) == [
        "scan: the counters say that aspect dropped 3 records, the ledger holds 2."
    ]


def test_warnings_stand_on_top_of_the_page(made_run: Any) -> None:
    path = os.path.join(made_run.output, "shards", "manifest.json")
    manifest = read_json(path)
    pairs = manifest["counters"]["in"]
    manifest["counters"] |= {"kept": 0, "dropped": {"source_changed": pairs}}
    write_json(path, manifest)
    made_run.write_report()
    warnings = LexborHTMLParser(page_of(made_run)).css_first("main > .warnings").text()
    assert f"shard keeps nothing of {pairs} records." in warnings
    assert f"source_changed drops {pairs} of {pairs} records (100.0%)" in warnings


def test_an_incomplete_run_is_one_sentence(made_run: Any) -> None:
    os.unlink(os.path.join(made_run.output, "shards", "manifest.json"))
    with pytest.raises(ValueError, match=r"shards has no manifest\.json"):
        made_run.write_report()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\u202eb", "a\ufffdb"), ("\x1b[31m", "\ufffd[31m"), ("line\nbreak", "line\ufffdbreak"), (None, ""), ("咖啡 & <b>", "咖啡 & <b>")],
)
def test_plain_shows_invisible_characters(text: str | None, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("url", "shown", "target"),
    [
        ("https://a.example/%E8%8F%9C", "a.example/菜", "https://a.example/%E8%8F%9C"),
        ("javascript:alert(1)", "javascript:alert(1)", ""),
        ("data:text/html,x", "data:text/html,x", ""),
        ("http://[", "[", ""),
        ("https://a.example/%E2%80%AEb", "a.example/\ufffdb", "https://a.example/%E2%80%AEb"),
        (None, "", ""),
    ],
)
def test_addresses(url: str | None, shown: str, target: str) -> None:
    assert address(url) == shown
    assert link(url) == target
