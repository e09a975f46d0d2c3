"""Shards of a run in every format and shape, the dataset card, and the readers that the documents show."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_crawls import site, write_site
from outputs import assert_conserved, assert_sound, counters, data_hashes, rows
from PIL import Image

import pipeline.jobs
from pagepairs.manifest import dataset_files
from pagepairs.shards import FORMATS, read_shard

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("condition", "target")


def shard_rows(output: Path) -> list[dict[str, Any]]:
    return [row for path in dataset_files(str(output / "shards")) for row in read_shard(path)]


def comparable(output: Path) -> list[dict[str, Any]]:
    return [
        {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in row.items()} for row in shard_rows(output)
    ]


@pytest.fixture(scope="module")
def runs(site_run: Path, tmp_path_factory: pytest.TempPathFactory, pagepairs) -> dict[str, Path]:
    """The small site's shards in each format, with all columns, several shards each."""
    outputs = {}
    for form in FORMATS:
        outputs[form] = Path(shutil.copytree(site_run, tmp_path_factory.mktemp(form) / "out"))
        done = pagepairs("shard", "--output", outputs[form], "--format", form, "--columns", "alt", "embeddings", "--pairs-per-shard", 9)
        assert (done.code, done.err.count("Traceback")) == (0, 0), done.err
    return outputs


def test_every_format_holds_the_same_pairs_and_pixels_in_the_same_order(site_run: Path, runs: dict[str, Path]) -> None:
    expected = comparable(runs["parquet"])
    assert len(expected) == len(rows(site_run, "shards")) >= 20
    assert [row["pair_id"] for row in expected] == sorted(row["pair_id"] for row in rows(site_run, "pairs"))
    for form, output in runs.items():
        assert len(dataset_files(str(output / "shards"))) == -(-len(expected) // 9)
        assert comparable(output) == expected, form
        assert_sound(output)
    plain = {row["pair_id"]: row for row in rows(site_run, "shards")}
    for row in expected:
        assert {name: row[name] for name in plain[row["pair_id"]]} == plain[row["pair_id"]]


def test_alternative_texts_and_embeddings_are_those_of_the_page_and_the_image(runs: dict[str, Path], site_run: Path) -> None:
    vectors = {row["image_id"]: np.array(row["embedding"], np.float16) for row in rows(site_run, "embeddings/builtin")}
    for row in shard_rows(runs["parquet"]):
        assert (row["condition_alt"], row["target_alt"]) == ("picture", "picture")
        for side in SIDES:
            np.testing.assert_array_equal(row[f"{side}_embedding"], vectors[row[f"{side}_id"]])


def test_vectors_in_many_small_parts_are_the_same(
    site_run: Path, runs: dict[str, Path], tmp_path: Path, pagepairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.jobs, "PART_ROWS", 7)
    output = Path(shutil.copytree(site_run, tmp_path / "out"))
    flags = ("--format", "tfrecord", "--columns", "embeddings", "alt", "--pairs-per-shard", 9, "--workers", 2)
    done = pagepairs("shard", "--output", output, *flags)
    assert done.code == 0, done.err
    names = [path.name for path in (output / "shards").glob("pairs-*")]
    assert sorted(names) == [os.path.basename(path) for path in dataset_files(str(runs["tfrecord"] / "shards"))]
    for name in names:
        assert (output / "shards" / name).read_bytes() == (runs["tfrecord"] / "shards" / name).read_bytes()


@pytest.mark.parametrize("form", ["jpeg", "webp", "png"])
@pytest.mark.parametrize("resize", ["crop", "keep-ratio"])
def test_image_formats_and_shapes(site_run: Path, tmp_path: Path, pagepairs, form: str, resize: str) -> None:
    output = Path(shutil.copytree(site_run, tmp_path / "out"))
    flags = ("--image-format", form, "--resize", resize, "--format", "webdataset", "--quality", 90)
    done = pagepairs("shard", "--output", output, *flags)
    assert done.code == 0, done.err
    assert "alt" not in str(shard_rows(output)[0].keys())
    by_url = site_pictures()
    for row in shard_rows(output):
        for side in SIDES:
            found = Image.open(io.BytesIO(row[f"{side}_image"]))
            assert found.format == form.upper()
            assert found.size == ((256, 256) if resize == "crop" else (276, 256))
            source = by_url[row[f"{side}_url"]].resize((276, 256), Image.Resampling.BICUBIC)
            expected = np.asarray(source.crop((10, 0, 266, 256)) if resize == "crop" else source, np.float64)
            error = np.abs(np.asarray(found.convert("RGB"), np.float64) - expected)
            assert error.max() <= 1 if form == "png" else error.mean() < 6, form


def site_pictures() -> dict[str, Image.Image]:
    """The small site's images by URL, as another decoder sees them."""
    images = [response for response in site(range(8)) if response.kind == "image/jpeg"]
    return {response.url: Image.open(io.BytesIO(response.body)).convert("RGB") for response in images}


def test_a_wrong_format_is_refused_by_name(site_run: Path, pagepairs) -> None:
    for flag, value in (
        ("--format", "lmdb"),
        ("--image-format", "gif"),
        ("--resize", "stretch"),
        ("--columns", "captions"),
        ("--quality", 0),
    ):
        done = pagepairs("shard", "--output", site_run, flag, value)
        assert done.code == 2, done.err
        assert flag.removeprefix("--") in done.err


def snippets() -> list[tuple[str, str]]:
    """Every reader that docs/formats.md shows, with the format it reads."""
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    text = text[text.index("### Reading Parquet") : text.index("## Reasons")]
    found = []
    for section in re.split(r"^### Reading ", text, flags=re.MULTILINE)[1:]:
        named = re.match(r"Parquet|webdataset|TFRecord|any", section)
        assert named
        forms = list(FORMATS) if named[0] == "any" else [named[0].lower()]
        found += [(form, code) for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL) for form in forms]
    return found


def test_the_documents_show_five_lines_for_each_reader() -> None:
    assert [form for form, _ in snippets()] == ["parquet"] * 3 + ["webdataset"] * 2 + ["tfrecord"] + list(FORMATS)
    assert {len(code.splitlines()) for _, code in snippets()} == {5}


@pytest.mark.parametrize(("form", "code"), snippets(), ids=lambda value: re.sub(r"\W+", " ", value)[:40])
def test_the_readers_of_the_documents_find_every_pair(runs: dict[str, Path], tmp_path: Path, form: str, code: str) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs[form].parent, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{row['pair_id']} (256, 256) (256, 256)" for row in shard_rows(runs["parquet"])]


# webdataset leaves the tars that it has read to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_readers_see_the_same_pixels(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets
    import webdataset

    expected = [[np.asarray(Image.open(io.BytesIO(row[f"{side}_image"]))) for side in SIDES] for row in shard_rows(runs["parquet"])]
    tars = dataset_files(str(runs["webdataset"] / "shards"))
    found = {
        "webdataset": [
            [sample[f"{side}.jpg"] for side in SIDES] for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8")
        ],
        "parquet by the card": _by_card(datasets, runs["parquet"], tmp_path, "{}_image"),
        "tar by the card": _by_card(datasets, runs["webdataset"], tmp_path, "{}.jpg"),
    }
    for reader, images in found.items():
        assert len(images) == len(expected), reader
        for ours, theirs in zip(expected, images, strict=True):
            for side in (0, 1):
                np.testing.assert_array_equal(np.asarray(theirs[side]), ours[side])


def _by_card(datasets: Any, output: Path, cache: Path, column: str) -> list[list[Any]]:
    found = datasets.load_dataset(str(output / "shards"), split="train", cache_dir=str(cache))
    return [[row[column.format(side)] for side in SIDES] for row in found]


def test_tf_data_sees_the_same_values(runs: dict[str, Path]) -> None:
    # In a process of its own: TensorFlow's LLVM aborts where Triton, which torch's optimizers import, has brought another.
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    program = "import pathlib, sys, test_formats; test_formats.check_tf_data(*map(pathlib.Path, sys.argv[1:]))"
    folders = [str(runs[form]) for form in ("parquet", "tfrecord")]
    subprocess.run(
        [sys.executable, "-c", program, *folders], cwd=Path(__file__).parent, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True
    )


def check_tf_data(parquet: Path, tfrecord: Path) -> None:
    import tensorflow as tf

    expected = shard_rows(parquet)
    width = len(expected[0]["condition_embedding"])
    texts = [name for name, value in expected[0].items() if isinstance(value, str | bytes)]
    columns = {name: tf.io.FixedLenFeature([], tf.string) for name in texts} | {"similarity": tf.io.FixedLenFeature([], tf.float32)}
    columns |= {f"{side}_embedding": tf.io.FixedLenFeature([width], tf.float32) for side in SIDES}
    records = tf.data.TFRecordDataset(dataset_files(str(tfrecord / "shards")))
    found = [tf.io.parse_single_example(record, columns) for record in records]
    assert len(found) == len(expected)
    for theirs, ours in zip(found, expected, strict=True):
        for name, value in ours.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(theirs[name].numpy(), value.astype(np.float32))
            else:
                assert theirs[name].numpy() == (value.encode() if isinstance(value, str) else value), name


def test_the_card_counts_what_the_manifests_count(site_run: Path, runs: dict[str, Path]) -> None:
    card = (site_run / "shards" / "README.md").read_text(encoding="utf-8")
    kept = counters(site_run, "shards")["kept"]
    assert f"{kept} pairs of images" in card
    for dataset, what in (("images", "images of the crawl"), ("candidates", "sampled pairs")):
        assert f"| {what} | {counters(site_run, dataset)['in']} | {counters(site_run, dataset)['kept']} |" in card
    bins = re.findall(r"^\| (-?\d\.\d\d) \| (-?\d\.\d\d) \| (\d+) \| █*\s*\|$", card, re.MULTILINE)
    similarity = np.array([row["similarity"] for row in rows(site_run, "shards")], np.float64)
    for low, high, count in bins:
        assert ((similarity >= float(low)) & (similarity < float(high))).sum() == int(count)
    assert sum(int(count) for *_, count in bins) == kept
    hosts = re.findall(r"^\| `([^`]+)` \| (\d+) \|$", card, re.MULTILINE)
    pages = [row["page_url"] for row in rows(site_run, "shards")]
    assert sum(int(count) for _, count in hosts) == kept
    assert all(sum(f"//{host}/" in page for page in pages) == int(count) for host, count in hosts)
    settings = json.loads(card[card.index("```json") + 7 : card.rindex("```")])
    assert settings["shard"]["size"] == 256
    assert (settings["pair"]["low"], settings["pair"]["high"]) == (0.3, 0.9)
    assert str(site_run) not in card
    assert "pairs-*.tar" in (runs["webdataset"] / "shards" / "README.md").read_text(encoding="utf-8")
    assert "data_files" not in (runs["tfrecord"] / "shards" / "README.md").read_text(encoding="utf-8")


def test_the_card_comes_back_without_making_shards_again(site_run: Path, tmp_path: Path, pagepairs) -> None:
    output = Path(shutil.copytree(site_run, tmp_path / "out"))
    card = output / "shards" / "README.md"
    before = data_hashes(output)
    card.unlink()
    done = pagepairs("shard", "--output", output)
    assert (done.code, "shard: kept" in done.err) == (0, True)
    assert data_hashes(output) == before
    written = card.stat().st_ino
    pagepairs("shard", "--output", output)
    assert card.stat().st_ino == written


def test_embeddings_that_lack_an_image_are_an_error_with_a_remedy(tmp_path: Path, pagepairs) -> None:
    output = tmp_path / "out"
    done = pagepairs("run", "--input", *write_site(tmp_path / "site"), "--output", output, "--encoder", "builtin")
    assert done.code == 0, done.err
    path = dataset_files(str(output / "embeddings" / "builtin"))[0]
    pq.write_table(pq.read_table(path).slice(1), path)
    done = pagepairs("shard", "--output", output, "--columns", "embeddings")
    assert done.code == 2
    assert "run `pagepairs pair` again" in done.err


def test_inspect_shows_shards_of_every_format(runs: dict[str, Path], tmp_path: Path, pagepairs) -> None:
    sheets = []
    for form, output in runs.items():
        sheet = tmp_path / f"{form}.png"
        done = pagepairs("inspect", output / "shards", "--contact-sheet", sheet)
        assert done.code == 0, done.err
        assert f"{counters(output, 'shards')['kept']} rows in" in done.out
        assert done.out.count("\nrow ") == 5
        sheets.append(sheet.read_bytes())
    assert sheets[0] == sheets[1] == sheets[2]


def test_stages_conserve_with_tars(runs: dict[str, Path], site_run: Path) -> None:
    assert counters(runs["webdataset"], "shards")["in"] == counters(site_run, "shards")["in"]
    assert_conserved(runs["parquet"])
