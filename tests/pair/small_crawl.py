"""A crawl of a few rows, written as scan and embed would leave it, and stage pair run over it."""

import hashlib
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pagepairs.config import PairConfig
from pagepairs.files import FileInfo, write_parquet
from pagepairs.keys import text_key
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import ALIASES, DROPS, IMAGES, LINKS, PAGES, embeddings_schema, rows_to_table
from pipeline.journal import Outcome, merge_outcomes, part_name
from pipeline.pair import pair_up
from pipeline.pair_job import PairJob
from pipeline.progress import Meter
from pipeline.runners import pipeline_options

Row = dict[str, Any]
SCHEMAS = {"images": IMAGES, "pages": PAGES, "links": LINKS, "aliases": ALIASES, "drops/scan": DROPS}
LOW, HIGH, SIZE_PX = 0.3, 0.9, 256


def image_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def digest_key(name: str) -> str:
    return text_key(f"digest:{name}")


@dataclass
class Crawl:
    """Rows by dataset; an image is named by a word, its URL is https://img/WORD."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in SCHEMAS})
    vectors: dict[str, np.ndarray] = field(default_factory=dict)  # float16, by image_id
    width: int = 4

    def image(self, name: str, *, url: str = "", angle: float | None = 0.0, time: int | None = 0, reason: str = "", **facts: Any) -> None:
        """Adds a capture; `angle`, in degrees, is where its vector points, None: it was not embedded."""
        url = url or f"https://img/{name}"
        row = {"image_id": image_id(name), "image_url": url, "url_key": text_key(url), "source": f"{name}.warc", "offset": 7, "length": 100}
        row |= {"bytes": 100, "width": 640, "height": 480, "format": "jpeg", "phash": int(image_id(name)[:16], 16), "pdq": b"\0" * 32}
        row |= {"texture": 100, "time": time, "digest_key": "", "reason": reason} | facts
        self.rows["images"].append(row)
        if angle is not None and not reason:
            self.vectors[row["image_id"]] = unit_vector(angle, self.width)

    def link(
        self, page: str, name: str, *, url: str = "", position: int | None = None, time: int | None = 0, reason: str = "", **facts: Any
    ) -> None:
        """Adds a reference in https://PAGE; positions count up."""
        url, page = url or f"https://img/{name}", page if ":" in page else f"https://{page}"
        count = sum(row["page_url"] == page for row in self.rows["links"])
        row = {"page_url": page, "capture": 1, "page_time": time, "image_url": url, "url_key": text_key(url), "reason": reason}
        row |= {"position": count if position is None else position, "alt": f"alt of {name}", "via": "img"} | facts
        self.rows["links"].append(row)

    def page(self, page: str, *names: str) -> None:
        """Adds references to several images."""
        for name in names:
            self.link(page, name)

    def capture(self, page: str, *, reason: str = "") -> None:
        """Adds a capture of https://PAGE that names no image."""
        self.rows["pages"].append(
            {"page_url": f"https://{page}", "time": 0, "opt_out": "", "reason": reason, "source": "p.warc", "title": ""}
        )

    def alias(self, url: str, target: str) -> None:
        key = text_key(target)
        self.rows["aliases"].append({"url": url, "url_key": text_key(url), "target": target, "target_key": key, "kind": "redirect"})

    def drop(self, name: str, reason: str, *, url: str = "") -> None:
        """Adds an image that scan dropped."""
        row = {"stage": "scan", "reason": reason, "error": False, "page_url": "", "image_url": url or f"https://img/{name}", "detail": ""}
        self.rows["drops/scan"].append(row)

    def write(self, output: Path, *, files: int, shuffle: int | None = None) -> None:
        """Writes the datasets, each in so many files, rows in a shuffled order."""
        rng = random.Random(shuffle)
        vectors = [{"image_id": name, "embedding": vector} for name, vector in self.vectors.items()]
        datasets = {**self.rows, "embeddings/test": vectors}
        for name, given in datasets.items():
            rows = list(given)
            if shuffle is not None:
                rng.shuffle(rows)
            owners = (
                [rng.randrange(files) for _ in rows] if shuffle is not None else [i * files // max(1, len(rows)) for i in range(len(rows))]
            )
            infos = [
                self._write_file(output / name, f"{i}.parquet", name, [r for r, o in zip(rows, owners, strict=True) if o == i])
                for i in range(files)
            ]
            write_manifest(str(output / name), Manifest(dataset=name, digest="", files=tuple(infos), counters={}))

    def _write_file(self, folder: Path, name: str, dataset: str, rows: list[Row]) -> FileInfo:
        if dataset in SCHEMAS:
            return write_parquet(str(folder / name), rows_to_table(rows, SCHEMAS[dataset]))
        numbers = pa.array(np.concatenate([row["embedding"] for row in rows]) if rows else np.empty(0, np.float16))
        columns = [pa.array([row["image_id"] for row in rows], pa.string()), pa.FixedSizeListArray.from_arrays(numbers, self.width)]
        return write_parquet(str(folder / name), pa.table(columns, schema=embeddings_schema(self.width)))


def unit_vector(angle: float, width: int) -> np.ndarray:
    """A unit vector in the plane of the first two axes; angles between vectors are angles of their cosine."""
    vector = np.zeros(width, np.float16)
    vector[:2] = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return vector


@dataclass(frozen=True)
class Paired:
    """What stage pair left: rows by dataset, the sha256 of each file, and the counters of its last steps."""

    rows: dict[str, list[Row]]
    hashes: dict[str, list[str]]
    outcomes: dict[str, Outcome]
    work: Path

    def drops(self) -> set[tuple[str, str, str]]:
        """(page, image, reason) of the dropped references, without the schemes."""
        return {
            (row["page_url"].removeprefix("https://"), row["image_url"].removeprefix("https://img/"), row["reason"])
            for row in self.rows["drops/pair"]
        }

    def episodes(self) -> dict[str, list[str]]:
        """URLs of the images of each page, without the schemes."""
        return {
            row["page_url"].removeprefix("https://"): [image["image_url"].removeprefix("https://img/") for image in row["images"]]
            for row in self.rows["episodes"]
        }


def pair_job(
    output: Path, work: Path, *, parts: int = 1, config: PairConfig | None = None, low: float = LOW, high: float = HIGH
) -> PairJob:
    return PairJob(
        output=str(output),
        work=str(work),
        config=config or PairConfig(),
        encoder_folder="test",
        low=low,
        high=high,
        size_px=SIZE_PX,
        parts=parts,
        meter=Meter(str(work / "progress")),
        copies_folder="test",
    )


def run_pair(
    crawl: Crawl, folder: Path, *, parts: int = 1, files: int = 1, shuffle: int | None = None, workers: int = 1, **settings: Any
) -> Paired:
    """Writes the crawl and runs the stage over it."""
    crawl.write(folder / "out", files=files, shuffle=shuffle)
    return finish_pair(pair_job(folder / "out", folder / "work", parts=parts, **settings), workers)


def finish_pair(job: PairJob, workers: int = 1) -> Paired:
    journals = pair_up(job, pipeline_options((), workers))
    outcomes = {
        phase: merge_outcomes(journals[phase].read(part_name(part, job.parts)) for part in range(job.parts))
        for phase in ("copies", "episodes", "pairs")
    }
    work, rows, hashes = Path(job.work), {}, {}
    for dataset, infos in {dataset: infos for outcome in outcomes.values() for dataset, infos in outcome.files.items()}.items():
        tables = [pq.read_table(work / "final" / dataset / info.name) for info in infos]
        assert [table.num_rows for table in tables] == [info.rows for info in infos]
        rows[dataset] = pa.concat_tables(tables).to_pylist()
        hashes[dataset] = [info.sha256 for info in infos]
    return Paired(rows, hashes, outcomes, work)
