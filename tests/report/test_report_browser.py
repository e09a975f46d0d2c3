"""The page in a browser: no script error, and thresholds that show what a recount of the candidates says."""

import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no headless browser: none of " + ", ".join(BROWSERS))
    return found


def open_page(browser: str, page: Path, profile: Path) -> LexborHTMLParser:
    """Returns the document as it stands after its scripts ran; fails on any script error."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=6000"]
    command += ["--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not errors
    return LexborHTMLParser(done.stdout)


def with_script(run: Any, target: Path, script: str) -> Path:
    """Copies the page with another script behind its own, which the page's own policy would refuse."""
    html = Path(run.output, "report", "report.html").read_text(encoding="utf-8")
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    head, end, tail = html.rpartition("</body>")  # the chart library names it too
    target.write_text(f"{head}<script>{script}</script>{end}{tail}", encoding="utf-8")
    return target


def test_page_draws_its_charts_and_examples(reported_run: Any, browser: str, tmp_path: Path) -> None:
    page = open_page(browser, Path(reported_run.output, "report", "report.html"), tmp_path / "profile")
    assert {node.attributes["data-chart"] for node in page.css("[data-chart]:has(svg)")} == {
        "similarity",
        "images-per-page",
        "pairs-per-page",
        "sizes",
    }
    kept = sum(row["reason"] == "" for row in reported_run.candidates)
    assert page.css_first("#pairs-value").text() == str(kept)
    assert len(page.css("#rail-above-low .card img")) >= 2
    assert not page.css(".card svg, .card script, .card [onerror]")
    assert all((node.attributes.get("src") or "").startswith("data:image/webp;base64,") for node in page.css("img"))


@pytest.mark.parametrize(("low", "high"), [(120, 190), (145, 160), (80, 200), (199, 200)])
def test_moved_thresholds_count_what_a_recount_counts(reported_run: Any, browser: str, tmp_path: Path, low: int, high: int) -> None:
    script = f"""
      for (const [name, value] of [["low", 0], ["high", 200], ["low", {low}], ["high", {high}]]) {{
        const input = document.getElementById(name);
        Object.assign(input, {{ min: 0, max: 200, value }});
        input.dispatchEvent(new Event("input"));
      }}"""
    page = open_page(browser, with_script(reported_run, tmp_path / "page.html", script), tmp_path / "profile")
    once = {}
    for row in sorted(reported_run.candidates, key=lambda row: row["page_key"], reverse=True):
        once[row["a_id"], row["b_id"]] = row
    inside = [row for row in once.values() if low <= min(199, math.floor((row["similarity"] + 1) * 100)) < high]
    assert page.css_first("#pairs-value").text() == str(len(inside))
    assert page.css_first("#pages-value").text() == str(len({row["page_key"] for row in inside}))
    assert page.css_first("#command").text().endswith(f"{os.sep}config.json --low {low / 100 - 1:.2f} --high {high / 100 - 1:.2f}")
    assert "hidden" not in page.css_first("#reset").attributes
