"""Images that stand on too many pages or hosts: logos, icons, advertisements."""

import pyarrow as pa
import pyarrow.compute as pc


def count_appearances(references: pa.Table) -> pa.Table:
    """Returns `image_id`, `pages` and `hosts` of each image.

    One page under many addresses counts once, with the lowest of its hosts: session ids and mirrors make nothing boilerplate.

    Args:
      references: `image_id`, `page_set` (equal for one page under several addresses), `host`; all references of an image.
    """
    pages = references.group_by(["image_id", "page_set"]).aggregate([("host", "min")])
    counts = pages.group_by("image_id").aggregate([("page_set", "count"), ("host_min", "count_distinct")])
    return counts.rename_columns({"page_set_count": "pages", "host_min_count_distinct": "hosts"})


def boilerplate_reasons(references: pa.Table, counts: pa.Table, *, max_pages: int, max_hosts: int) -> pa.Array:
    """Returns a reason for each reference: "", boilerplate_pages or boilerplate_hosts.

    Args:
      references: `image_id`.
      counts: what `count_appearances` returned for them.
    """
    row = pc.index_in(references["image_id"], counts["image_id"])
    pages, hosts = counts["pages"].take(row), counts["hosts"].take(row)
    by_hosts = pc.if_else(pc.greater(hosts, max_hosts), "boilerplate_hosts", "")
    reasons = pc.if_else(pc.greater(pages, max_pages), "boilerplate_pages", by_hosts)
    return reasons.combine_chunks() if isinstance(reasons, pa.ChunkedArray) else reasons


def appearance_counts(numbers: pa.ChunkedArray) -> dict[str, int]:
    """Returns how many images have which number of pages (or hosts), between powers of two: {"1": 9, "2": 4, "3-4": 2}."""
    counts: dict[str, int] = {}
    for row in sorted(pc.value_counts(numbers).to_pylist(), key=lambda row: int(row["values"])):
        top = 1 << (int(row["values"]) - 1).bit_length()
        name = str(top) if top <= 2 else f"{top // 2 + 1}-{top}"
        counts[name] = counts.get(name, 0) + int(row["counts"])
    return counts
