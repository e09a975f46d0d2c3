"""How datasets get under their final names: in place file by file, or aside and then moved."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

from pagepairs.files import FileInfo
from pagepairs.manifest import Manifest, find_manifest, write_manifest

CARD = "README.md"
"""What people and hubs read of a dataset; no file of the manifest, and no stray."""


def work_folder(output: str, *names: str) -> str:
    """Path of a folder for what is not a dataset: journals, what shuffles leave for each other."""
    return os.path.join(output, ".work", *names)


def complete_dataset(folder: str, dataset: str, digest: str, files: Sequence[FileInfo], counters: dict[str, Any]) -> Manifest:
    """Writes the manifest of a folder whose files are in place, and deletes files that it does not name, but for a card."""
    manifest = Manifest(dataset=dataset, digest=digest, files=tuple(sorted(files, key=lambda file: file.name)), counters=counters)
    os.makedirs(folder, exist_ok=True)
    if find_manifest(folder) != manifest:
        write_manifest(folder, manifest)
    named = {file.name for file in files} | {"manifest.json", CARD}
    for entry in os.scandir(folder):
        if entry.is_file() and entry.name not in named:
            os.unlink(entry.path)
    return manifest


def publish_dataset(aside: str, folder: str, work: str) -> None:
    """Moves a complete dataset from where it was built to its place; what stood there goes.

    A kill between the two renames leaves the place empty and the new dataset aside, where the next run finds it.
    """
    if not os.path.isdir(aside):
        return
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    if os.path.isdir(folder):
        old = os.path.join(work, "replaced", os.path.basename(folder))
        shutil.rmtree(old, ignore_errors=True)
        os.makedirs(os.path.dirname(old), exist_ok=True)
        os.rename(folder, old)
        shutil.rmtree(old)
    os.rename(aside, folder)


def is_complete(folder: str, digest: str) -> bool:
    """Whether a dataset folder is complete under this digest."""
    manifest = find_manifest(folder)
    return manifest is not None and manifest.digest == digest
