"""The page in a browser: real drags and keys, numbers against a recount of candidates/, no script error, hostile texts as text."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters.band import in_band
from pagepairs.manifest import read_dataset
from pipeline.commands import parse

sys.path.insert(0, str(Path(__file__).parent))  # chromium: a module beside the tests
from chromium import BROWSERS, Tab, find_chromium, start_chromium

HEIGHT_PX = 260


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """A page of a browser that logs no error until the test ends."""
    browser = find_chromium()
    if browser is None:
        pytest.skip("no headless browser: none of " + ", ".join(BROWSERS))
    with start_chromium(browser, tmp_path / "profile") as found:
        yield found
        assert found.errors == []


def report_page(run: Any) -> Path:
    return Path(run.output, "report", "report.html")


def place_of(tab: Tab, hundredth: float) -> tuple[float, float]:
    """Where a similarity stands in the window, at the height of the handles' knobs."""
    box = tab.box(".explorer")
    first, last = (int(tab.run(f"document.getElementById('low').{name}")) for name in ("min", "max"))
    return box["x"] + box["width"] * (hundredth - first) / (last - first), box["y"] + HEIGHT_PX / 2


def drag(tab: Tab, handle: str, hundredth: int) -> None:
    start = place_of(tab, int(tab.run(f"document.getElementById('{handle}').value")))
    tab.drag(start, place_of(tab, hundredth))


def number(tab: Tab, selector: str) -> int:
    return int(tab.text(selector).replace(",", "") or 0)


def choose(tab: Tab, name: str, label: str) -> None:
    select = f"document.getElementById('filter-{name}')"
    tab.run(f"{select}.value = [...{select}.options].find((o) => o.text.startsWith({json.dumps(label)})).value")
    tab.run(f"{select}.dispatchEvent(new Event('change'))")


def recount(run: Any, low: float, high: float, keep: Any = lambda row: True) -> dict[str, tuple[int, int]]:
    """Counts pairs and pages after each rule, row by row, from the files of candidates/."""
    rows = sorted(read_dataset(os.path.join(run.output, "candidates")).to_pylist(), key=lambda row: row["page_key"])
    first = {}
    for row in rows:
        first.setdefault((row["a_id"], row["b_id"]), row["page_key"])
    reason = {(row["a_id"], row["b_id"]): str(in_band(np.float32(row["similarity"]), low, high)) for row in rows}
    rows = [row for row in rows if keep(row)]
    above = [row for row in rows if reason[row["a_id"], row["b_id"]] != "below_low"]
    inside = [row for row in above if not reason[row["a_id"], row["b_id"]]]
    once = [row for row in inside if first[row["a_id"], row["b_id"]] == row["page_key"]]
    steps = {"sampled": rows, "below_low": above, "above_high": inside, "on_another_page": once}
    return {name: (len(left), len({row["page_key"] for row in left})) for name, left in steps.items()}


def shown_rules(tab: Tab) -> dict[str, tuple[int, int]]:
    names = ("sampled", "below_low", "above_high", "on_another_page")
    return {name: (number(tab, f"#rule-{name} .pairs"), number(tab, f"#rule-{name} .pages")) for name in names}


def test_a_dragged_threshold_shows_what_a_recount_counts(reported_run: Any, tab: Tab) -> None:
    tab.open(report_page(reported_run))
    assert tab.text("#band-value") == "0.30 to 0.90"
    assert shown_rules(tab) == recount(reported_run, 0.3, 0.9)
    for handle, hundredth in (("low", 145), ("high", 162), ("low", 120), ("high", 200), ("low", 199)):
        drag(tab, handle, hundredth)
        low, high = (int(tab.run(f"document.getElementById('{name}').value")) for name in ("low", "high"))
        assert abs({"low": low, "high": high}[handle] - hundredth) <= 1  # a pixel is less than a step, a knob's grip is not
        assert tab.text("#band-value") == f"{low / 100 - 1:.2f} to {high / 100 - 1:.2f}"
        expected = recount(reported_run, round(low / 100 - 1, 2), round(high / 100 - 1, 2))
        assert shown_rules(tab) == expected
        assert (number(tab, "#pairs-value"), number(tab, "#pages-value")) == expected["on_another_page"]
    tab.run("document.getElementById('reset').click()")
    assert shown_rules(tab) == recount(reported_run, 0.3, 0.9)


def test_thresholds_move_by_keys_and_cannot_cross(reported_run: Any, tab: Tab) -> None:
    tab.open(report_page(reported_run))
    tab.run("document.getElementById('low').focus()")
    for _ in range(3):
        tab.press("ArrowRight", 39)
    assert tab.text("#band-value") == "0.33 to 0.90"
    assert shown_rules(tab) == recount(reported_run, 0.33, 0.9)
    tab.press("End", 35)
    assert tab.text("#band-value") == "0.89 to 0.90"
    assert tab.run("document.getElementById('low').getAttribute('aria-valuetext')") == "0.89"


@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        ({"host": "site1.example"}, lambda row, pages: "site1.example" in row["page_url"]),
        ({"page": "3 to 4 images"}, lambda row, pages: 3 <= len(pages[row["page_url"]]) <= 4),
        ({"size": "256 px or more"}, lambda row, pages: min(pages[row["page_url"]][row[f"{side}_id"]] for side in "ab") >= 256),
        (
            {"host": "site0.example", "size": "below 256 px"},
            lambda row, pages: "site0.example" in row["page_url"] and min(pages[row["page_url"]][row[f"{s}_id"]] for s in "ab") < 256,
        ),
    ],
)
def test_counts_histogram_and_examples_follow_the_filter(reported_run: Any, tab: Tab, filters: dict[str, str], keep: Any) -> None:
    tab.open(report_page(reported_run))
    for name, label in filters.items():
        choose(tab, name, label)
    sides = [[(image["image_id"], min(image["width"], image["height"])) for image in row["images"]] for row in reported_run.episodes]
    pages = {row["page_url"]: dict(images) for row, images in zip(reported_run.episodes, sides, strict=True)}
    drag(tab, "low", 125)
    low = int(tab.run("document.getElementById('low').value"))
    expected = recount(reported_run, round(low / 100 - 1, 2), 0.9, lambda row: keep(row, pages))
    assert shown_rules(tab) == expected
    assert expected["sampled"] != recount(reported_run, -1, 1)["sampled"]
    fitting = {row["page_url"] for row in reported_run.candidates if keep(row, pages)}
    shown = tab.run("[...document.querySelectorAll('#rail-look .card a')].map((a) => a.href)")
    assert shown
    assert all(any(Path(url).name == Path(page).name for page in fitting) or "evil" in url for url in shown)
    tab.run("document.getElementById('clear').click()")
    assert shown_rules(tab)["sampled"] == recount(reported_run, -1, 1)["sampled"]


def test_pairs_under_the_cursor_are_sorted_and_have_their_alt_texts(reported_run: Any, tab: Tab) -> None:
    tab.open(report_page(reported_run))
    x, y = place_of(tab, 170)
    tab.mouse("mouseMoved", x, y - 100)
    assert tab.text("#look-value") == "0.70"
    values = [float(text) for text in tab.run("[...document.querySelectorAll('#rail-look .value')].map((e) => e.innerText)")]
    assert len(values) >= 4
    assert values == sorted(values)
    distances = sorted(abs(row["similarity"] - 0.7) for row in reported_run.candidates if row["reason"] != "on_another_page")
    assert max(abs(value - 0.7) for value in values) <= distances[min(len(values), len(distances)) - 1] + 0.001
    assert any("view" in text for text in tab.run("[...document.querySelectorAll('#rail-look figcaption bdi')].map((e) => e.innerText)"))


def test_every_chart_and_picture_is_drawn(reported_run: Any, tab: Tab) -> None:
    tab.open(report_page(reported_run))
    charts = tab.run("[...document.querySelectorAll('[data-chart]:has(svg)')].map((e) => e.dataset.chart)")
    assert set(charts) == {"similarity", "images-per-page", "pairs-per-page", "sizes"}
    sources = tab.run("[...document.querySelectorAll('img')].map((e) => e.src)")
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    for reason in ("below_low", "above_high", "on_another_page"):
        assert tab.run(f"document.querySelectorAll('[data-reason={reason}] .card img').length") >= 2


def test_hostile_texts_are_shown_and_do_nothing(reported_run: Any, tab: Tab) -> None:
    tab.open(report_page(reported_run))
    texts = tab.run("document.querySelector('main').textContent")
    for text in (
        "<script>alert(1)</script>",
        '</script><script>alert(2)</script><img src=x onerror="alert(3)">',
        "{{ 7 * 7 }}",
        "alert(5)",
    ):
        assert text in texts
    assert not set(texts) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x1b")
    assert tab.run("document.querySelectorAll('.card script, .card svg, .card [onerror], .drops script, .drops svg').length") == 0
    assert tab.run("[...document.querySelectorAll('a')].every((a) => ['http:', 'https:', 'file:', ''].includes(a.protocol))")
    assert tab.run("document.querySelectorAll('body script').length") == 4


@pytest.mark.parametrize("shape", [{"width": 360, "height": 740, "mobile": True}, {"dark": True}, {"width": 768}])
def test_nothing_is_wider_than_the_window(reported_run: Any, tab: Tab, shape: dict[str, Any]) -> None:
    tab.open(report_page(reported_run), **shape)
    assert tab.run("document.documentElement.scrollWidth <= window.innerWidth")
    before = tab.text("#pairs-value")
    drag(tab, "low", 160)
    assert tab.text("#pairs-value") != before


def test_commands_run_with_the_band(reported_run: Any, tab: Tab) -> None:
    tab.open(report_page(reported_run))
    drag(tab, "low", 90)
    low = int(tab.run("document.getElementById('low').value")) / 100 - 1
    for name in ("run", "pair"):
        words = tab.text(f"#command-{name}").split()
        assert words[:2] == ["pagepairs", name]
        config = parse(name, words[2:])
        assert (config.run.output, config.pair.low, config.pair.high) == (reported_run.output, pytest.approx(low), 0.9)
        assert config.scan.input == (reported_run.crawl,)
        tab.run(f"document.querySelector('[data-copies=command-{name}]').click()")
        tab.wait(f"document.querySelector('[data-copies=command-{name}]').textContent === 'Copied'")
