"""`pagepairs evaluate` through the command line, and the protocol with a fake model: every number is counted again from files."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoders import load_encoder
from pagepairs.cli import main
from train.evaluate import evaluate
from train.evaluate_config import EvaluateConfig
from train.image_files import Picture
from train.kshot import keyed_seed
from train.metrics import alignment, balls, diversity, frechet_distance, gaussian

QUICK = ["--steps", "2", "--encoder", "builtin"]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def square(rgb: np.ndarray, side: int) -> np.ndarray:
    from pagepairs.images import centre_crop, resize_shortest

    return centre_crop(resize_shortest(rgb, side), side)


def vectors(images: Sequence[np.ndarray]) -> np.ndarray:
    encoder = load_encoder("builtin")
    return encoder.embed(np.stack([encoder.preprocess(image) for image in images]))


def scores(real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    return {
        "frechet": frechet_distance(gaussian(real), gaussian(generated)),
        "precision": balls(real, k=3).share_inside(generated),
        "recall": balls(generated, k=3).share_inside(real),
    }


def load(output: Path, name: str = "evaluation.json") -> Any:
    return json.loads((output / name).read_text())


def test_a_checkpoint_is_scored_by_the_k_shot_protocol(
    run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = draw_classes(11), tmp_path / "out"
    (images / "discs" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    flags = ["--samples-per-condition", "5", "--guidance", "0", "0.5", "--training", str(images)]
    assert main(["evaluate", "--checkpoint", str(run), "--images", str(images), "--output", str(output), *QUICK, *flags]) == 0
    found, manifest = load(output), load(output, "manifest.json")
    assert found["protocol"] == {
        "name": "k-shot", "classes": 3, "real_images": 15, "conditions": 3, "samples_per_condition": 5, "neighbours": 3, "size_px": 16,
    }  # fmt: skip
    assert found["sets"] == {"w0": {"guidance": 0.0}, "w0.5": {"guidance": 0.5}}
    assert found["dropped"] == {"broken_image": {"count": 1, "examples": [found["dropped"]["broken_image"]["examples"][0]]}}
    assert found["warnings"] == []

    real_files, floor_files = [one["name"] for one in manifest["real"]], [one["name"] for one in manifest["floor"][1]]
    assert len({*real_files, *floor_files}) == 30
    assert [one["name"] for one in manifest["floor"][0]] == real_files
    real, floor = (vectors([square(pixels(images / name), 16) for name in names]) for names in (real_files, floor_files))
    assert [one["index"] for one in manifest["samples"]] == [0, 1, 2, 3, 4] * 3
    assert [one["condition"] for one in manifest["samples"]] == [name for name in real_files[::5] for _ in range(5)]
    assert all(one["seed"] == keyed_seed(0, one["condition_id"], one["index"]) for one in manifest["samples"])
    assert len({one["seed"] for one in manifest["samples"]}) == 15

    (space,) = found["spaces"]
    assert (space["label"], space["images"], space["digest"]) == ("FD(builtin)", 15, load_encoder("builtin").digest)
    assert space["floor"] == pytest.approx({"images": 15, **scores(real, floor)}, abs=1e-9)
    conditions = vectors([square(pixels(images / name), 16) for name in real_files[::5]])
    for number, name in enumerate(found["sets"]):
        files = [output / one["files"][number] for one in manifest["samples"]]
        generated = vectors([pixels(path) for path in files])
        assert space["rows"][name] == pytest.approx(scores(real, generated), abs=1e-9)
        assert found["cosines"]["rows"][name] == pytest.approx(
            {"diversity": diversity(generated.reshape(3, 5, -1)), "alignment": alignment(generated.reshape(3, 5, -1), conditions)}, abs=1e-9
        )
    assert found["memorisation"]["training_images"] == 33
    assert found["memorisation"]["dropped"]["broken_image"]["count"] == 1
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["FD(builtin)", "distance", "precision", "recall", "15", "images"]
    assert out.endswith(f"{output}/evaluation.html\n")


def test_the_same_command_gives_the_same_bytes_and_goes_on_from_what_is_there(
    run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_classes(8)
    command = ["evaluate", "--checkpoint", str(run), "--images", str(images), "--samples-per-condition", "4", "--guidance", "0.3", *QUICK]
    first, again = tmp_path / "first", tmp_path / "again"
    assert main([*command, "--output", str(first)]) == 0
    before = {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    lost = next((first / "samples" / "w0.3").iterdir())
    lost.unlink()
    (first / "evaluation.json").unlink()
    assert main([*command, "--output", str(first)]) == 0
    assert {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    assert main([*command, "--output", str(again)]) == 0
    fresh = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert fresh.keys() == before.keys()
    own = {Path("evaluation.json"), Path("evaluation.html")}  # they name --output
    assert {path: fresh[path] for path in fresh if path not in own} == {path: before[path] for path in before if path not in own}
    capsys.readouterr()
    assert main([*command, "--output", str(first), "--interpolation", "0.8"]) == 2
    assert "it holds samples of another model or other sampling settings; name another folder" in capsys.readouterr().err


class FakeCopier:
    """A stand-in for a model: it returns its condition, whatever the seed."""

    image_px, condition_px, batch = 16, 256, 4
    digest = {"preset": "copier", "weights": "0" * 64, "images_seen": 0, "steps": 1}  # noqa: RUF012 (as of the protocol)

    def draw(self, conditions: Sequence[np.ndarray], seeds: Sequence[int], guidance: float) -> np.ndarray:
        return np.stack([square(condition, 16) for condition in conditions])


def test_a_pure_copier_scores_a_recall_of_at_most_k_over_n_one_shot_and_1_full_shot(
    draw_classes: Callable[[int], Path], tmp_path: Path
) -> None:
    images = draw_classes(12)
    settings = {"checkpoint": "-", "images": str(images), "encoder": "builtin", "guidance": (0.0,)}
    one_shot = EvaluateConfig(**settings, output=str(tmp_path / "one"), samples_per_condition=6)
    (space,) = evaluate(one_shot, load_generator=lambda _: FakeCopier()).evaluation["spaces"]
    assert space["images"] == 18
    assert 0 < space["rows"]["w0"]["recall"] <= 3 / 18
    assert space["rows"]["w0"]["precision"] == 1.0
    full = EvaluateConfig(**settings, output=str(tmp_path / "full"), shots=6, samples_per_condition=1, copiers_pass=True)
    found = evaluate(full, load_generator=lambda _: FakeCopier()).evaluation
    row = found["spaces"][0]["rows"]["w0"]
    assert (row["precision"], row["recall"]) == (1.0, 1.0)
    assert row["frechet"] < 0.05 < space["rows"]["w0"]["frechet"]  # not 0: it crops before it resizes
    assert found["warnings"][0].startswith("N / K = 1 samples a condition with k = 3 neighbours: a model that only copies")
    assert found["cosines"]["rows"]["w0"] == {"diversity": None, "alignment": pytest.approx(1.0, abs=0.02)}


def write_folder(folder: Path, images: Sequence[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder


def noise(seed: int, count: int, side: int = 20) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=seed))
    coarse = rng.integers(0, 256, (count, 3, 3, 3), np.uint8)
    return [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)) for image in coarse]


def test_two_folders_are_scored_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, real = noise(1, 9), noise(2, 25, 28)
    folders = [
        "--generated",
        str(write_folder(tmp_path / "made" / "deep", made).parent),
        "--real",
        str(write_folder(tmp_path / "real", real)),
    ]
    assert main(["evaluate", *folders, "--output", str(tmp_path / "out"), "--encoder", "builtin"]) == 0
    found = load(tmp_path / "out")
    assert found["protocol"] == {"name": "folders", "real_images": 9, "neighbours": 3, "size_px": 20}
    assert found["warnings"] == ["9 generated and 25 real images: 9 of each are compared, chosen by a hash of their names"]
    (space,) = found["spaces"]
    assert space["floor"]["images"] == 9
    assert space["rows"].keys() == {"generated"}
    assert not (tmp_path / "out" / "samples").exists()
    same = ["--generated", str(tmp_path / "real"), "--real", str(tmp_path / "real")]
    assert main(["evaluate", *same, "--output", str(tmp_path / "same"), "--encoder", "builtin"]) == 0
    (space,) = load(tmp_path / "same")["spaces"]
    assert {name: space["rows"]["generated"][name] for name in ("frechet", "precision", "recall")} == pytest.approx(
        {"frechet": 0, "precision": 1, "recall": 1}, abs=1e-9
    )
    assert space["floor"]["images"] == 12
    assert space["rows"]["generated"]["matched"] == pytest.approx({"frechet": 0, "precision": 1, "recall": 1}, abs=1e-9)
    assert "the real-against-real floor has 12 images a side where the scores have 25" in capsys.readouterr().err


def test_folder_scores_are_those_of_their_images(tmp_path: Path) -> None:
    made, real = noise(3, 12), noise(4, 12)
    config = EvaluateConfig(
        generated=str(write_folder(tmp_path / "a", made)), real=str(write_folder(tmp_path / "b", real)), output=str(tmp_path / "out"),
        encoder="builtin",
    )  # fmt: skip

    def no_model(_: EvaluateConfig) -> Any:
        raise AssertionError("two folders need no model")

    row = evaluate(config, load_generator=no_model).evaluation["spaces"][0]["rows"]["generated"]
    expected = scores(vectors(real), vectors(made))
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_the_nearest_training_images_are_named(draw_classes: Callable[[int], Path], tmp_path: Path) -> None:
    images = draw_classes(8)
    config = EvaluateConfig(
        checkpoint="-", images=str(images), output=str(tmp_path / "out"), encoder="builtin", guidance=(0.0,), samples_per_condition=4,
        training=str(images / "discs"),
    )  # fmt: skip
    scored = evaluate(config, load_generator=lambda _: FakeCopier())
    found = scored.evaluation["memorisation"]
    assert found["training_images"] == 8
    assert found["rows"]["w0"]["highest"] == found["nearest"][0]["cosine"] == scored.copies[0].cosine
    assert len(found["nearest"]) == 6
    assert all(isinstance(copy.training, Picture) for copy in scored.copies)
    best = scored.copies[0]
    every = sorted((images / "discs").iterdir())
    cosines = vectors([square(pixels(path), 16) for path in every]) @ vectors([best.generated])[0]
    assert best.training.name == every[int(cosines.argmax())].name


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--checkpoint", "RUN"], 2, "--checkpoint takes its real images from --images, a folder of class folders, and no --real"),
        (["--checkpoint", "RUN", "--images", "CLASSES", "--generated", "x"], 2, "give either --checkpoint with --images, or --generated"),
        (["--generated", "CLASSES"], 2, "--generated takes its real images from --real, and no --images"),
        (["--checkpoint", "RUN", "--images", "EMPTY"], 3, "the folder holds no image"),
        (["--checkpoint", "RUN", "--images", "CLASSES/discs"], 3, "12 images stand beside the class folders"),
        (["--checkpoint", "RUN", "--images", "ONE"], 3, "'only' is the only class"),
        (
            ["--checkpoint", "RUN", "--images", "CLASSES", "--samples-per-condition", "13"],
            3,
            "has 12 readable images where shots x samples",
        ),
        (
            ["--checkpoint", "RUN", "--images", "CLASSES", "--samples-per-condition", "3"],
            2,
            "--samples-per-condition 3: N / K = 3 samples a",
        ),
        (["--checkpoint", "EMPTY", "--images", "CLASSES"], 2, "no complete checkpoint there"),
        (
            ["--checkpoint", "RUN", "--images", "CLASSES", "--inception-weights", "absent.pth"],
            2,
            "there is no such file; download https://",
        ),
        (
            ["--checkpoint", "RUN", "--images", "CLASSES", "--encoder", "dinov2"],
            2,
            "--encoder dinov2: no such encoder, the nearest is dinov2",
        ),
        (["--checkpoint", "RUN", "--images", "CLASSES", "--training", "EMPTY"], 3, "--training"),
        (["--generated", "CLASSES", "--real", "EMPTY"], 3, "--real"),
        (["--generated", "BROKEN", "--real", "CLASSES"], 3, "none of 1 images can be read"),
        (["--generated", "CLASSES", "--real", "CLASSES"], 3, "give --size, the side in pixels to crop all images to"),
        (["--generated", "CLASSES", "--real", "ONE", "--size", "16"], 3, "more than --neighbours 3 each are needed"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    flags: list[str], code: int, says: str, run: Path, draw_classes: Callable[[int], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    images = draw_classes(12)
    write_folder(tmp_path / "one" / "only", noise(5, 3))
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "broken", [])
    (tmp_path / "broken" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    names = {"RUN": run, "CLASSES": images, "EMPTY": tmp_path / "empty", "ONE": tmp_path / "one", "BROKEN": tmp_path / "broken"}
    for name, path in names.items():
        flags = [flag.replace(name, str(path)) for flag in flags]
    encoder = [] if "--encoder" in flags else ["--encoder", "builtin"]
    assert main(["evaluate", *flags, *encoder, "--output", str(tmp_path / "out"), "--steps", "2"]) == code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_class_of_too_few_readable_images_stops_before_the_first_sample(
    run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_classes(6)
    for number in range(2):
        (images / "squares" / f"{number:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    command = ["evaluate", "--checkpoint", str(run), "--images", str(images), "--samples-per-condition", "5", *QUICK]
    assert main([*command, "--output", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert "class 'squares' has 4 usable images where shots x samples-per-condition = 5 are needed (broken_image 2 (squares/00" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("shots", 0), ("samples_per_condition", 0), ("guidance", ()), ("guidance", (-0.5,)), ("guidance", (0.5, 0.5)), ("steps", 0),
        ("interpolation", -0.1), ("neighbours", 0), ("size", 4), ("seed", -1), ("batch_size", 0),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^--{setting.replace('_', '-')} "):
        EvaluateConfig(**{setting: value})
