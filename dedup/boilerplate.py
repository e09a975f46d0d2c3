"""Images that stand on too many pages or hosts: logos, icons, advertisements."""

import pyarrow as pa
import pyarrow.compute as pc


def boilerplate_reasons(references: pa.Table, *, max_pages: int, max_hosts: int) -> pa.Array:
    """Returns a reason for each reference: "", boilerplate_pages or boilerplate_hosts.

    Args:
      references: `image_id`, `page_url`, `host`; all references of an image.
    """
    counts = references.group_by("image_id").aggregate([("page_url", "count_distinct"), ("host", "count_distinct")])
    row = pc.index_in(references["image_id"], counts["image_id"])
    pages, hosts = (counts[f"{name}_count_distinct"].take(row) for name in ("page_url", "host"))
    by_hosts = pc.if_else(pc.greater(hosts, max_hosts), "boilerplate_hosts", "")
    reasons = pc.if_else(pc.greater(pages, max_pages), "boilerplate_pages", by_hosts)
    return reasons.combine_chunks() if isinstance(reasons, pa.ChunkedArray) else reasons
