"""Stage pair as a run sees it: what it depends on, and what it leaves behind."""

from dedup.benchmark import read_benchmarks
from encoders import encoder_folder
from pagepairs.manifest import digest_of, read_manifest
from pipeline.bands import check_calibration, deciding_encoder, find_band, find_copies_encoder
from pipeline.datasets import embedded_digests, is_complete
from pipeline.journal import merge_outcomes
from pipeline.pair import match_outcome, pair_up, parts_for, shown_settings, stage_digest
from pipeline.pair_alike import alike_parts
from pipeline.pair_copies import count_duplicates
from pipeline.pair_duplicates import near_parts, read_stars
from pipeline.pair_job import PairJob
from pipeline.pair_matches import check_encoders
from pipeline.progress import watch
from pipeline.stage import Run, forget_others, input_manifest, publish, say_rebuild, timed


def run_pair(run: Run) -> None:
    """Forms episodes, candidates and pairs.

    Raises:
      InputError: if stage scan or embed is not complete.
      ValueError: if the band or a benchmark is of other vectors.
    """
    folder = encoder_folder(deciding_encoder(run.config))
    names = ("images", "pages", "links", "aliases", "drops/scan")
    inputs = {name: input_manifest(run, name, "scan") for name in names} | {
        "embeddings": input_manifest(run, f"embeddings/{folder}", "embed")
    }
    check_calibration(run.config, folder, inputs["embeddings"].counters["encoder"])
    low, high, source = find_band(run.config)
    size_px = run.config.shard.size
    benchmarks = read_benchmarks(run.config.pair.benchmark)
    check_encoders(benchmarks, embedded_digests(run.output), run.config.run.output)
    inputs |= {f"embeddings/{b.encoder['name']}": read_manifest(run.path("embeddings", b.encoder["name"])) for b in benchmarks if b.encoder}
    copies_folder = find_copies_encoder(run.config)
    if copies_folder:
        inputs[f"embeddings/{copies_folder}"] = input_manifest(run, f"embeddings/{copies_folder}", "embed")
    digest = digest_of(
        stage_digest(run.config.pair, low=low, high=high, size_px=size_px, benchmarks=benchmarks, inputs=inputs)
        | {"encoder": inputs["embeddings"].counters["encoder"]}
    )
    datasets = ("matches", "copies", "episodes", "drops/pair", "candidates", "pairs")
    if all(is_complete(run.path(name), digest) for name in datasets):
        run.say(f"pair: kept, {read_manifest(run.path('pairs')).rows:,} pairs")
        return
    say_rebuild(run, "pair", "pairs", digest)
    work = run.work(f"pair-{digest[:16]}")
    forget_others(run, "pair-", work)
    with timed(run, "pair"):
        parts = parts_for(inputs["images"], inputs["links"])
        steps = 10 * parts + near_parts(parts) + (2 * parts + alike_parts(parts) if copies_folder else 0)
        with watch(run.progress, "pair", steps, "part") as meter:
            job = PairJob(
                output=run.output,
                work=work,
                config=run.config.pair,
                encoder_folder=folder,
                low=low,
                high=high,
                size_px=size_px,
                parts=parts,
                meter=meter,
                benchmarks=tuple(benchmarks),
                copies_folder=copies_folder,
            )
            journals = pair_up(job, run.options)
        copies, pages, pairs = (merge_outcomes(journals[phase].read_parts(parts)) for phase in ("copies", "episodes", "pairs"))
        images = merge_outcomes(journals["canonical"].read_parts(parts)).counters
        histogram = {"low": -1.0, "high": 1.0, "counts": pairs.counters.pop("histogram")}
        found = {"encoder": folder, "band": {"low": low, "high": high, "source": source}, "histogram": histogram}
        found["settings"] = shown_settings(run.config.pair, benchmarks)
        matched = match_outcome(job, input_manifest(run, "units", "scan").rows)
        images_by = merge_outcomes(journals["appear"].read_parts(parts)).counters
        most = {"pages": run.config.pair.max_pages_per_image, "hosts": run.config.pair.max_hosts_per_image}
        appearances = {name: {"most": most[name], "images": images_by[name]} for name in most}
        duplicates = count_duplicates(images, read_stars(job, journals))
        counters = {
            "matches": matched.counters,
            "episodes": pages.counters | {"duplicates": duplicates, "appearances": appearances},
            "candidates": pairs.counters | found,
        }
        publish(run, work, digest, [matched, copies, pages, pairs], datasets, counters)
    run.say(
        f"pair: {pages.counters['episodes']:,} episodes, {pairs.counters['in']:,} candidates, "
        f"{pairs.counters['pairs']:,} pairs between {low} and {high}"
    )
