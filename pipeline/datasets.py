"""How datasets get under their final names: in place file by file, or aside and then moved."""

import os
from collections.abc import Sequence
from typing import Any

from pagepairs.files import FileInfo
from pagepairs.manifest import Manifest, find_manifest, write_manifest
from pagepairs.stores import is_remote, names_in, store_of

CARD = "README.md"
"""What people and hubs read of a dataset; no file of the manifest, and no stray."""


def work_folder(output: str, *names: str) -> str:
    """Path of a folder for what is not a dataset: journals, what shuffles leave for each other."""
    return os.path.join(output, ".work", *names)


def complete_dataset(folder: str, dataset: str, digest: str, files: Sequence[FileInfo], counters: dict[str, Any]) -> Manifest:
    """Writes the manifest of a folder whose files are in place, and deletes files that it does not name, but for a card."""
    manifest = Manifest(dataset=dataset, digest=digest, files=tuple(sorted(files, key=lambda file: file.name)), counters=counters)
    if find_manifest(folder) != manifest:
        write_manifest(folder, manifest)
    named = {file.name for file in files} | {"manifest.json", CARD}
    for name in names_in(folder):
        if name not in named:
            store_of(folder).remove(os.path.join(folder, name))
    return manifest


def publish_dataset(aside: str, folder: str, work: str) -> None:
    """Moves a complete dataset from where it was built to its place; what stood there goes.

    A kill on the way leaves the place empty or without a manifest, and the new dataset aside, where the next run finds it.
    """
    store = store_of(folder)
    if not store.files(aside):
        return
    if not is_remote(folder) and os.path.isdir(folder):  # one rename, so that no half of the old dataset is ever seen
        old = os.path.join(work, "replaced", os.path.basename(folder))
        store.remove_tree(old)
        store.move_tree(folder, old)
        store.remove_tree(old)
    store.remove(os.path.join(folder, "manifest.json"))
    store.remove_tree(folder)
    store.move_tree(aside, folder)


def is_complete(folder: str, digest: str) -> bool:
    """Whether a dataset folder is complete under this digest."""
    manifest = find_manifest(folder)
    return manifest is not None and manifest.digest == digest


def embedded_digests(output: str) -> dict[str, dict[str, str]]:
    """Returns the digests of the encoders whose vectors of the crawl are complete, by folder name."""
    root = os.path.join(output, "embeddings")
    names = sorted({path[len(root) + 1 :].split("/")[0] for path in store_of(root).files(root)})
    manifests = {name: find_manifest(os.path.join(root, name)) for name in names}
    return {name: manifest.counters.get("encoder", {}) for name, manifest in manifests.items() if manifest is not None}
