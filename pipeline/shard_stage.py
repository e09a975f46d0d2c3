"""Stage shard as a run sees it: what it depends on, and what it leaves behind."""

import dataclasses
import os

from pagepairs.manifest import Manifest, dataset_files, digest_of, read_manifest
from pagepairs.records import SCHEMA_VERSION
from pipeline.card import most_common_hosts, write_card
from pipeline.datasets import is_complete
from pipeline.jobs import count_parts
from pipeline.journal import merge_outcomes
from pipeline.progress import watch
from pipeline.shard import ShardJob, count_shards, vector_files, write_shards
from pipeline.stage import Run, forget_others, input_manifest, publish, say_rebuild, timed


def run_shard(run: Run) -> None:
    """Writes the shards and their card.

    Raises:
      InputError: if stage pair is not complete, or embed where embeddings are asked for.
    """
    pairs, candidates = input_manifest(run, "pairs", "pair"), input_manifest(run, "candidates", "pair")
    config = run.config.shard
    vectors = input_manifest(run, f"embeddings/{candidates.counters['encoder']}", "embed") if "embeddings" in config.columns else None
    settings = dataclasses.asdict(config) | {"columns": sorted(set(config.columns))}
    digest = digest_of([SCHEMA_VERSION, settings, pairs.content, vectors.content if vectors else ""])
    datasets = ("shards", "drops/shard")
    if all(is_complete(run.path(name), digest) for name in datasets):
        run.say(f"shard: kept, {len(read_manifest(run.path('shards')).files):,} shards")
    else:
        say_rebuild(run, "shard", "shards", digest)
        with timed(run, "shard"):
            _make_shards(run, digest, pairs, vectors)
    write_card(run.output, run.config)


def _make_shards(run: Run, digest: str, pairs: Manifest, vectors: Manifest | None) -> None:
    config, work = run.config.shard, run.work(f"shard-{digest[:16]}")
    forget_others(run, "shard-", work)
    shards = count_shards(pairs.rows, config.pairs_per_shard)
    with watch(run.progress, "shard", 2 * pairs.rows, "img") as meter:
        job = ShardJob(
            folder=os.path.join(work, "final"),
            work=work,
            scan=run.config.scan,
            shard=config,
            shards=shards,
            parts=count_parts(2 * pairs.rows),
            threads=run.threads,
            vectors=None if vectors is None else vector_files(run.path(vectors.dataset)),
            locate=run.locate,
            meter=meter,
        )
        journal = write_shards(dataset_files(run.path("pairs")), job, run.options)
    outcomes = journal.read_parts(shards)
    hosts = most_common_hosts(outcome.counters.pop("hosts") for outcome in outcomes)
    outcome = merge_outcomes(outcomes)
    counters = {"shards": outcome.counters | {"format": config.format, "hosts": hosts}}
    publish(run, work, digest, [outcome], ("shards", "drops/shard"), counters)
    run.say(f"shard: {outcome.counters['kept']:,} pairs in {shards:,} shards of {config.size} px")
