"""Two runs side by side: what changed in settings, counts and similarities, and what one run's pairs became in the other."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.files import read_json, read_parquet
from pagepairs.keys import mix, part_of, prefix64
from pagepairs.manifest import Manifest, read_manifest
from pipeline.report_cells import first_of_pair

VERDICTS = ("not a candidate", "kept", "below_low", "above_high")
_VERDICT = np.dtype([("pair", "u8"), ("run", "u1"), ("verdict", "u1")])


def stage_manifests(output: str) -> dict[str, Manifest]:
    """Returns the manifest that counts each stage.

    Raises:
      ValueError: if a dataset is not complete.
    """
    candidates = read_manifest(os.path.join(output, "candidates"))
    embeddings = f"embeddings/{candidates.counters['encoder']}"
    folders = {"scan": "images", "embed": embeddings, "pair": "episodes", "candidates": "candidates", "shard": "shards"}
    return {stage: read_manifest(os.path.join(output, folder)) for stage, folder in folders.items()}


def check_compare(path: str) -> None:
    """Looks at the run to compare with before work begins.

    Raises:
      ValueError: if it is not complete.
    """
    try:
        stage_manifests(path)
        read_json(os.path.join(path, "config.json"))
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"--compare {path}: name the --output of a complete run; {error}") from error


def spread_verdicts(file: tuple[int, str], parts: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields what became of the pairs of one file, (run 0 or 1, path in its candidates/), by part of the pair."""
    run, path = file
    table = read_parquet(path, ["page_key", "a_id", "b_id", "reason"])
    table = table.filter(pa.array(first_of_pair(table)))
    rows = np.empty(table.num_rows, _VERDICT)
    rows["pair"], rows["run"] = mix(prefix64(table["a_id"]), prefix64(table["b_id"])), run
    rows["verdict"] = pc.index_in(table["reason"], pa.array(["", *VERDICTS[2:]])).to_numpy() + 1
    owner = part_of(rows["pair"], parts)
    yield from ((int(part), rows[owner == part]) for part in np.unique(owner))


def count_changes(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """Returns how many of some pairs had which verdict in run 0 (first axis) and in run 1 (second), int64 of shape (4, 4)."""
    rows = np.concatenate([np.empty(0, _VERDICT), *pieces])
    pairs, inverse = np.unique(rows["pair"], return_inverse=True)
    verdict = np.zeros((len(pairs), 2), np.int64)
    verdict[inverse, rows["run"]] = rows["verdict"]
    changes: np.ndarray = np.bincount(verdict[:, 0] * 4 + verdict[:, 1], minlength=16).reshape(4, 4)
    return changes


def compare_runs(
    reports: tuple[Mapping[str, Any], Mapping[str, Any]],
    configurations: tuple[Mapping[str, str], Mapping[str, str]],
    counts: tuple[list[int], list[int]],
    changes: np.ndarray,
) -> dict[str, Any]:
    """Returns the part of report.json that compares this run with another.

    Args:
      reports: of both runs: output, stages and similarity, as report.json holds them.
      configurations: settings of both, by dotted name, to show.
      counts: pairs of both by hundredth of similarity, each pair once.
      changes: as `count_changes` returns it, summed.
    """
    a, b = reports
    kept = VERDICTS.index("kept")
    both = int(changes[kept, kept])
    return {
        "outputs": [a["output"], b["output"]],
        "encoders": [a["similarity"]["encoder"], b["similarity"]["encoder"]],
        "bands": [[run["similarity"]["low"], run["similarity"]["high"]] for run in reports],
        "pairs": {"both": both, "only_this": int(changes[kept].sum()) - both, "only_other": int(changes[:, kept].sum()) - both},
        "only_this_became": _became(changes[kept]),
        "only_other_became": _became(changes[:, kept]),
        "counts": list(counts),
        "stages": {stage: _stage_rows(a["stages"][stage], b["stages"][stage]) for stage in a["stages"]},
        "settings": _differences(*configurations),
    }


def _became(verdicts: np.ndarray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(VERDICTS, verdicts, strict=True) if name != "kept" and count}


def _stage_rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What came in, was kept, was an error, and every reason of either run, as {name, this, other}."""
    rows = [{"name": name, "this": a[name], "other": b[name]} for name in ("in", "kept", "errors")]
    reasons = sorted(a["dropped"].keys() | b["dropped"].keys(), key=lambda name: (-a["dropped"].get(name, 0), name))
    rows += [{"name": name, "this": a["dropped"].get(name, 0), "other": b["dropped"].get(name, 0)} for name in reasons]
    return [row for row in rows if row["this"] or row["other"] or row["name"] != "errors"]


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> list[dict[str, str]]:
    names = [*a, *(name for name in b if name not in a)]
    return [{"name": name, "this": a.get(name, "–"), "other": b.get(name, "–")} for name in names if a.get(name) != b.get(name)]
