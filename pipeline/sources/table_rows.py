"""Rows of tables under the column names of this project."""

from dataclasses import dataclass
from typing import Any

COLUMNS = {
    "page_url": ("page_url", "page"),
    "image_url": ("image_url", "url"),
    "path": ("path", "image_path", "file_name"),
    "bytes": ("bytes", "image", "image_bytes", "jpg", "jpeg", "png", "webp"),
    "alt": ("alt", "caption", "text"),
    "pos": ("pos", "position"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row under the column names of COLUMNS, and where it stands: `label` for messages, `index` counts all rows."""

    label: str
    index: int
    values: dict[str, Any]
    error: str = ""  # why the row cannot be parsed


def named_columns(columns: list[str]) -> dict[str, str]:
    """Maps the keys of COLUMNS to the names in the table: the first that it has."""
    found = {name: next((other for other in others if other in columns), None) for name, others in COLUMNS.items()}
    return {name: other for name, other in found.items() if other is not None}
