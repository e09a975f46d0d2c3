"""Stage pair, step copies: every image with the one that stands for it, and how many each rule found."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.files import read_arrow
from pagepairs.records import COPIES
from pipeline.journal import Outcome
from pipeline.pair_job import PairJob


class Copies:
    """Writes the captures of one part with the images that stand for them after `stars`, and the map of copies."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int) -> Outcome:
        job = self._job
        captures = apply_stars(read_arrow(job.path("canonical", part)), job.read_range("stars", part))
        job.write("captures", part, captures.drop_columns(["rule"]))
        job.meter.add(1)
        return Outcome(files={"copies": [job.write_final("copies", part, copies_of(captures))]})


def apply_stars(captures: pa.Table, stars: pa.Table | None) -> pa.Table:
    """Returns the captures with the images that stand for them after `stars`, and those removed that are near copies of a removed one.

    Args:
      captures: what `canonical` left in one part.
      stars: rows of STARS for that part.

    Returns:
      The captures with `rule`: what made each a copy of the image that stands for it, "" where it stands for itself.
    """
    rule = pc.if_else(pc.equal(captures["image_id"], captures["canonical_id"]), "", "equal_hash")
    if stars is None or stars.num_rows == 0:
        return captures.append_column("rule", rule)
    row = pc.index_in(captures["canonical_id"], stars["canonical_id"])
    told = pc.fill_null(stars["detail"].take(row), "")
    copy = pc.and_(pc.not_equal(told, ""), pc.equal(captures["reason"], ""))
    rule = pc.if_else(pc.equal(rule, ""), pc.fill_null(stars["rule"].take(row), ""), rule)
    columns = {"canonical_id": pc.coalesce(stars["stands_id"].take(row), captures["canonical_id"])}
    columns |= {"reason": pc.if_else(copy, "copy_removed", captures["reason"]), "detail": pc.if_else(copy, told, captures["detail"])}
    for name, column in columns.items():
        captures = captures.set_column(captures.schema.get_field_index(name), name, column)
    return captures.append_column("rule", rule)


def copies_of(captures: pa.Table) -> pa.Table:
    """Returns rows of COPIES: each image once that another one stands for, in the order of their ids."""
    copies = captures.filter(pc.not_equal(captures["rule"], "")).select(COPIES.names)
    return copies.group_by(COPIES.names).aggregate([]).select(COPIES.names).sort_by("image_id").cast(COPIES)


def count_duplicates(images: Mapping[str, int], stars: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the captures by the rule that made them copies; these and `kept` add up to `captures`.

    Args:
      images: counts of `canonical`.
      stars: counts of `stars`.
    """
    counts = {"captures": images["captures"], "exact_copy": images["captures"] - images["distinct"]}
    counts |= {"equal_hash": images["distinct"] - images["canonical"]} | {rule: stars[rule] for rule in ("near_hash", "near_embedding")}
    kept = {"kept": images["canonical"] - stars["near_hash"] - stars["near_embedding"], "near_pairs": stars["near_pairs"]}
    return counts | kept | {"groups": stars["groups"], "components": stars["components"]}
