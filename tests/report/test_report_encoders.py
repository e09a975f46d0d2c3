"""Two encoders in the report, against a recount from the stored vectors; as a page in a browser."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from selectolax.lexbor import LexborHTMLParser

from filters.band import in_band
from pagepairs.files import read_json, write_json, write_parquet
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import embeddings_schema, rows_to_table

sys.path.insert(0, str(Path(__file__).parent))  # chromium: a module beside the tests
from chromium import BROWSERS, Tab, find_chromium, start_chromium

HOSTILE = "tflite-<script>alert(9)<!--"
LOW, HIGH = 0.3, 0.9


def write_vectors(run: Any, folder: str, seed: int) -> dict[str, np.ndarray]:
    """Gives an encoder random vectors of every image; returns them as stored."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    vectors = {image["image_id"]: rng.normal(size=4) + 0.7 for image in run.images}
    stored = {name: (vector / np.linalg.norm(vector)).astype(np.float16) for name, vector in vectors.items()}
    rows = [{"image_id": name, "embedding": vector} for name, vector in stored.items()]
    path = os.path.join(run.output, "embeddings", folder)
    parts = [rows[::2], rows[1::2]]
    schema = embeddings_schema(4)
    files = [write_parquet(os.path.join(path, f"unit-{i}.parquet"), rows_to_table(part, schema)) for i, part in enumerate(parts)]
    counters = {"in": len(rows) + 1, "kept": len(rows), "dropped": {"model_error": 1}, "errors": 0, "encoder": {"name": folder}}
    if folder == "builtin":
        counters |= {"in": len(rows), "dropped": {}}
    write_manifest(path, Manifest(dataset=f"embeddings/{folder}", digest="0" * 64, files=tuple(files), counters=counters))
    return stored


@pytest.fixture
def compared(made_run: Any) -> tuple[Any, list[dict[str, np.ndarray]]]:
    """A run with two encoders and its report."""
    vectors = [write_vectors(made_run, folder, seed) for seed, folder in enumerate(("builtin", HOSTILE))]
    path = os.path.join(made_run.output, "run.json")
    value = read_json(path)
    value["stages"]["embed"]["encoders"] = {HOSTILE: {"reused": 3, "halved": 2, "images": 21}}
    write_json(path, value)
    made_run.write_report()
    return made_run, vectors


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """A page of a browser that logs no error until the test ends."""
    browser = find_chromium()
    if browser is None:
        pytest.skip("no headless browser: none of " + ", ".join(BROWSERS))
    with start_chromium(browser, tmp_path / "profile") as found:
        yield found
        assert found.errors == []


def recount(run: Any, vectors: list[dict[str, np.ndarray]]) -> dict[tuple[str, str], tuple[np.float32, np.float32]]:
    """Both similarities of every pair, once."""
    return {
        (row["a_id"], row["b_id"]): tuple(
            np.float32(np.dot(side[row["a_id"]].astype(np.float64), side[row["b_id"]].astype(np.float64))) for side in vectors
        )
        for row in run.candidates
    }


def test_both_histograms_the_grid_and_the_disagreements_equal_a_recount(compared: Any) -> None:
    run, vectors = compared
    pairs = recount(run, vectors)
    report = read_json(os.path.join(run.output, "report", "report.json"))
    found = report["encoder_comparison"]
    assert (found["encoders"], found["pairs"], found["found"]) == (["builtin", HOSTILE], len(pairs), len(pairs))
    similarity = np.array(list(pairs.values()), np.float32).T
    for side, counts in zip(similarity, found["counts"], strict=True):
        bins = np.clip(np.floor((side.astype(np.float64) + 1) * 100), 0, 199).astype(int)
        assert counts == np.bincount(bins, minlength=200).tolist()
    grid = np.zeros((50, 50), int)
    for x, y, count in found["grid"]:
        grid[x, y] = count
    wanted = np.histogram2d(*similarity.astype(np.float64), bins=50, range=[[-1, 1], [-1, 1]])[0]
    assert grid.tolist() == wanted.tolist()
    assert found["rank_correlation"] == pytest.approx(stats.spearmanr(*similarity.astype(np.float64)).statistic)
    low, high = found["matching_band"]
    first, second = (in_band(side, *band) == "" for side, band in zip(similarity, ((LOW, HIGH), (low, high)), strict=True))
    assert second.sum() >= first.sum()
    assert found["jaccard"] == (first & second).sum() / (first | second).sum()
    ranks = [stats.rankdata(side) / len(side) for side in similarity]
    apart = dict(zip(pairs, ranks[0] - ranks[1], strict=True))
    for name, sign in (("first", 1), ("second", -1)):
        shown = [row for row in found["disagreements"] if row["nearer"] == name]
        assert [round(sign * apart[row["a_id"], row["b_id"]], 9) for row in shown] == sorted(
            (round(sign * value, 9) for value in apart.values() if sign * value > 0), reverse=True
        )[:8]
    for row in found["disagreements"]:
        assert tuple(np.float32(row["similarities"])) == pairs[row["a_id"], row["b_id"]]
        assert {row["page_url"], row["a_url"]} <= {candidate[name] for candidate in run.candidates for name in ("page_url", "a_url")}
    encoders = {row["encoder"]: (row["in"], row["kept"], row["dropped"], row["reused"], row["halved"]) for row in report["encoders"]}
    images = len(run.images)
    assert encoders == {"builtin": (images, images, {}, 0, 0), HOSTILE: (images + 1, images, {"model_error": 1}, 3, 2)}


def test_an_encoder_alone_is_listed_and_compared_with_nothing(reported_run: Any) -> None:
    report = read_json(os.path.join(reported_run.output, "report", "report.json"))
    assert [row["encoder"] for row in report["encoders"]] == ["builtin"]
    assert "encoder_comparison" not in report
    page = LexborHTMLParser(Path(reported_run.output, "report", "report.html").read_text(encoding="utf-8"))
    assert [row.text() for row in page.css("#encoders tbody th")] == ["builtin"]
    assert page.css("#encoders [data-chart]") == []


def test_the_names_of_encoders_are_text(compared: Any) -> None:
    page = LexborHTMLParser(Path(compared[0].output, "report", "report.html").read_text(encoding="utf-8"))
    assert [node.text() for node in page.css("#encoders tbody th")] == ["builtin", HOSTILE]
    assert not any("alert(9)" in node.text() for node in page.css("script") if node.attributes.get("type") != "application/json")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_three_charts_and_the_pairs(compared: Any, tab: Tab, tmp_path: Path, scheme: str) -> None:
    tab.open(Path(compared[0].output, "report", "report.html"), dark=scheme == "dark")
    charts = (
        "[...document.querySelectorAll('#encoders [data-chart]')].map((place) => place.querySelectorAll('svg path, svg rect').length > 5)"
    )
    assert tab.run(charts) == [True, True, True]
    kept = tab.run("getComputedStyle(document.documentElement).getPropertyValue('--kept').trim()")
    drawn = "[...document.querySelectorAll('[data-chart=encoders] path')].map((mark) => mark.getAttribute('fill'))"
    assert kept in tab.run(drawn)
    for name in ("first", "second"):
        assert tab.run(f"document.querySelectorAll('[data-nearer={name}] .card').length") == 8
        assert tab.run(f"document.querySelectorAll('[data-nearer={name}] img').length") == 16
    assert tab.text("#encoders tbody tr:nth-child(2) th") == HOSTILE
    tab.box("#encoders")
    folder = Path(os.environ.get("PICTURES", tmp_path))
    tab.screenshot(folder / f"encoders-{scheme}.png", whole=True)
