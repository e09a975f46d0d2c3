"""What reaches the runner's own counters: the same numbers as report.json, for a run that was not broken off."""

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import apache_beam as beam
import pytest
from made_crawls import Response, page, picture, write_warc
from made_crawls import site as site_records
from outputs import rows

from pagepairs.cli import main

# The job whose counters are those of a stage of report.json, by its namespace.
JOBS = {"scan": "scan", "embed": "embed", "pair": "episodes", "candidates": "pairs", "shard": "shard"}


def small(url: str) -> Response:
    return Response(url=url, body=picture(1, 0, width=60, height=60))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """All counters of all jobs that run, by namespace and name, as the runner gives them."""
    found: Counter[tuple[str, str]] = Counter()
    run = beam.Pipeline.run

    def noted(pipeline: beam.Pipeline, *args: Any) -> Any:
        result = run(pipeline, *args)
        result.wait_until_finish()
        for counter in result.metrics().query()["counters"]:
            found[counter.key.metric.namespace, counter.key.metric.name] += counter.committed
        for distribution in result.metrics().query()["distributions"]:
            found[distribution.key.metric.namespace, distribution.key.metric.name] += distribution.committed.sum
        return result

    monkeypatch.setattr(beam.Pipeline, "run", noted)
    return found


def test_the_runners_counters_equal_report_json(site_run: Path, tmp_path: Path, counted: Counter[tuple[str, str]]) -> None:
    """Over a crawl with an image that is too small and one that was not crawled, and a band that half of the pairs lie in."""
    output, crawl = tmp_path / "out", tmp_path / "crawl.warc.gz"
    extra = [page("https://a.example/", ["/small.jpg", "/none.jpg"]), small("https://a.example/small.jpg")]
    write_warc(crawl, [*site_records(range(8)), *extra])
    middle = median(row["similarity"] for row in rows(site_run, "candidates"))
    settings = ["--encoder", "builtin", "--low", "0.3", "--high", str(middle)]
    assert main(["run", "--input", str(crawl), "--output", str(output), *settings]) == 0
    stages = json.loads((output / "report" / "report.json").read_text())["stages"]
    assert set(stages) == set(JOBS)
    for stage, counts in stages.items():
        namespace = JOBS[stage]
        assert counted[namespace, "in"] == counts["in"] > 0, stage
        assert counted[namespace, "kept"] == counts["kept"], stage
        assert counted[namespace, "errors"] == counts["errors"], stage
        dropped = {
            name.removeprefix("dropped_"): n for (space, name), n in counted.items() if space == namespace and name[:8] == "dropped_"
        }
        assert dropped == counts["dropped"], stage
    assert all(stages[stage]["dropped"] for stage in ("scan", "pair", "candidates"))
    for dataset, namespace in [("images", "scan"), ("embeddings/builtin", "embed"), ("shards", "shard")]:
        written = sum(path.stat().st_size for path in (output / dataset).glob("*") if path.suffix != ".json" and path.name != "README.md")
        assert counted[namespace, "bytes_written"] >= written > 0
    assert all(counted[JOBS[stage], "busy_ms"] > 0 for stage in JOBS)
    # Beam's own: one inference a unit, and the time that its images took to be read, decoded and embedded.
    assert counted["embed", "num_inferences"] == len(list((output / "units").glob("*.parquet")))
    assert counted["embed", "inference_batch_latency_micro_secs"] >= 1000 * counted["embed", "model_ms"] > 0


def test_counters_of_embed_are_those_of_the_encoder_that_decides(
    site: Path, tmp_path: Path, counted: Counter[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two encoders in one pass, of which the second decides, as with --band: either's times are those that run.json notes of it."""
    from transformers import Dinov2Config, Dinov2Model

    monkeypatch.setattr("pipeline.embed_stage.deciding_encoder", lambda config: config.embed.encoders[1])
    network = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    Dinov2Model(network).save_pretrained(tmp_path / "weights")
    output = tmp_path / "out"
    encoders = ["--encoder", "builtin,dinov2-small", "--encoder-weights", f",{tmp_path / 'weights'}", "--input-size", "28"]
    assert main(["scan", "--input", str(site), "--output", str(output)]) == 0
    counted.clear()
    assert main(["embed", "--output", str(output), *encoders]) == 0
    noted = json.loads((output / "run.json").read_text())["stages"]["embed"]["encoders"]
    for folder, namespace in [("dinov2-small", "embed"), ("builtin", "embed-builtin")]:
        assert counted[namespace, "in"] == noted[folder]["images"] == 24
        assert counted[namespace, "kept"] == 24
        for name, seconds in [("model_ms", "embedded_s"), ("waited_ms", "waited_s")]:
            assert abs(counted[namespace, name] - 1000 * noted[folder][seconds]) <= 1 + counted["embed", "num_inferences"]
        assert counted[namespace, "busy_ms"] >= counted[namespace, "model_ms"]
