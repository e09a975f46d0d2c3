"""What of an output in an object store must be the same as on this machine."""

import hashlib

from pagepairs.stores import store_of

# These name the version of the input file, which is a time here and a generation there, or the paths and times of the run.
OF_THE_RUN = ("config.json", "run.json", ".work/", "report/")


def contents(root: str) -> dict[str, str]:
    """sha256 of every file of the datasets; manifests without the digest of their inputs."""
    found = {}
    for path in store_of(root).files(root):
        name = path[len(root) + 1 :]
        if not name.startswith(OF_THE_RUN):
            with store_of(path).open_read(path) as file:
                data = file.read()
            lines = [line for line in data.splitlines() if name.endswith("manifest.json") and not line.startswith(b' "digest"')]
            found[name] = hashlib.sha256(b"\n".join(lines) if lines else data).hexdigest()
    return found
