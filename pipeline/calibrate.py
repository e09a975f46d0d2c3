"""`pagepairs calibrate`: the band of one encoder that keeps as many pairs of a run as another encoder's band does."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from encoders import band_of, encoder_folder
from filters.calibration import Cuts, Intervals, bootstrap, inside, matching_cuts, overlap, rank_correlation
from pagepairs.files import read_json, write_json
from pagepairs.manifest import find_manifest, read_manifest
from pagepairs.stores import exists
from pipeline.commands import EXIT_SETTING, fail
from pipeline.scores import MAX_PAIRS, Scored, score_pairs

_FEW_PAGES, _FEW_PAIRS = 100, 1000
_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig:
    """Which run, which encoders, which band."""

    output: str = ""
    """The --output of a run in which both encoders' vectors are complete."""
    reference: str = ""
    """The encoder whose band is known; the run's first where not given."""
    low: float | None = None
    """Lowest cosine similarity that the reference keeps; its own band where not given."""
    high: float | None = None
    """Highest cosine similarity that the reference keeps; its own band where not given."""
    encoder: str = ""
    """The encoder that gets a band."""
    pairs: int = MAX_PAIRS
    """Sampled pairs to look at, at most, whole pages by a keyed hash; 0 takes all."""
    seed: int = 0
    """Changes which pages are taken, and the resamples of the intervals."""
    write: str = ""
    """File that `pair --band` reads; OUTPUT/calibration.json where not given."""

    def __post_init__(self) -> None:
        for name in ("output", "encoder"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing; pagepairs calibrate --help says what it takes")
        if (self.low is None) != (self.high is None):
            raise ValueError("give --low and --high together")
        if self.low is not None and self.high is not None and not -1 <= self.low < self.high <= 1:
            raise ValueError(f"--low {self.low} --high {self.high}: cosines from -1 to 1, the lower first")
        if self.pairs < 0:
            raise ValueError(f"--pairs {self.pairs}: give 0 (all) or a number of pairs")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: give a number from 0 to 2**63 - 1")


def main(command: str, argv: Sequence[str]) -> int:
    """Runs `pagepairs calibrate`; returns 0, or 2 where there is nothing to calibrate with."""
    try:
        config = tyro.cli(CalibrateConfig, prog=f"pagepairs {command}", args=list(argv))
        path = config.write or os.path.join(config.output, "calibration.json")
        calibration = calibrate(config, lambda line: print(f"calibrate: {line}", file=sys.stderr, flush=True))
        write_json(path, calibration)
        print(describe(calibration))
        print(f"\n{path}: use it with  pagepairs pair --output {config.output} --band {path}")
    except (ValueError, OSError) as error:
        return fail(error, EXIT_SETTING)
    return 0


def calibrate(config: CalibrateConfig, progress: Callable[[str], None]) -> dict[str, Any]:
    """Returns what calibration.json holds.

    Raises:
      ValueError: if vectors or pairs are missing, or the reference has no band.
    """
    reference = config.reference or _first_encoder(config.output)
    folders = encoder_folder(reference), encoder_folder(config.encoder)
    _check(config, reference, folders)
    low, high = _reference_band(config, reference)
    scored = score_pairs(config.output, folders, limit=config.pairs, seed=config.seed, progress=progress)
    progress(f"cuts from {len(scored.page):,} pairs")
    cuts = matching_cuts(scored.chunks, low, high)
    progress(f"intervals from {_RESAMPLES} resamples of {_pages(scored):,} pages")
    intervals = bootstrap(scored.page, scored.similarity, low, high, resamples=_RESAMPLES, seed=config.seed)
    kept = inside(scored.similarity[0], low, high), inside(scored.similarity[1], cuts.low, cuts.high)
    digests = [read_manifest(os.path.join(config.output, "embeddings", folder)).counters["encoder"] for folder in folders]
    return {
        "schema_version": 1,
        "reference": {"folder": folders[0], "digest": digests[0], "low": low, "high": high, "kept": int(kept[0].sum())},
        "encoder": {"folder": folders[1], "digest": digests[1], "low": cuts.low, "high": cuts.high, "kept": cuts.kept},
        "intervals": {name: getattr(intervals, name) for name in ("low", "high", "jaccard", "resamples")},
        "jaccard": overlap(*kept),
        "in_both": int((kept[0] & kept[1]).sum()),
        "rank_correlation": rank_correlation(scored.similarity),
        "pairs": {"scored": cuts.pairs, "found": scored.found, "without_vector": scored.without_vector, "pages": _pages(scored)},
        "seed": config.seed,
        "notes": _notes(scored, cuts, intervals),
    }


def _pages(scored: Scored) -> int:
    return int(scored.page.max()) + 1 if len(scored.page) else 0


def _first_encoder(output: str) -> str:
    path = os.path.join(output, "config.json")
    if not exists(path):
        raise ValueError(f"--output {output} holds no run: start with `pagepairs run`")
    return str(read_json(path)["embed"]["encoder"]).split(",")[0]


def _check(config: CalibrateConfig, reference: str, folders: tuple[str, str]) -> None:
    if folders[0] == folders[1]:
        raise ValueError(f"--reference {reference} and --encoder {config.encoder} are one encoder: name two")
    missing = [folder for folder in folders if find_manifest(os.path.join(config.output, "embeddings", folder)) is None]
    if missing:
        command = f"pagepairs embed --output {config.output} --encoder {reference},{config.encoder}"
        raise ValueError(f"--output {config.output} has no complete vectors of {' and '.join(missing)}: run `{command}` first")
    if find_manifest(os.path.join(config.output, "candidates")) is None:
        raise ValueError(f"--output {config.output} has no sampled pairs: run `pagepairs pair --output {config.output}` first")


def _reference_band(config: CalibrateConfig, reference: str) -> tuple[float, float]:
    if config.low is not None and config.high is not None:
        return config.low, config.high
    band = band_of(reference)
    if band is None:
        raise ValueError(f"--reference {reference} has no similarity band of its own: give --low and --high")
    return band.low, band.high


def _notes(scored: Scored, cuts: Cuts, intervals: Intervals) -> list[str]:
    """Returns sentences on what makes the band less sure than it looks."""
    notes = []
    if _pages(scored) < _FEW_PAGES or cuts.pairs < _FEW_PAIRS:
        notes.append(f"{cuts.pairs:,} pairs of {_pages(scored):,} pages are a small sample: the intervals say how far the cuts may be off.")
    if cuts.at_least_low != cuts.wanted_at_least_low:
        more = cuts.at_least_low - cuts.wanted_at_least_low
        notes.append(f"Several pairs share the similarity of the low cut: it keeps {more:,} more than the reference does.")
    if cuts.above_high != cuts.wanted_above_high:
        fewer = cuts.wanted_above_high - cuts.above_high
        notes.append(f"Several pairs share the similarity of the high cut: it drops {fewer:,} fewer than the reference does.")
    if cuts.wanted_above_high == 0:
        notes.append("The reference drops no pair as too alike: the high cut is the highest similarity of this sample, no more.")
    if intervals.low is None:
        notes.append("Too few resamples of the pages keep a pair for the reference: there are no intervals.")
    if scored.without_vector:
        notes.append(f"{scored.without_vector:,} pairs were left out: one of the encoders has no vector of an image.")
    if len(scored.page) + scored.without_vector < scored.found:
        notes.append(f"A sample of the {scored.found:,} pairs; --pairs 0 takes all.")
    return notes


def describe(calibration: dict[str, Any]) -> str:
    """Returns a calibration for people."""
    reference, encoder, intervals = calibration["reference"], calibration["encoder"], calibration["intervals"]
    rho = calibration["rank_correlation"]

    def between(name: str) -> str:
        ends = intervals[name]
        return f"95 %: {ends[0]:.4f} to {ends[1]:.4f}" if ends else "no interval"

    return "\n".join(
        [
            f"{'encoder':<24}{'low':>9}{'high':>9}{'pairs kept':>12}",
            *(f"{side['folder']:<24}{side['low']:>9.4f}{side['high']:>9.4f}{side['kept']:>12,}" for side in (reference, encoder)),
            "",
            f"of {calibration['pairs']['scored']:,} pairs of {calibration['pairs']['pages']:,} pages",
            f"low cut    {between('low')}",
            f"high cut   {between('high')}",
            f"kept by both: {calibration['in_both']:,} pairs, Jaccard {calibration['jaccard']:.3f} ({between('jaccard')})",
            f"rank correlation of the similarities (Spearman): {'not defined' if rho is None else f'{rho:.3f}'}",
            *calibration["notes"],
        ]
    )
