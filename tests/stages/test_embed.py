import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2

from encoders import load_encoder
from pagepairs.config import Config, EmbedConfig, RunConfig
from pagepairs.manifest import read_dataset, read_manifest
from pipeline.embed import Embed, resource_hints, write_vectors
from pipeline.embed_unit import EmbedJob, Target, embed_unit
from pipeline.journal import Journal
from pipeline.models import Models, check_worker, here_and_there
from pipeline.progress import Meter
from pipeline.run import run_stages

Photo = Callable[..., None]
Settings = Callable[..., Config]
CLUSTER = PipelineOptions(["--runner=FlinkRunner"])
SMALL = {"batch_size": 4, "input_size": 28}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two random networks of DINOv2's smallest shape."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    folders = {}
    for name, seed in (("first", 0), ("second", 1)):
        torch.manual_seed(seed)
        config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
        folders[name] = str(tmp_path_factory.mktemp(name))
        Dinov2Model(config).save_pretrained(folders[name])
    return folders


@pytest.fixture
def crawl(tmp_path: Path, photo: Photo) -> Path:
    """Two pages, each a unit, of five and two photos; one photo stands on both."""
    for page, seeds in (("one", (1, 2, 3, 4, 5)), ("two", (6, 1))):
        for seed in seeds:
            photo(tmp_path / "in" / page / f"{seed}.jpg", seed)
    return tmp_path / "in"


def run(config: Config, *stages: str) -> list[str]:
    said: list[str] = []
    run_stages(config, stages or ("scan", "embed"), said.append)
    return said


def at(config: Config, output: Path, embed: EmbedConfig, **run_settings: Any) -> Config:
    return dataclasses.replace(config, embed=embed, run=RunConfig(output=str(output), **({"threads": 2} | run_settings)))


def embedded(output: Path, folder: str) -> dict[str, str]:
    """The sha256 of every file of an encoder's datasets, manifests included."""
    paths = [path for name in (f"embeddings/{folder}", f"drops/embed-{folder}") for path in (output / name).iterdir()]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def notes(output: Path) -> dict[str, Any]:
    encoders: dict[str, Any] = json.loads((output / "run.json").read_text())["stages"]["embed"]["encoders"]
    return encoders


def test_two_encoders_in_one_pass_leave_what_two_runs_leave(tmp_path: Path, crawl: Path, settings: Settings, weights: dict) -> None:
    (crawl / "one" / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    both = EmbedConfig(encoder="builtin,dinov2-small", encoder_weights=f",{weights['first']}", **SMALL)
    run(at(settings(), tmp_path / "both", both))
    run(at(settings(), tmp_path / "alone", EmbedConfig(encoder="builtin", batch_size=4)))
    said = run(at(settings(), tmp_path / "alone", EmbedConfig(encoder="dinov2-small", encoder_weights=weights["first"], **SMALL)))
    assert said[0].startswith("scan: kept")
    for folder, width in (("builtin", 338), ("dinov2-small", 384)):
        assert embedded(tmp_path / "both", folder) == embedded(tmp_path / "alone", folder)
        manifest = read_manifest(str(tmp_path / "both" / "embeddings" / folder))
        assert manifest.counters["encoder"]["name"] == folder
        counts = {name: manifest.counters[name] for name in ("in", "kept", "dropped", "errors")}
        assert counts == {"in": 6, "kept": 6, "dropped": {}, "errors": 0}
        vectors = np.array(read_dataset(str(tmp_path / "both" / "embeddings" / folder))["embedding"].to_pylist(), np.float64)
        assert vectors.shape == (6, width)
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    assert sorted(notes(tmp_path / "both")) == ["builtin", "dinov2-small"]
    assert notes(tmp_path / "both")["dinov2-small"]["images"] == 6


def test_a_second_encoder_is_added_to_a_run_and_the_first_is_kept(tmp_path: Path, crawl: Path, settings: Settings, weights: dict) -> None:
    run(at(settings(), tmp_path / "out", EmbedConfig(encoder="builtin", batch_size=4)))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "embeddings" / "builtin").iterdir()}
    both = EmbedConfig(encoder="builtin,dinov2-small", encoder_weights=f",{weights['first']}", **SMALL)
    said = run(at(settings(), tmp_path / "out", both))
    assert said[1:3] == ["embed: kept, 6 vectors of builtin", "embed: 2 of 2 units were embedded before by builtin and are kept"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(notes(tmp_path / "out")) == ["builtin", "dinov2-small"]


def test_a_unit_that_one_encoder_has_left_is_finished_for_the_other(tmp_path: Path, crawl: Path, settings: Settings, weights: dict) -> None:
    """As a kill between the two journals of a unit leaves it."""
    both = EmbedConfig(encoder="builtin,dinov2-small", encoder_weights=f",{weights['first']}", **SMALL)
    run(at(settings(), tmp_path / "out", both))
    wanted = {folder: embedded(tmp_path / "out", folder) for folder in ("builtin", "dinov2-small")}
    unit = read_manifest(str(tmp_path / "out" / "units")).files[0].name
    journal = next(path for path in (tmp_path / "out" / ".work").glob("embed-*/*.json") if "dinov2" in path.read_text())
    (tmp_path / "out" / ".work" / journal.parent.name / f"{unit.removesuffix('.parquet')}.json").unlink()
    for name in (unit, "manifest.json"):
        (tmp_path / "out" / "embeddings" / "dinov2-small" / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "embeddings").glob("*/*")}
    said = run(at(settings(), tmp_path / "out", both))
    assert "embed: 1 of 2 units were embedded before by dinov2-small and are kept" in said
    assert {folder: embedded(tmp_path / "out", folder) for folder in wanted} == wanted
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_units_of_a_bundle_that_is_tried_again_are_not_embedded_again(
    tmp_path: Path, crawl: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    builtin = EmbedConfig(encoder="builtin", batch_size=4)
    run(at(settings(), tmp_path / "once", builtin))
    twice = dataclasses.replace(at(settings(), tmp_path / "twice", builtin), beam_args=("--direct_runner_bundle_repeat=1",))
    run(twice, "scan")
    calls: list[str] = []
    written: list[str] = []
    monkeypatch.setattr("pipeline.embed.embed_unit", lambda path, *rest: calls.append(path) or embed_unit(path, *rest))
    monkeypatch.setattr("pipeline.embed.write_vectors", lambda one, job: written.append(one.unit) or write_vectors(one, job))
    run(twice, "embed")
    units = sorted(file.name for file in read_manifest(str(tmp_path / "twice" / "units")).files)
    assert sorted(Path(path).name for path in calls) == sorted(written) == units
    assert len(units) == 2
    assert embedded(tmp_path / "twice", "builtin") == embedded(tmp_path / "once", "builtin")


def test_vectors_of_another_run_are_copied_and_the_rest_is_embedded(
    tmp_path: Path, crawl: Path, settings: Settings, weights: dict, photo: Photo
) -> None:
    encoder = EmbedConfig(encoder="builtin,dinov2-small", encoder_weights=f",{weights['first']}", **SMALL)
    run(at(settings(), tmp_path / "earlier", dataclasses.replace(encoder, encoder="dinov2-small", encoder_weights=weights["first"])))
    photo(crawl / "one" / "9.jpg", 9)
    photo(crawl / "three" / "10.jpg", 10)
    photo(crawl / "three" / "2.jpg", 2)
    again = dataclasses.replace(encoder, embeddings_from=str(tmp_path / "earlier"))
    said = run(at(settings(), tmp_path / "again", again))
    run(at(settings(), tmp_path / "fresh", encoder))
    for folder in ("builtin", "dinov2-small"):
        assert embedded(tmp_path / "again", folder) == embedded(tmp_path / "fresh", folder)
    found = {folder: (note["images"], note["reused"]) for folder, note in notes(tmp_path / "again").items()}
    assert found == {"builtin": (8, 0), "dinov2-small": (8, 6)}
    assert f"embed: 8 images, 8 vectors, dinov2-small, 6 of them copied from {tmp_path / 'earlier'}" in said


def test_two_digests_are_never_mixed(tmp_path: Path, crawl: Path, settings: Settings, weights: dict) -> None:
    encoder = EmbedConfig(encoder="dinov2-small", encoder_weights=weights["first"], **SMALL)
    run(at(settings(), tmp_path / "out", encoder))
    before = embedded(tmp_path / "out", "dinov2-small")
    other = dataclasses.replace(encoder, encoder_weights=weights["second"])
    with pytest.raises(ValueError, match=r"another dinov2-small \(weights '[0-9a-f]{64}' there, '[0-9a-f]{64}' here\).*--output"):
        run(at(settings(), tmp_path / "out", other))
    assert embedded(tmp_path / "out", "dinov2-small") == before
    larger = dataclasses.replace(encoder, input_size=42, embeddings_from=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"--embeddings-from .*another dinov2-small \(input_size '28' there, '42' here\)"):
        run(at(settings(), tmp_path / "larger", larger))
    alone = EmbedConfig(encoder="builtin", batch_size=4, embeddings_from=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"--embeddings-from .* holds no complete vectors of builtin"):
        run(at(settings(), tmp_path / "alone", alone))


class Fragile:
    """Stands in for a network that breaks on one image and gives no number for another; else the encoder builtin."""

    name, batched = "fragile", True

    def __init__(self, broken: np.ndarray, gap: np.ndarray) -> None:
        self._real = load_encoder("builtin")
        self.width, self.input_size, self.digest = self._real.width, self._real.input_size, {"name": self.name}
        self.preprocess, self.tokens = self._real.preprocess, self._real.tokens
        self._broken, self._gap = broken, gap

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        if any((image == self._broken).all() for image in batch_BHW3):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        vectors_BD = self._real.embed(batch_BHW3)
        vectors_BD[[(image == self._gap).all() for image in batch_BHW3]] = np.nan
        return vectors_BD


def test_an_image_that_one_encoder_cannot_take_is_dropped_for_that_encoder_only(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    config = settings()
    run(config, "scan")
    unit = next((tmp_path / "out" / "units").glob("*one*.parquet"), None) or max(
        (tmp_path / "out" / "units").glob("*.parquet"), key=lambda path: pq.read_metadata(path).num_rows
    )
    rows = pq.read_table(unit).to_pylist()
    builtin = load_encoder("builtin")

    def ready(row: dict[str, Any]) -> np.ndarray:
        from PIL import Image

        return builtin.preprocess(np.asarray(Image.open(crawl / row["source"])))

    job = EmbedJob(
        output=str(tmp_path / "out"),
        scan=config.scan,
        embed=config.embed,
        targets=tuple(Target(folder=name, digest={}, journal=Journal(str(tmp_path / name))) for name in ("builtin", "fragile")),
        threads=2,
        locate=lambda source: str(crawl / source),
        meter=Meter(str(tmp_path / "meter")),
    )
    (crawl / rows[0]["source"]).write_bytes(b"something else")
    models = Models([builtin, Fragile(ready(rows[1]), ready(rows[2]))])
    plain, fragile = embed_unit(str(unit), (0, 1), models, job)
    assert plain.image_ids == [row["image_id"] for row in rows[1:]]
    assert fragile.image_ids == [row["image_id"] for row in rows[3:]]
    assert [drop["reason"] for drop in plain.drops] == ["source_changed"]
    assert [drop["reason"] for drop in fragile.drops] == ["source_changed", "model_error", "not_finite"]
    assert fragile.drops[1]["detail"] == f"{rows[1]['image_id']} RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    assert (fragile.vectors_ND == plain.vectors_ND[2:]).all()
    assert (plain.vectors_ND.dtype, job.meter.total()) == (np.float16, 2 * len(rows))


@pytest.mark.slow  # three processes import torch
def test_workers_that_share_a_model_leave_the_same_bytes(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    encoder = EmbedConfig(encoder="builtin", batch_size=4)
    run(at(settings(), tmp_path / "one", encoder))
    run(at(settings(), tmp_path / "shared", dataclasses.replace(encoder, share_model=True), workers=2))
    assert embedded(tmp_path / "shared", "builtin") == embedded(tmp_path / "one", "builtin")


def environments(config: EmbedConfig, local: bool) -> dict[str, dict[str, bytes]]:
    """Resource hints of the leaves of the stage's graph, by their names."""
    job = EmbedJob(
        output="/out",
        scan=Config().scan,
        embed=config,
        targets=(Target(folder="builtin", digest={}, journal=Journal("/journal")),),
        threads=1,
        locate=str,
        meter=Meter("/meter"),
    )
    pipeline = beam.Pipeline(options=PipelineOptions([]))
    units = pipeline | "Units" >> beam.Create([("/units/a.parquet", (0,))])
    _ = units | "Balance" >> beam.Reshuffle() | "embed" >> Embed(job, local=local)
    components: beam_runner_api_pb2.Components = pipeline.to_runner_api().components
    leaves = [transform for transform in components.transforms.values() if not transform.subtransforms and transform.environment_id]
    return {leaf.unique_name: dict(components.environments[leaf.environment_id].resource_hints) for leaf in leaves}


def test_only_the_network_asks_for_a_gpu() -> None:
    config = EmbedConfig(encoder="builtin", gpu_type="nvidia-l4", gpu_count=2, gpu_driver="install-nvidia-driver:5xx", gpu_ram_gb=32)
    hints = environments(config, local=False)
    asking = {name for name, found in hints.items() if found}
    wanted = {
        "beam:resources:accelerator:v1": b"type:nvidia-l4;count:2;install-nvidia-driver:5xx",
        "beam:resources:min_ram_bytes:v1": b"32000000000",
    }
    assert all(hints[name] == wanted for name in asking)
    assert any("BatchElements" in name for name in asking)
    assert {name for name in hints if "RunInference" in name} == asking
    assert {name.split("/")[0] for name in set(hints) - asking} == {"Units", "Balance", "embed"}
    assert set(map(str, environments(config, local=True).values())) == {"{}"}
    assert resource_hints(dataclasses.replace(config, gpu_driver=""), local=False)["accelerator"] == "type:nvidia-l4;count:2"
    assert resource_hints(EmbedConfig(), local=False) == {}


def test_the_machine_that_starts_needs_no_gpu_and_workers_without_it_fail() -> None:
    promised = EmbedConfig(encoder="dinov2-small", gpu_type="nvidia-l4")
    here, there = here_and_there(promised, CLUSTER)
    assert (here.device, here.dtype, there.device, there.dtype) == ("cpu", "bfloat16", "cuda", "bfloat16")
    assert here_and_there(promised, PipelineOptions([])) == (promised, promised)
    exact = dataclasses.replace(promised, gpu_type="", device="cuda", dtype="float32")
    assert [side.dtype for side in here_and_there(exact, CLUSTER)] == ["float32", "float32"]
    plain = EmbedConfig(encoder="dinov2-small")
    assert here_and_there(plain, CLUSTER) == (plain, plain)


def test_a_gpu_of_the_services_options_is_a_promise_too() -> None:
    """But none about a network that cannot use it, or one that was asked onto the CPU."""
    served = PipelineOptions(["--runner=DataflowRunner", "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1"])
    here, there = here_and_there(EmbedConfig(encoder="builtin,dinov2-small"), served)
    assert (here.device, here.dtype, there.device, there.dtype) == ("cpu", "bfloat16", "cuda", "bfloat16")
    for config in (EmbedConfig(encoder="builtin"), EmbedConfig(encoder="dinov2-small", device="cpu")):
        assert here_and_there(config, served) == (config, config)


def test_a_worker_without_the_promised_gpu_says_so(weights: dict) -> None:
    import torch

    from pipeline.models import load_models

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    _, there = here_and_there(EmbedConfig(encoder="dinov2-small", encoder_weights=weights["first"], gpu_type="nvidia-l4"), CLUSTER)
    with pytest.raises(ValueError, match="--device cuda: torch finds no GPU here"):
        load_models(there)


def test_encoders_side_by_side_take_the_choices_that_are_meant_for_them(tmp_path: Path) -> None:
    import warnings

    import torch

    from pipeline.models import load_models

    path = tmp_path / "copies.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        network = torch.nn.Sequential(torch.nn.AvgPool2d(160), torch.nn.Flatten())
        torch.jit.trace(network, torch.zeros(1, 3, 320, 320)).save(str(path))
    models = load_models(EmbedConfig(encoder=f"builtin,sscd:{path}", device="cpu", dtype="bfloat16", input_size=224))
    digests = [described.digest for described in models.describe()]
    assert [(digest["dtype"], digest["input_size"]) for digest in digests] == [("float64", "64"), ("bfloat16", "320")]
    load_models.cache_clear()


def test_a_worker_with_another_encoder_is_refused() -> None:
    models = Models([load_encoder("builtin")])
    check_worker(models, [models.describe()[0].digest])
    with pytest.raises(
        ValueError, match=r"another builtin than the machine that started the run \(library 'numpy 1' there, 'numpy' here\)"
    ):
        check_worker(models, [models.describe()[0].digest | {"library": "numpy 1"}])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": "builtin,"}, r"--encoder builtin,: give names"),
        ({"encoder": "builtin,builtin"}, r"--encoder builtin,builtin: name each encoder once"),
        ({"encoder": "builtin,dinov2-small", "encoder_weights": "/w"}, r"--encoder-weights /w: give one for each"),
        ({"gpu_type": "nvidia-l4", "device": "cpu"}, r"--gpu-type nvidia-l4: leave it out, or --device cpu"),
        ({"gpu_count": 0}, r"--gpu-count 0: give at least 1"),
        ({"input_size": -1}, r"--input-size -1: give 0"),
    ],
)
def test_wrong_settings_say_what_to_do(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbedConfig(**wrong)
