"""`pagepairs audit`: proves that finished pairs hold no image of a benchmark, twice: by the run's own signals, and by imagededup's."""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import tyro

from dedup.benchmark import Benchmark, check_bytes, read_benchmarks
from pagepairs.files import atomic, read_json, read_parquet, write_json
from pagepairs.keys import prefix64
from pagepairs.manifest import dataset_files, read_manifest
from pagepairs.stores import store_of
from pipeline.commands import EXIT_SETTING, fail, join_values
from pipeline.datasets import embedded_digests, work_folder
from pipeline.match_passes import MatchJob
from pipeline.pair_matches import check_encoders, find_matches
from pipeline.report_text import plain
from pipeline.runners import pipeline_options

EXIT_LEFT = 7
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What is audited."""

    output: str
    """Folder of a run with finished pairs and shards."""
    benchmark: tuple[str, ...]
    """Indexes (pagepairs benchmark build) that the pairs must hold nothing of."""
    sample: int = 1000
    """Images of the shards that imagededup looks at; 0 leaves the second opinion out."""
    cnn_weights: str = ""
    """File of torchvision's mobilenet_v3_small, for imagededup's network; empty leaves that out."""
    workers: int = 1
    """Processes on this machine."""
    seed: int = 0
    """Changes the sample."""

    def __post_init__(self) -> None:
        for name, low in (("sample", 0), ("workers", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"--{name} {getattr(self, name)}: give at least {low}")
        if not self.benchmark:
            raise ValueError("--benchmark is missing: name the index that the pairs must hold nothing of")


def main(command: str, argv: Sequence[str]) -> int:
    """Runs `pagepairs audit`; returns 0 if nothing is left, 7 if something is or was not checked, 2 for what a user can set right."""
    try:
        argv = join_values(argv, "--benchmark")
        config = tyro.cli(AuditConfig, prog=f"pagepairs {command}", args=list(argv), config=(tyro.conf.OmitArgPrefixes,))
        result = audit(config)
        path = os.path.join(config.output, "report", "audit.json")
        write_json(path, result)
    except (ValueError, OSError) as error:
        return fail(error, EXIT_SETTING)
    for line in _show(result):
        print(line)
    print(f"{'clean' if result['clean'] else 'NOT CLEAN'}; {path}")
    return 0 if result["clean"] else EXIT_LEFT


def audit(config: AuditConfig) -> dict[str, Any]:
    """Returns what audit.json holds.

    Raises:
      ValueError: if the run is not complete, or an index has other vectors than the run.
    """
    benchmarks = read_benchmarks(config.benchmark)
    check_bytes(benchmarks)
    check_encoders(benchmarks, embedded_digests(config.output), config.output)
    pairs = dataset_files(os.path.join(config.output, "pairs"))
    # One folder an audit, removed at its end: nothing of an earlier one is believed.
    work = work_folder(config.output, f"audit-{uuid.uuid4().hex}")
    try:
        only = os.path.join(work, "only.npy")
        wanted = image_prefixes(pairs)
        with atomic(only) as file:
            np.save(file, wanted)
        job = MatchJob(output=config.output, work=work, benchmarks=tuple(benchmarks), only=only)
        matches, _ = find_matches(job, pipeline_options([], config.workers))
    finally:
        store_of(work).remove_tree(work)
    rows = matches.drop_columns(["thumbnail"]).to_pylist()
    left = [row for row in rows if row["signal"]]
    survivors = sorted((row for row in rows if not row["signal"]), key=_apart)
    checked = _checked(config.output, benchmarks, wanted)
    second = _second_opinion(config, benchmarks) if config.sample else {}
    found = [row for opinion in second.values() for row in opinion["rows"] if row["found"]]
    complete = all(count == len(wanted) - (0 if name == "bytes" else checked["flat"]) for name, count in checked.items() if name != "flat")
    return {
        "pairs": read_manifest(os.path.join(config.output, "pairs")).rows,
        "images": len(wanted),
        "checked": checked,
        "benchmarks": [{"name": b.name, "content": b.content, "items": b.items, "cut": b.cut, "spec": b.spec} for b in benchmarks],
        "left": left,
        "survivors": survivors,
        "second_opinion": second,
        "clean": complete and not left and not found,
    }


def _apart(row: Mapping[str, Any]) -> tuple[str, float, str]:
    """Orders survivors: the nearest first by cosine, or by the share of bits that differ where there is none."""
    distances = [row[name] / bits for name, bits in (("phash_distance", 64), ("pdq_distance", 256)) if row[name] is not None]
    apart = sum(distances) / max(1, len(distances)) if row["similarity"] is None else -row["similarity"]
    return row["benchmark"], apart, row["image_id"]


def image_prefixes(pairs: Sequence[str]) -> np.ndarray:
    """Returns the first 64 bits of the id of every image in files of pairs/, sorted, each once; uint64."""
    found = np.empty(0, np.uint64)
    for path in pairs:
        table = read_parquet(path, ["condition_id", "target_id"])
        found = np.unique(np.concatenate([found, prefix64(table["condition_id"]), prefix64(table["target_id"])]))
    return found


def _checked(output: str, benchmarks: Sequence[Benchmark], wanted: np.ndarray) -> dict[str, int]:
    """How many images were compared by their bytes, by hash and by vectors of each encoder; and how many are flat: by bytes alone."""
    from dedup.benchmark_hashes import MIN_TEXTURE

    encoders = sorted({benchmark.encoder["name"] for benchmark in benchmarks if benchmark.encoder})
    datasets = {"hash": "images"} | {f"embedding {name}": f"embeddings/{name}" for name in encoders}
    found, flat = {}, np.zeros(len(wanted), bool)
    for signal, dataset in datasets.items():
        seen = np.zeros(len(wanted), bool)
        for path in dataset_files(os.path.join(output, dataset)):
            table = read_parquet(path, ["image_id", *(["reason", "texture"] if signal == "hash" else [])])
            table = table.filter(pc.equal(table["reason"], "")) if signal == "hash" else table
            seen |= np.isin(wanted, prefix64(table["image_id"]))
            if signal == "hash":
                flat |= np.isin(wanted, prefix64(table.filter(pc.less(table["texture"], MIN_TEXTURE))["image_id"]))
        found[signal] = seen
    counts = {"bytes": int(found["hash"].sum())} | {signal: int((seen & ~flat).sum()) for signal, seen in found.items()}
    return counts | {"flat": int(flat.sum())}


def _second_opinion(config: AuditConfig, benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    from pipeline.second_opinion import ask_hashes, ask_network, sample_images

    files = dataset_files(os.path.join(config.output, "shards"))
    crop = read_json(os.path.join(config.output, "config.json"))["shard"]["resize"] == "crop"
    images = sample_images(files, config.sample, config.seed)
    opinions = {"imagededup PHash": ask_hashes(images, benchmarks, seed=config.seed, crop=crop)}
    if config.cnn_weights:
        opinions["imagededup CNN"] = ask_network(images, benchmarks, config.cnn_weights, seed=config.seed, crop=crop)
    return {name: asdict(opinion) for name, opinion in opinions.items()}


def _show(result: Mapping[str, Any]) -> Iterator[str]:
    names = ", ".join(f"{benchmark['name']} ({benchmark['items']:,} images)" for benchmark in result["benchmarks"])
    yield f"{result['pairs']:,} pairs of {result['images']:,} images against {names}"
    for signal, count in result["checked"].items():
        yield f"  {'flat, by bytes alone' if signal == 'flat' else f'compared by {signal}'}: {count:,} of {result['images']:,}"
    yield f"  left in the pairs: {len(result['left']):,}"
    yield from (_line(row) for row in result["left"][:_SHOWN])
    yield f"  nearest that stay: {len(result['survivors']):,}"
    yield from (_line(row) for row in result["survivors"][:_SHOWN])
    for name, opinion in result["second_opinion"].items():
        found = [row for row in opinion["rows"] if row["found"]]
        near = len(opinion["rows"]) - len(found)
        items = f"{opinion['items']:,} of {opinion['of_items']:,} items"
        yield f"  {name}: {opinion['images']:,} images of the shards, {items}: {len(found):,} alike, {near:,} near"
        yield from (_line(row) for row in opinion["rows"][:_SHOWN])


def _line(row: Mapping[str, Any]) -> str:
    scores = [
        f"{name.removesuffix('_distance')} {row[name]:.4g}"
        for name in ("similarity", "cosine", "phash_distance", "pdq_distance", "bits")
        if row.get(name) is not None
    ]
    where = plain(row.get("image_url", ""))
    return f"    {row['image_id'][:16]} {row['benchmark']}: {plain(row['item'])}  {', '.join(scores)}  {where}".rstrip()
