"""`pagepairs benchmark build`: what the cut and the recall table are taken of, what is indexed and what is said of the rest."""

import io
import json
from pathlib import Path

from made_crawls import encode, picture
from PIL import Image, ImageDraw, ImageOps


def square() -> bytes:
    """Returns a grey square on white: flat, as PDQ sees it."""
    image = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(image).rectangle((100, 100, 200, 200), fill=(200, 200, 200))
    return encode(image)


def write_images(folder: Path, images: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, body in images.items():
        (folder / name).write_bytes(body)
    return folder


def build(pagepairs, images: Path, output: Path, *flags: object, encoder: str = "builtin") -> tuple[dict, str]:
    done = pagepairs("benchmark", "build", "--name", "tests", "--images", images, "--encoder", encoder, "--output", output, *flags)
    assert done.code == 0, done.err
    return json.loads((output / "manifest.json").read_text()), done.out


def test_flat_images_take_no_part_in_the_cut(tmp_path: Path, pagepairs) -> None:
    photos = {f"{number}.jpg": picture(number, 0) for number in range(4)}
    plain, _ = build(pagepairs, write_images(tmp_path / "plain", photos), tmp_path / "a")
    mixed, out = build(pagepairs, write_images(tmp_path / "mixed", photos | {"square.jpg": square()}), tmp_path / "b")
    assert (plain["hashes"]["flat"], mixed["hashes"]["flat"]) == (0, 1)
    assert mixed["cut"] == plain["cut"]
    assert mixed["calibration"]["changes"] == plain["calibration"]["changes"]
    assert (plain["calibration"]["images"], mixed["calibration"]["images"]) == (4, 4)
    assert (plain["calibration"]["flat"], mixed["calibration"]["flat"]) == (0, 1)
    assert "1 flat image left out of cut and recall" in out


def test_a_test_set_of_flat_images_needs_a_cut(tmp_path: Path, pagepairs) -> None:
    images = write_images(tmp_path / "images", {"square.jpg": square()})
    flags = ["benchmark", "build", "--name", "n", "--images", images, "--encoder", "builtin", "--output", tmp_path / "idx"]
    done = pagepairs(*flags)
    assert (done.code, (tmp_path / "idx").exists()) == (2, False)
    assert "all its images are flat (PDQ quality below 50), so no cut can be measured: give --cut, or --encoder none" in done.err
    assert pagepairs(*flags, "--cut", 0.9).code == 0
    assert json.loads((tmp_path / "idx" / "manifest.json").read_text())["calibration"] is None


def test_what_is_not_indexed_is_said(tmp_path: Path, pagepairs) -> None:
    images = write_images(tmp_path / "images", {"val_0001": picture(1, 0), "labels.csv": b"cat", "2.jpg": picture(2, 0), "val.tar": b"tar"})
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "3.jpg").write_bytes(picture(3, 0))
    (images / "more").symlink_to(tmp_path / "real")
    manifest, out = build(pagepairs, images, tmp_path / "idx", "--sample", 1, encoder="none")
    assert manifest["items"] == 3
    assert manifest["left_out"] == {"count": 2, "examples": ["labels.csv", "val.tar"]}
    assert "left out, as no images by name or content: 2 files, e.g. labels.csv, val.tar" in out


def test_false_matches_are_counted_on_unrelated_photos(shared_data: Path, tmp_path: Path, pagepairs) -> None:
    photos = shared_data / "bench_dreambooth" / "dataset"
    images = write_images(tmp_path / "images", {f"{n}.jpg": (photos / "dog" / f"0{n}.jpg").read_bytes() for n in (0, 1, 3)})
    vase = [path.read_bytes() for path in sorted((photos / "vase").glob("*.jpg"))[:3]]
    with Image.open(io.BytesIO((images / "1.jpg").read_bytes())) as opened:
        small = opened.convert("RGB").resize((320, 320))
    planted = {"small.jpg": encode(small), "mirrored.jpg": encode(ImageOps.mirror(small)), "square.jpg": square()}
    other = write_images(tmp_path / "other", {f"{n}.jpg": body for n, body in enumerate(vase)} | planted)
    manifest, out = build(pagepairs, images, tmp_path / "idx", "--sample", 1, "--unrelated", other, "--cut", 0.99)
    unrelated = manifest["calibration"]["unrelated"]
    assert unrelated["highest"] > 0.99  # the smaller copy; the flat square is left out, as in a crawl
    del unrelated["highest"]
    assert unrelated == {"source": "--unrelated", "images": 6, "hash": 1, "embedding": 1}
    assert "false matches among 6 images (--unrelated): 1 by hash, 1 by embedding" in out
    manifest, out = build(pagepairs, images, tmp_path / "hashes", "--sample", 1, "--unrelated", other, encoder="none")
    assert manifest["calibration"]["unrelated"] == {"source": "--unrelated", "images": 6, "hash": 1}
    assert "false matches among 6 images (--unrelated): 1 by hash\n" in out
