"""Folders in an object store: how they get there, and what of an output must be the same as on this machine."""

import hashlib
from pathlib import Path

from pagepairs.files import read_bytes, write_bytes
from pagepairs.stores import store_of

# These name the version of the input file, which is a time here and a generation there, or the paths and times of the run.
OF_THE_RUN = ("config.json", "run.json", ".work/", "report/")


def upload(folder: Path, place: str) -> None:
    """Copies a folder of this machine; a copied lock would count as held."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "lock":
            write_bytes(f"{place}/{path.relative_to(folder)}", path.read_bytes())


def contents(root: str) -> dict[str, str]:
    """sha256 of every file of the datasets; manifests without the digest of their inputs."""
    found = {}
    for path in store_of(root).files(root):
        name = path[len(root) + 1 :]
        if not name.startswith(OF_THE_RUN):
            data = read_bytes(path)
            lines = [line for line in data.splitlines() if name.endswith("manifest.json") and not line.startswith(b' "digest"')]
            found[name] = hashlib.sha256(b"\n".join(lines) if lines else data).hexdigest()
    return found
