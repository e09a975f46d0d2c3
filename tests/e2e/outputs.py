"""What tests read from an output folder: its bytes, its counts, and whether the rows add up to the counts."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pagepairs.manifest import read_dataset, read_manifest

# These hold paths, versions and times; design: everything else is the same bytes wherever a run stands.
_NOT_DATA = ("config.json", "run.json", "report", ".work")


def data_hashes(output: Path) -> dict[str, str]:
    """Returns the sha256 of every file that must be the same in two runs, by its path in the output."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    names = {path.relative_to(output): path for path in files}
    return {str(name): hashlib.sha256(path.read_bytes()).hexdigest() for name, path in names.items() if name.parts[0] not in _NOT_DATA}


def journal_files(output: Path) -> dict[str, tuple[int, int]]:
    """Returns inode and modification time of every journal entry: neither changes unless the task is done again."""
    entries = [path for path in (output / ".work").rglob("*.json") if path.parent != output / ".work"]
    return {str(path.relative_to(output)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in entries}


def half_written(output: Path) -> list[str]:
    """Returns the files under a final name that do not open."""
    broken = []
    for path in output.rglob("*"):
        if not path.is_file() or path.name.startswith(".tmp-"):
            continue
        try:
            if path.suffix == ".parquet":
                pq.read_table(path)
            elif path.suffix == ".json":
                json.loads(path.read_bytes())
        except (ValueError, OSError) as error:
            broken.append(f"{path}: {error}")
    return broken


def temporaries(output: Path) -> list[Path]:
    """Returns what was left half-written under a temporary name."""
    return sorted(output.rglob(".tmp-*"))


def rows(output: Path, dataset: str) -> list[dict[str, Any]]:
    """Returns the rows of a dataset; one without files (nothing was kept to embed) has none."""
    folder = str(output / dataset)
    return read_dataset(folder).to_pylist() if read_manifest(folder).files else []


def counters(output: Path, dataset: str) -> dict[str, Any]:
    """Returns what the manifest of a dataset counted."""
    return read_manifest(str(output / dataset)).counters


def drop_reasons(output: Path, stage: str) -> dict[str, int]:
    """Returns the drops of a stage by reason, counted from its rows."""
    return dict(Counter(row["reason"] for row in rows(output, f"drops/{stage}") if not row["error"]))


def pair_set(output: Path) -> set[tuple[str, str, float]]:
    """Returns every pair as condition, target and similarity."""
    return {(row["condition_id"], row["target_id"], row["similarity"]) for row in rows(output, "pairs")}


def assert_conserved(output: Path, encoder: str = "builtin") -> None:
    """Asserts for every stage that in = kept + dropped + errors, and that the rows say the same as the counters."""
    stages = {"scan": "images", "embed": f"embeddings/{encoder}", "pair": "episodes", "candidates": "candidates", "shard": "shards"}
    counts = {stage: counters(output, dataset) for stage, dataset in stages.items()}
    for stage, count in counts.items():
        assert count["in"] == count["kept"] + sum(count["dropped"].values()) + count["errors"], stage
    for stage, name in (("scan", "scan"), ("embed", f"embed-{encoder}"), ("pair", "pair"), ("shard", "shard")):
        assert drop_reasons(output, name) == counts[stage]["dropped"], stage
        assert sum(row["error"] for row in rows(output, f"drops/{name}")) == counts[stage]["errors"], stage
        assert {row["stage"] for row in rows(output, f"drops/{name}")} <= {stage}
    images, units, vectors = rows(output, "images"), rows(output, "units"), rows(output, stages["embed"])
    assert counts["scan"]["kept"] == sum(row["reason"] == "" for row in images)
    for reason in ("opt_out", "blocked"):
        assert counts["scan"]["dropped"].get(reason, 0) == sum(row["reason"] == reason for row in images)
    assert sorted(row["image_id"] for row in units) == sorted({row["image_id"] for row in images if row["reason"] == ""})
    assert (counts["embed"]["in"], counts["embed"]["kept"]) == (len(units), len(vectors))
    episodes = rows(output, "episodes")
    assert counts["pair"]["kept"] == sum(len(episode["images"]) for episode in episodes)
    ledger = Counter(row["reason"] for row in rows(output, "candidates"))
    assert counts["candidates"]["in"] == sum(ledger.values())
    assert counts["candidates"]["kept"] == ledger.pop("", 0)
    assert counts["candidates"]["dropped"] == dict(ledger)
    possible = sum(len(episode["images"]) * (len(episode["images"]) - 1) // 2 for episode in episodes)
    assert counts["pair"]["not_sampled"] == possible - counts["candidates"]["in"]
    assert sum(counts["candidates"]["histogram"]["counts"]) == counts["candidates"]["in"]
    assert counts["shard"]["in"] == len(rows(output, "pairs")) == counts["candidates"]["pairs"]
    assert counts["shard"]["kept"] == len(rows(output, "shards"))


def assert_sound(output: Path) -> None:
    """Asserts that every dataset folder holds what its manifest names, with its rows, bytes and sha256, and nothing else."""
    assert half_written(output) == []
    assert temporaries(output) == []
    manifests = list(output.rglob("manifest.json"))
    assert manifests
    for path in manifests:
        manifest = read_manifest(str(path.parent))
        documents = ["README.md"] if path.parent.name == "shards" else []
        assert {entry.name for entry in path.parent.iterdir() if entry.is_file()} == {
            "manifest.json",
            *documents,
            *(file.name for file in manifest.files),
        }
        for file in manifest.files:
            data = (path.parent / file.name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
            if file.name.endswith(".parquet"):
                assert pq.read_metadata(path.parent / file.name).num_rows == file.rows
