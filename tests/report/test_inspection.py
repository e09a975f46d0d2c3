"""inspect: what it prints of every dataset, and its contact sheets."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pagepairs.manifest import read_manifest
from pipeline.contact_sheet import CAPTION_PX, GAP_PX, MARGIN_PX, SIDE_PX, Tile, draw_sheet, sheet_size
from pipeline.inspection import inspect_dataset, main, make_tiles, show_value

PAIR_PX = 2 * SIDE_PX + GAP_PX


def test_a_run_lists_its_datasets(reported_run: Any) -> None:
    text = inspect_dataset(reported_run.output)
    assert text.splitlines()[0] == f"{reported_run.output}: a run with 11 datasets; name one of them to see inside"
    line = next(line for line in text.splitlines() if line.strip().startswith("images "))
    assert line.split() == [
        "images",
        "20",
        "rows",
        "2",
        "files",
        *line.split()[5:7],
        "20",
        "of",
        "61",
        "kept,",
        "40",
        "too_small,",
        "1",
        "errors",
    ]


def test_rows_columns_and_counts_are_printed(reported_run: Any) -> None:
    text = inspect_dataset(os.path.join(reported_run.output, "shards"), rows=2)
    rows = read_manifest(os.path.join(reported_run.output, "shards")).rows
    assert f"shards: {rows} rows in 1 file" in text
    assert "  condition_image     binary\n" in text
    assert text.count("\nrow ") == 2
    assert " bytes>" in text
    assert inspect_dataset(os.path.join(reported_run.output, "shards"), rows=0).count("\nrow ") == 0


def test_texts_from_the_web_cannot_move_the_terminal(reported_run: Any) -> None:
    text = inspect_dataset(os.path.join(reported_run.output, "drops", "pair"), rows=9)
    assert "javascript:alert(4)//\ufffd[31m" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"1234", "<4 bytes>"),
        ("x" * 101, "x" * 50 + "…" + "x" * 49),
        ("", '""'),
        (None, "None"),
        ([1, 2, 3, 4], "[1, 2, 3, ...] (4)"),
        ({"a": [b"1"]}, "{a: [<1 bytes>] (1)}"),
        (0.5, "0.5"),
    ],
)
def test_values(value: object, shown: str) -> None:
    assert show_value(value) == shown


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def sheet(columns: int, rows: int, width: int) -> tuple[int, int]:
    return MARGIN_PX + columns * (width + MARGIN_PX), MARGIN_PX + rows * (SIDE_PX + CAPTION_PX + MARGIN_PX)


@pytest.mark.parametrize("name", ["shards", "pairs", "candidates"])
def test_contact_sheet_of_pairs(reported_run: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / "sheet.png"
    text = inspect_dataset(os.path.join(reported_run.output, name), contact_sheet=str(path))
    assert text.endswith(f"contact sheet: {path}")
    folder = os.path.join(reported_run.output, name)
    tiles = make_tiles(folder, [os.path.join(folder, "part-00000.parquet")])
    similarities = [float(tile.caption.split()[0]) for tile in tiles]
    assert similarities == sorted(similarities)
    assert size_of(path) == sheet(4, -(-len(tiles) // 4), PAIR_PX)


@pytest.mark.parametrize(("name", "images"), [("images", 7), ("units", 20)])
def test_contact_sheet_of_images(reported_run: Any, tmp_path: Path, name: str, images: int) -> None:
    path = tmp_path / "sheet.png"
    inspect_dataset(os.path.join(reported_run.output, name), contact_sheet=str(path))
    assert size_of(path) == sheet(min(8, images), -(-images // 8), SIDE_PX)


def test_contact_sheet_of_pages(reported_run: Any, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    inspect_dataset(os.path.join(reported_run.output, "episodes"), contact_sheet=str(path))
    assert size_of(path) == sheet(1, 2, 5 * SIDE_PX + 4 * GAP_PX)


def test_shards_need_no_crawl(made_run: Any, tmp_path: Path) -> None:
    shutil.rmtree(made_run.crawl)
    moved = tmp_path / "elsewhere"
    shutil.copy(os.path.join(made_run.output, "shards", "part-00000.parquet"), moved)
    inspect_dataset(str(moved), contact_sheet=str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").exists()


def test_other_datasets_name_the_crawl_that_is_gone(made_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(made_run.crawl)
    with pytest.raises(ValueError, match=r"the crawl files are needed for a contact sheet: .*crawl"):
        inspect_dataset(os.path.join(made_run.output, "pairs"), contact_sheet=str(tmp_path / "sheet.png"))
    assert not (tmp_path / "sheet.png").exists()
    assert main("inspect", [os.path.join(made_run.output, "pairs"), "--contact-sheet", "none"]) == 0
    assert "condition_source" in capsys.readouterr().out


def test_a_changed_image_is_named_on_the_sheet(made_run: Any) -> None:
    Path(made_run.crawl, "p1", "0.jpg").write_bytes(b"another file")
    folder = os.path.join(made_run.output, "units")
    tiles = make_tiles(folder, [os.path.join(folder, "part-00000.parquet")])
    assert [tile.images[0] for tile in tiles if isinstance(tile.images[0], str)] == ["source_changed"]


def test_datasets_without_images_have_no_sheet(reported_run: Any, tmp_path: Path) -> None:
    text = inspect_dataset(os.path.join(reported_run.output, "drops", "scan"), contact_sheet=str(tmp_path / "sheet.png"))
    assert "contact sheet" not in text
    assert not (tmp_path / "sheet.png").exists()


def test_no_dataset_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("inspect", [str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"pagepairs: {tmp_path} is neither a dataset (a folder with manifest.json), nor a run, nor a file of a dataset\n"
    )
    with pytest.raises(SystemExit, match="2"):
        main("inspect", [str(tmp_path), "--rows", "-1"])
    assert "--rows -1: give 0 or more" in capsys.readouterr().err


def test_main_writes_the_sheet_beside_the_caller(reported_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main("inspect", [os.path.join(reported_run.output, "shards")]) == 0
    assert (tmp_path / "inspect-shards.png").exists()


def test_sheets_are_the_same_bytes_twice(tmp_path: Path) -> None:
    tiles = [Tile(images=(Image.new("RGB", (300, 200), (10, 120, 200)), "source_changed"), caption="0.500 咖啡 " + "x" * 200)] * 5
    for name in ("a.png", "b.png"):
        draw_sheet(str(tmp_path / name), tiles)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert size_of(tmp_path / "a.png") == sheet_size(tiles) == sheet(4, 2, PAIR_PX)
