"""The page of an evaluation: its numbers, in a browser, on light and dark paper; and hostile names as text."""

import base64
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagepairs.cli import main
from train.evaluate import evaluate
from train.evaluate_config import EvaluateConfig
from train.evaluation_page import render
from train.evaluation_plots import draw_plots
from train.features import FeatureSpace, encoder_space

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # chromium: a module beside other tests
from chromium import BROWSERS, Tab, find_chromium, start_chromium

DARK, LIGHT = (19, 21, 23), (251, 251, 249)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """A page of a browser that logs no error until the test ends."""
    browser = find_chromium()
    if browser is None:
        pytest.skip("no headless browser: none of " + ", ".join(BROWSERS))
    with start_chromium(browser, tmp_path / "profile") as found:
        yield found
        assert found.errors == []


@pytest.fixture(scope="module")
def output(run: Path, draw_classes: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a model, with everything that a page can show."""
    images, folder = draw_classes(9), tmp_path_factory.mktemp("evaluation")
    (images / "discs").rename(images / "<script>alert(1)")
    (images / "squares" / "<img src=x onerror=alert(2)>.png").write_bytes(b"")
    flags = ["--samples-per-condition", "5", "--guidance", "0", "1", "--steps", "2", "--encoder", "builtin", "--training", str(images)]
    assert main(["evaluate", "--checkpoint", str(run), "--images", str(images), "--output", str(folder), *flags]) == 0
    return folder


def shows(tab: Tab) -> dict[str, bool]:
    """Whether each picture of the page was drawn, by its alternative text."""
    found = tab.run("JSON.stringify([...document.images].map((one) => [one.alt, one.complete && one.naturalWidth > 0]))")
    return dict(json.loads(found))


def test_the_page_shows_the_numbers_and_every_picture_on_light_and_dark_paper(output: Path, tab: Tab, tmp_path: Path) -> None:
    found = json.loads((output / "evaluation.json").read_text())
    space = found["spaces"][0]
    best = min(space["rows"].values(), key=lambda row: row["frechet"])
    for dark, paper in ((False, LIGHT), (True, DARK)):
        tab.open(output / "evaluation.html", dark=dark)
        assert tab.text("h1").startswith(f"FD(builtin) {best['frechet']:.3f} at w = ")
        rows = [line.split("\t") for line in tab.text("#space-1 tbody").splitlines()]
        assert [row[0] for row in rows] == ["w = 0", "w = 1", "real against real"]
        matched = [[f"{row['frechet']:.3f}", f"{row['matched']['frechet']:.3f}"] for row in space["rows"].values()]
        assert [row[1:3] for row in rows] == [*matched, ["–", f"{space['floor']['frechet']:.3f}"]]
        assert rows[1][3:] == [f"{space['rows']['w1'][name]:.3f}" for name in ("precision", "recall")]
        drawn = shows(tab)
        assert drawn != {}
        assert all(drawn.values())
        tab.screenshot(tmp_path / "page.png", whole=True)
        with Image.open(tmp_path / "page.png") as picture:
            assert picture.convert("RGB").getpixel((2, 2)) == paper
            colours = picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height)
            assert len(colours or ()) > 500  # samples and plots, not a blank page
    assert tab.run("document.querySelectorAll('#samples .row.conditioned').length") == 3 + 1 + 3
    assert "empty_body: 1 (squares/<img src=x onerror=alert(2)>.png)" in tab.text("#inputs")


def test_the_page_fits_a_telephone(output: Path, tab: Tab) -> None:
    tab.open(output / "evaluation.html", width=390, height=800, mobile=True)
    assert tab.run("document.documentElement.scrollWidth") <= 390


def test_the_page_loads_nothing_and_holds_no_script(output: Path) -> None:
    page = (output / "evaluation.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert not re.findall(r"(?:src|srcset|href)=\"(?!data:)", page)
    assert "default-src &#39;none&#39;; img-src data:" in page
    said = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert said is not None
    assert said[1].startswith("pagepairs evaluate --checkpoint ")
    assert said[1].endswith("--samples-per-condition 5 --guidance 0 1 --steps 2 --encoder builtin --training " + said[1].split()[-1])


def test_the_letters_fid_stand_on_a_page_only_where_the_features_are_inceptions(
    output: Path, draw_classes: Callable[[int], Path], tmp_path: Path
) -> None:
    assert "FID" not in (output / "evaluation.html").read_text()
    assert "FID" not in (output / "evaluation.json").read_text()
    fake = FeatureSpace(  # what load_inception returns for the published weights, which are not at hand
        label="FID", digest={"name": "fake", "preprocessing": "", "weights": ""}, width=3,
        preprocess=lambda image: image, embed=lambda batch: batch.mean(axis=(1, 2), dtype=np.float32),
    )  # fmt: skip
    images = draw_classes(6)
    config = EvaluateConfig(generated=str(images / "discs"), real=str(images / "squares"), output=str(tmp_path), size=32)
    spaces = [encoder_space("builtin", weights="", device="cpu"), fake]
    scored = evaluate(config, load_generator=lambda _: pytest.fail("no model"), load_spaces=lambda _: spaces)
    page = render(scored, config)
    assert [space["label"] for space in scored.evaluation["spaces"]] == ["FD(builtin)", "FID"]
    assert f"<h1>FID {scored.evaluation['spaces'][1]['rows']['generated']['frechet']:,.1f}</h1>" in page
    assert "<h2>FD(builtin)</h2>" in page


def test_plots_are_the_same_bytes_each_time_and_differ_by_paper() -> None:
    rows = {f"w{w:g}": {"frechet": 1 + w, "precision": 0.5 + w / 2, "recall": 0.6 - w / 3} for w in (0.0, 0.1, 1.0)}
    space = {"label": "FD(x)", "rows": rows, "floor": {"images": 9, "frechet": 0.2, "precision": 0.9, "recall": 0.9}}
    sets = {name: {"guidance": float(name[1:])} for name in rows}
    plots = draw_plots(space, sets)
    assert plots == draw_plots(space, sets)
    assert len(plots) == 2
    for plot in plots:
        drawn = {theme: base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode() for theme, uri in plot.items()}
        assert "#12756d" in drawn["light"]
        assert "#45b3a5" in drawn["dark"]
        assert all("<script" not in svg and "<svg" in svg for svg in drawn.values())
    one = draw_plots(space | {"floor": None, "rows": {"generated": rows["w0"]}}, {"generated": {}})
    assert len(one) == 1
    assert one[0]["light"] != plots[0]["light"]
