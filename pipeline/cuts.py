"""Where long files are cut into units: a job before scan, a task a file, as finding the records of an archive means to inflate all of it.

The cuts of a file are kept in its journal under the file's name, size and time, so that no later run reads it for them again.
"""

import hashlib
import json
from collections.abc import Sequence

from pagepairs.config import ScanConfig
from pipeline.jobs import run_tasks
from pipeline.journal import Journal, Outcome
from pipeline.progress import Meter, watch
from pipeline.sources import CrawlFile, ScanUnit, find_pieces, frames, sort_units
from pipeline.sources.records import safe_text
from pipeline.stage import Run

CUTS = "cuts"
"""In the folder for what is not a dataset; outlives --rebuild, as it depends on the crawl only."""
_VERSION = 2  # of the way files are cut, and of what is kept


def cut_crawl(run: Run, files: Sequence[CrawlFile]) -> list[ScanUnit]:
    """Returns the units of all files; the long ones that no run has cut before are read once."""
    units, uncut = known_units(files, run.work(CUTS))
    if uncut:
        run.say(f"scan: {len(uncut):,} files above {frames.CUT_BYTES:,} bytes are read once, to be cut into units")
        with watch(run.progress, "cuts", sum(file.bytes for file in uncut), "B") as meter:
            work = FindCuts(run.config.scan, frames.CUT_BYTES, meter)
            run_tasks("cuts", {_name(file): file for file in uncut}, work, Journal(run.work(CUTS)), run.options)
        units, uncut = known_units(files, run.work(CUTS))
        assert not uncut
    return units


def known_units(files: Sequence[CrawlFile], folder: str) -> tuple[list[ScanUnit], list[CrawlFile]]:
    """Returns the units of all files, and the long files among them that are still to be cut, which count as one unit or a few here.

    Args:
      files: of the inputs, looked at.
      folder: where cuts are kept.
    """
    journal = Journal(folder)
    finished = journal.finished() if any(file.long for file in files) else set()
    names = [_name(file) for file in files if file.long]
    known = [name for name in names if name in finished]
    pieces = {name: outcome.counters["pieces"] for name, outcome in zip(known, journal.read_all(known), strict=True)}
    units = (unit for file in files for unit in file.units(pieces.get(_name(file)) if file.long else None))
    return sort_units(units), [file for file in files if file.long and _name(file) not in finished]


class FindCuts:
    """Cuts one file: the task function of the job."""

    def __init__(self, config: ScanConfig, cut_bytes: int, meter: Meter) -> None:
        self._config, self._cut_bytes, self._meter = config, cut_bytes, meter

    def __call__(self, file: CrawlFile) -> Outcome:
        pieces = find_pieces(file.found, self._config, self._cut_bytes)
        self._meter.add(file.bytes)
        return Outcome(counters={"source": safe_text(file.found.source), "pieces": [list(piece) for piece in pieces]})


def _name(file: CrawlFile) -> str:
    key = [_VERSION, file.found.kind, file.found.source, file.version, frames.CUT_BYTES]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
