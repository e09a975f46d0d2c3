"""Runs with --benchmark on small crawls: what is refused, what is done again, what never matches, and audits that find something."""

import io
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from made_crawls import Response, encode, page, picture, site, write_warc
from outputs import assert_conserved, counters, data_hashes, rows
from PIL import Image
from scipy.fft import idctn
from torchvision.models import mobilenet_v3_small

from pagepairs.config import ScanConfig
from pipeline.look import look

HOSTILE = '"><script>alert(1)<|script>.jpg'


def write_images(folder: Path, images: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, body in images.items():
        (folder / name).write_bytes(body)
    return folder


def smaller(body: bytes) -> bytes:
    with Image.open(io.BytesIO(body)) as image:
        return encode(image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, pagepairs) -> Path:
    """An index of two pictures of the small site, one of them at another size, and of one that is not there."""
    folder = tmp_path_factory.mktemp("index")
    images = {HOSTILE: picture(2, 1), "b.jpg": smaller(picture(3, 0)), "other.jpg": picture(99, 0)}
    write_images(folder / "images", images)
    (folder / "images" / "broken.jpg").write_bytes(picture(2, 2)[:2000])
    (folder / "images" / "notes.txt").write_text("no image")
    done = build(pagepairs, folder / "images", folder / "idx", "--cut", 0.97)
    assert "1 unreadable (broken_image 1)" in done.out
    return folder / "idx"


def build(pagepairs, images: Path, output: Path, *flags: object, encoder: str = "builtin"):
    done = pagepairs("benchmark", "build", "--name", "tests", "--images", images, "--encoder", encoder, "--output", output, *flags)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def run(site_files: list[Path], index: Path, tmp_path_factory: pytest.TempPathFactory, pagepairs) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    done = pagepairs("run", "--input", *site_files, "--output", output, "--encoder", "builtin", "--benchmark", index)
    assert done.code == 0, done.err
    return output


def test_matched_images_go_and_the_rest_of_their_pages_stays(run: Path, site_run: Path) -> None:
    matches = {row["image_url"]: (row["item"], row["signal"]) for row in rows(run, "matches") if row["signal"]}
    assert matches == {"https://site.example/2/1.jpg": (HOSTILE, "both"), "https://site.example/3/0.jpg": ("b.jpg", "both")}
    drops = [(row["reason"], row["image_url"]) for row in rows(run, "drops/pair") if row["reason"] == "benchmark_match"]
    assert sorted(drops) == [("benchmark_match", url) for url in sorted(matches)]
    assert_conserved(run)
    before, after = ({row["pair_id"] for row in rows(output, "pairs")} for output in (site_run, run))
    gone = {row["image_id"] for row in rows(run, "matches") if row["signal"]}
    kept = {row["pair_id"] for row in rows(site_run, "pairs") if not {row["condition_id"], row["target_id"]} & gone}
    assert after == kept < before


def test_the_index_counts_and_lists_what_it_could_not_read(index: Path) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    assert (manifest["items"], manifest["unreadable"], manifest["hashes"]["flat"]) == (3, {"broken_image": 1}, 0)
    assert [row["path"] for row in pq.read_table(index / "unreadable.parquet").to_pylist()] == ["broken.jpg"]
    assert manifest["encoder"]["name"] == "builtin"
    assert manifest["versions"]["faiss-cpu"]
    assert [row["change"] for row in manifest["calibration"]["changes"] if row["mild"]] == [
        *("recompressed", "resized", "greyed", "recoloured", "captioned", "cropped to 95 %")
    ]
    assert sorted(path.name for path in index.iterdir()) == [
        *("id_rows.npy", "ids.npy", "items.parquet", "kinds.npy", "manifest.json", "pdq.npy", "phash.npy", "thumbnails.parquet"),
        *("unreadable.parquet", "vectors.faiss", "vectors.npy"),
    ]


def test_hostile_names_are_escaped_in_the_report(run: Path) -> None:
    page_html = (run / "report" / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page_html
    assert "<script>alert(1)" not in page_html


def test_an_index_in_another_place_changes_nothing_and_another_cut_does(
    run: Path, index: Path, tmp_path: Path, site_files: list[Path], pagepairs
) -> None:
    shutil.copytree(index, tmp_path / "moved")
    shutil.copytree(run, tmp_path / "out")
    before = data_hashes(tmp_path / "out")
    again = ["run", "--input", *site_files, "--output", tmp_path / "out", "--encoder", "builtin", "--benchmark"]
    done = pagepairs(*again, tmp_path / "moved")
    assert (done.code, "pair: kept" in done.err) == (0, True), done.err
    assert data_hashes(tmp_path / "out") == before
    build(pagepairs, index.parent / "images", tmp_path / "idx", "--cut", 0.5)
    done = pagepairs(*again, tmp_path / "idx")
    assert (done.code, "building it again" in done.err) == (0, True), done.err
    assert counters(tmp_path / "out", "matches")["matched"] > 2
    done = pagepairs(*again[:-1], "--config", tmp_path / "none.json")
    assert done.code == 2


def twin(body: bytes) -> bytes:
    """Returns the picture under a fine pattern: near enough to be its copy, its PDQ too far for a list that holds PDQ alone."""
    with Image.open(io.BytesIO(body)) as image:
        rgb = np.asarray(image.convert("RGB"), np.float64)
    known = look(body, ScanConfig())
    for seed in range(100):
        rng = np.random.default_rng(seed)
        waves = np.zeros(rgb.shape[:2])
        waves[9:16, 1:16] = rng.choice([-1, 1], (7, 15))
        pattern = idctn(waves, norm="ortho")
        strength = float(rng.uniform(0.5, 12))
        changed = encode(Image.fromarray(np.clip(rgb + strength * (pattern / np.abs(pattern).max())[..., None], 0, 255).astype(np.uint8)))
        seen = look(changed, ScanConfig())
        bits = (int.from_bytes(seen.pdq, "big") ^ int.from_bytes(known.pdq, "big")).bit_count()
        if seen.phash == known.phash and 31 < bits <= 48:
            return changed
    raise AssertionError("no pattern changes PDQ alone")


def test_copies_of_a_match_go_with_it(tmp_path: Path, pagepairs) -> None:
    records = site([1, 2, 3])
    records.append(Response(url="https://site.example/twin.jpg", body=twin(picture(3, 0))))
    records.append(page("https://site.example/more/", ["https://site.example/twin.jpg", "https://site.example/1/0.jpg"]))
    crawl = write_warc(tmp_path / "crawl.warc.gz", records)
    run = ["run", "--input", crawl, "--output", tmp_path / "out", "--encoder", "builtin"]
    assert pagepairs(*run).code == 0
    hashes = {row["image_url"][21:]: (row["phash"], row["pdq"]) for row in rows(tmp_path / "out", "images")}
    (tmp_path / "list.txt").write_text(f"{hashes['3/0.jpg'][1].hex()}\n")
    assert pagepairs("benchmark", "build", "--name", "l", "--images", tmp_path / "list.txt", "--output", tmp_path / "idx").code == 0
    done = pagepairs(*run, "--benchmark", tmp_path / "idx")
    assert done.code == 0, done.err
    assert [row["image_url"][21:] for row in rows(tmp_path / "out", "matches") if row["signal"]] == ["3/0.jpg"]
    drops = {(row["image_url"][21:], row["reason"]) for row in rows(tmp_path / "out", "drops/pair")}
    assert {("3/0.jpg", "benchmark_match"), ("twin.jpg", "copy_removed")} <= drops


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_and_order_give_the_same_bytes(
    run: Path, index: Path, site_files: list[Path], tmp_path: Path, pagepairs, workers: int
) -> None:
    flags = ["--encoder", "builtin", "--benchmark", index, "--workers", workers]
    done = pagepairs("run", "--input", *site_files[::-1], "--output", tmp_path / "out", *flags)
    assert done.code == 0, done.err
    assert data_hashes(tmp_path / "out") == data_hashes(run)


def test_two_workers_find_the_same_matches(site_run: Path, index: Path, tmp_path: Path, pagepairs, monkeypatch: pytest.MonkeyPatch) -> None:
    output, found = shutil.copytree(site_run, tmp_path / "out"), []
    # An audit is the passes alone. Whole runs are compared under `slow`: each of their jobs starts its own two workers.
    for workers, files_per_task in ((1, 16), (2, 1)):
        monkeypatch.setattr("pipeline.pair_matches._FILES_PER_TASK", files_per_task)
        done = pagepairs("audit", "--output", output, "--benchmark", index, "--sample", 0, "--workers", workers)
        assert done.code == 7, done.err
        found.append((output / "report" / "audit.json").read_text())
    assert len(json.loads(found[0])["left"]) == 2
    assert found[0] == found[1]


def test_several_indexes_are_all_kept_out(index: Path, site_files: list[Path], tmp_path: Path, pagepairs) -> None:
    hashes = tmp_path / "hashes.txt"
    other = build(pagepairs, write_images(tmp_path / "images", {"c.jpg": picture(5, 2)}), tmp_path / "c", "--cut", 0.97)
    items = pq.read_table(tmp_path / "c" / "items.parquet").to_pylist()
    hashes.write_text(f"{items[0]['pdq'].hex()} the third\n\n{items[0]['phash'] ^ 7:016x}\n")
    done = pagepairs("benchmark", "build", "--name", "list", "--images", hashes, "--output", tmp_path / "list")
    assert done.code == 0, done.err + other.out
    run = ["run", "--input", *site_files, "--output", tmp_path / "out", "--encoder", "builtin"]
    done = pagepairs(*run, "--benchmark", index, "--benchmark", tmp_path / "list")
    assert done.code == 0, done.err
    found = {
        (row["benchmark"], row["image_url"][21:], row["item"], row["signal"]) for row in rows(tmp_path / "out", "matches") if row["signal"]
    }
    assert {row[:2] for row in found} == {("tests", "2/1.jpg"), ("tests", "3/0.jpg"), ("list", "5/2.jpg")}
    [listed] = [row for row in rows(tmp_path / "out", "matches") if row["benchmark"] == "list" and row["signal"]]
    assert (listed["item"], listed["signal"], listed["similarity"]) == ("the third", "hash", None)
    assert (listed["pdq_distance"], listed["phash_distance"]) == (0, None)
    done = pagepairs(*run, "--benchmark", index, "--benchmark", shutil.copytree(index, tmp_path / "twin"))
    assert done.code == 2
    assert "has the name of" in done.err


def test_another_encoder_is_refused_before_anything_is_written(
    index: Path, site_files: list[Path], shared_data, tmp_path: Path, pagepairs
) -> None:
    [network] = (shared_data / "encoder_mobilenet").glob("*.tflite")
    run = ["run", "--input", *site_files, "--output", tmp_path / "out", "--low", 0.2, "--high", 0.9]
    done = pagepairs(*run, "--encoder", f"tflite:{network}", "--benchmark", index)
    assert (done.code, (tmp_path / "out").exists()) == (2, False)
    assert "pagepairs embed --encoder RUN,builtin" in done.err
    other = shutil.copytree(index, tmp_path / "idx")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["encoder"]["preprocessing"] = "box-32-v0"
    (other / "manifest.json").write_text(json.dumps(manifest))
    done = pagepairs(*run, "--encoder", "builtin", "--benchmark", other)
    assert (done.code, (tmp_path / "out").exists()) == (2, False)
    assert "preprocessing 'box-32-v0' there, 'box-64-v1' here" in done.err
    (other / "vectors.npy").write_bytes(b"")
    assert "vectors.npy is missing or not as it was built" in pagepairs(*run, "--encoder", "builtin", "--benchmark", other).err
    assert "benchmark build" in pagepairs(*run, "--encoder", "builtin", "--benchmark", tmp_path / "none").err


def test_an_index_with_a_spoilt_byte_is_refused(site_run: Path, site_files: list[Path], index: Path, tmp_path: Path, pagepairs) -> None:
    spoilt = shutil.copytree(index, tmp_path / "idx")
    body = bytearray((spoilt / "vectors.npy").read_bytes())
    body[-5] ^= 1
    (spoilt / "vectors.npy").write_bytes(body)
    output = shutil.copytree(site_run, tmp_path / "out")
    run = ["run", "--input", *site_files, "--output", output, "--encoder", "builtin"]
    for command in (["audit", "--output", output, "--sample", 0], run):
        done = pagepairs(*command, "--benchmark", spoilt)
        assert (done.code, "vectors.npy holds other bytes than were built" in done.err) == (2, True), done.err
    assert data_hashes(output) == data_hashes(site_run)


def test_flat_images_match_by_their_bytes_alone(tmp_path: Path, pagepairs) -> None:
    flat = [encode(Image.new("RGB", (300, 260), (grey, grey, grey))) for grey in (126, 127, 128)]
    urls = [f"https://site.example/1/{name}.jpg" for name in ("flat", "same", "0")]
    records = [*site([1]), *site([1], host="twice.example")]
    records += [Response(url=url, body=body) for url, body in zip(urls[:2], flat[:2], strict=True)]
    crawl = write_warc(tmp_path / "crawl.warc.gz", [*records, page("https://site.example/more/", urls)])
    again = write_warc(tmp_path / "again.warc.gz", [Response(url="https://twice.example/flat.jpg", body=flat[0]), *site([1])])
    images = write_images(tmp_path / "images", {"flat.jpg": flat[2], "same.jpg": flat[1], "1.jpg": picture(1, 0)})
    done = build(pagepairs, images, tmp_path / "idx", "--cut", 0.97)
    assert "2 of them flat (matched by their bytes alone)" in done.out
    run = ["run", "--input", crawl, again, "--encoder", "builtin", "--low", -1, "--high", 1, "--min-texture", 0]
    run += ["--output", tmp_path / "out"]
    done = pagepairs(*run, "--benchmark", tmp_path / "idx")
    assert done.code == 0, done.err
    assert sorted((row["image_url"][8:], row["item"], row["signal"]) for row in rows(tmp_path / "out", "matches") if row["signal"]) == [
        ("site.example/1/0.jpg", "1.jpg", "both"),
        ("site.example/1/same.jpg", "same.jpg", "hash"),
    ]
    [same] = [row for row in rows(tmp_path / "out", "matches") if row["item"] == "same.jpg"]
    assert (same["phash_distance"], same["pdq_distance"], same["similarity"]) == (0, 0, None)
    found = counters(tmp_path / "out", "matches")
    assert (found["images"], found["flat"], found["matched"]) == (5, 2, 2)  # `again` and the second host hold nothing new
    [benchmark] = found["benchmarks"]
    assert (benchmark["compared_by_hash"], benchmark["compared_by_embedding"], benchmark["flat_items"]) == (3, 3, 2)
    [shown] = json.loads((tmp_path / "out" / "report" / "report.json").read_text())["decontamination"]["benchmarks"]
    assert "Of the 5 distinct images of the crawl, all were compared by their bytes, 3 by perceptual hash and 3 by" in shown["statement"]
    assert "the 3 images of tests, 2 of them flat and compared by their bytes alone" in shown["statement"]


def test_an_audit_finds_a_flat_image_that_is_a_benchmarks_file(tmp_path: Path, pagepairs) -> None:
    flat = encode(Image.new("RGB", (300, 260), (90, 90, 90)))
    urls = [f"https://site.example/1/{name}.jpg" for name in ("flat", "0", "1")]
    records = [*site([1]), Response(url=urls[0], body=flat), page("https://site.example/more/", urls)]
    run = ["run", "--input", write_warc(tmp_path / "crawl.warc.gz", records), "--encoder", "builtin", "--low", -1, "--high", 1]
    assert pagepairs(*run, "--min-texture", 0, "--output", tmp_path / "out").code == 0
    build(pagepairs, write_images(tmp_path / "images", {"flat.jpg": flat}), tmp_path / "idx", encoder="none")
    done = pagepairs("audit", "--output", tmp_path / "out", "--benchmark", tmp_path / "idx", "--sample", 0)
    assert (done.code, "left in the pairs: 1" in done.out) == (7, True), done.out
    checked = json.loads((tmp_path / "out" / "report" / "audit.json").read_text())["checked"]
    assert checked == {"bytes": 4, "hash": 3, "flat": 1}


def test_an_audit_finds_what_a_run_without_the_index_left(site_run: Path, index: Path, tmp_path: Path, pagepairs) -> None:
    output = shutil.copytree(site_run, tmp_path / "out")
    done = pagepairs("audit", "--output", output, "--benchmark", index, "--sample", 100)
    assert done.code == 7, done.err
    found = json.loads((output / "report" / "audit.json").read_text())
    assert {row["image_url"] for row in found["left"]} == {"https://site.example/2/1.jpg", "https://site.example/3/0.jpg"}
    assert found["clean"] is False
    second = {row["item"]: row["bits"] for row in found["second_opinion"]["imagededup PHash"]["rows"] if row["found"]}
    assert set(second) == {HOSTILE, "b.jpg"}  # by imagededup's own hash and search, from the pixels of the shards
    assert "NOT CLEAN" in done.out
    assert pagepairs("audit", "--output", tmp_path / "nothing", "--benchmark", index).code == 2


def test_an_audit_says_so_when_vectors_are_missing(run: Path, index: Path, tmp_path: Path, pagepairs) -> None:
    output = shutil.copytree(run, tmp_path / "out")
    shutil.rmtree(output / "embeddings")
    done = pagepairs("audit", "--output", output, "--benchmark", index)
    assert done.code == 2
    assert "holds vectors of builtin, the run of none" in done.err


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, pagepairs) -> None:
    rng = np.random.default_rng(0)
    noise = [encode(Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))) for _ in range(3)]
    images = write_images(tmp_path / "images", {f"{number}.jpg": body for number, body in enumerate(noise)})
    build_flags = ["benchmark", "build", "--name", "n", "--images", images, "--encoder", "builtin", "--output", tmp_path / "idx"]
    for flags, sentence in [
        (["--index", "pq"], "--index pq needs 1,000 images to train on, there are 3"),
        (["--nprobe", 4], "--nprobe 4"),
        (["--unrelated", tmp_path / "none"], "there is no such folder or file"),
        (["--sample", 0], "--sample 0"),
    ]:
        done = pagepairs(*build_flags, *flags)
        assert (done.code, sentence in done.err) == (2, True), done.err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
    assert pagepairs(*build_flags).code == 0
    assert "exists" in pagepairs(*build_flags).err


def test_untouched_crawls_hold_no_benchmark_image(shared_data: Path, tmp_path: Path, pagepairs) -> None:
    [network] = (shared_data / "encoder_mobilenet").glob("*.tflite")
    images = shared_data / "bench_dreambooth" / "dataset"
    build(pagepairs, images, tmp_path / "idx", "--sample", 8, encoder=f"tflite:{network}")
    public = sorted(path for path in (shared_data / "warc_public").iterdir() if "broken" not in path.name)
    inputs = [shared_data / "howtocook.warc.gz", *public]
    run = ["run", "--input", *inputs, "--output", tmp_path / "out", "--encoder", f"tflite:{network}", "--low", 0.2, "--high", 0.95]
    done = pagepairs(*run, "--benchmark", tmp_path / "idx")
    assert done.code == 0, done.err
    found = counters(tmp_path / "out", "matches")
    assert found["images"] > 170
    assert found["matched"] == 0


class _StandIn(torch.nn.Module):
    """In the place of Meta's network, which was not at hand: where an image is bright, in an 8 x 8 grid."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), 8).flatten(1)
        return torch.nn.functional.normalize(cells - cells.mean(1, keepdim=True))


def test_a_copy_descriptor_beside_the_runs_encoder(index: Path, site_files: list[Path], tmp_path: Path, pagepairs) -> None:
    network = tmp_path / "sscd_disc_mixup.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the descriptor is published in no other form
        torch.jit.trace(_StandIn(), torch.zeros(2, 3, 320, 320)).save(str(network))
    flags = ["--name", "tests", "--images", index.parent / "images", "--descriptor", f"sscd:{network}", "--device", "cpu", "--sample", 1]
    done = pagepairs("benchmark", "build", *flags, "--output", tmp_path / "calibrated")
    assert (done.code, "(calibrated: " in done.out) == (0, True), done.err  # 0.45 is of the network that has 512 numbers
    assert pagepairs("benchmark", "build", *flags, "--output", tmp_path / "idx", "--cut", 0.97).code == 0
    run = ["run", "--input", *site_files, "--output", tmp_path / "out", "--encoder", "builtin"]
    assert pagepairs(*run).code == 0
    done = pagepairs(*run, "--benchmark", tmp_path / "idx")
    assert done.code == 2
    assert "pagepairs embed --encoder RUN,sscd:sscd_disc_mixup.pt" in done.err
    done = pagepairs("embed", "--output", tmp_path / "out", "--encoder", f"builtin,sscd:{network}", "--device", "cpu")
    assert done.code == 0, done.err
    done = pagepairs(*run, "--benchmark", tmp_path / "idx")
    assert done.code == 0, done.err
    matches = {row["image_url"][21:]: row["signal"] for row in rows(tmp_path / "out", "matches") if row["signal"]}
    assert matches == {"2/1.jpg": "both", "3/0.jpg": "both"}
    assert counters(tmp_path / "out", "candidates")["encoder"] == "builtin"
    assert counters(tmp_path / "out", "matches")["benchmarks"][0]["encoder"] == "sscd-sscd_disc_mixup"


def test_imagededups_network_is_asked_where_weights_are_given(site_run: Path, index: Path, tmp_path: Path, pagepairs) -> None:
    output = shutil.copytree(site_run, tmp_path / "out")
    torch.manual_seed(0)
    torch.save(mobilenet_v3_small(weights=None).state_dict(), tmp_path / "random.pth")
    audit = ["audit", "--output", output, "--benchmark", index, "--sample", 8]
    done = pagepairs(*audit, "--cnn-weights", tmp_path / "random.pth")
    assert done.code == 7, done.err
    second = json.loads((output / "report" / "audit.json").read_text())["second_opinion"]["imagededup CNN"]
    assert (second["images"], second["items"]) == (8, 3)
    assert all(row["cosine"] >= 0.9 and row["item"] in (HOSTILE, "b.jpg", "other.jpg") for row in second["rows"])
    (tmp_path / "text.pth").write_text("no weights")
    done = pagepairs(*audit, "--cnn-weights", tmp_path / "text.pth")
    assert (done.code, "not a state_dict of torchvision's mobilenet_v3_small" in done.err) == (2, True), done.err
