"""Files of weights: found, checked before a library reads them, downloaded. What is wrong with one is said in a sentence."""

import hashlib
import json
import os
from collections.abc import Sequence

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError

from encoders.table import entry_of

_POINTER = b"version https://git-lfs"


def find(folder: str, names: Sequence[str]) -> str:
    """Returns the first of the files that the folder has, checked.

    Raises:
      ValueError: if it has none, or the file is no whole file of weights.
    """
    if not os.path.exists(folder):
        raise ValueError(f"--encoder-weights {folder}: there is no such folder or file")
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            check(path)
            return path
    raise ValueError(f"--encoder-weights {folder}: there is no {' or '.join(names)} in that folder")


def check(path: str) -> None:
    """Checks what a look at the file's ends can tell.

    Raises:
      ValueError: for a pointer of Git LFS, an empty file, or a safetensors file of another length than its header says.
    """
    with open(path, "rb") as file:
        start = file.read(64)
    size = os.path.getsize(path)
    if start.startswith(_POINTER):
        raise ValueError(f"--encoder-weights: {path} is a pointer of Git LFS, not the weights; run 'git lfs pull' in its repository")
    if not size:
        raise ValueError(f"--encoder-weights: {path} is empty; fetch it again")
    if path.endswith(".safetensors") and size != (whole := _safetensors_size(path, start)):
        raise ValueError(f"--encoder-weights: {path} is broken, {size} bytes where its header says {whole}; fetch it again")


def _safetensors_size(path: str, start: bytes) -> int:
    """Returns the length that the file should have, 0 if its header is none."""
    header = int.from_bytes(start[:8], "little")
    if header > min(100_000_000, os.path.getsize(path)):
        return 0
    with open(path, "rb") as file:
        file.seek(8)
        try:
            tensors = json.loads(file.read(header))
            last = max(entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__")
            return 8 + header + int(last)
        except (ValueError, TypeError, KeyError, AttributeError):
            return 0


def sha256_of(paths: Sequence[str]) -> str:
    """Returns the sha256 of the files, one after the other."""
    whole = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                whole.update(block)
    return whole.hexdigest()


def refuse_differences(where: str, name: str, differences: Sequence[str]) -> None:
    """Raises ValueError with the first two differences between a checkpoint and the network, if there are any."""
    if differences:
        first = "; ".join(differences[:2])
        raise ValueError(f"--encoder-weights {where} does not fit --encoder {name}: {first} ({len(differences)} differences in all)")


def download(name: str, files: Sequence[str]) -> str:
    """Returns the folder of the published weights, from the hub or its local cache.

    Raises:
      ValueError: if they are in neither, or their licence was not accepted.
    """
    hub = entry_of(name).hub
    try:
        return snapshot_download(hub, allow_patterns=list(files))
    except GatedRepoError as error:
        raise ValueError(
            f"--encoder {name}: {hub} is gated; accept its licence at https://huggingface.co/{hub}, run 'hf auth login', and try again"
        ) from error
    except OSError as error:
        raise ValueError(
            f"--encoder {name}: the weights are neither on this machine nor could they be downloaded; run "
            f"'hf download {hub} --local-dir {name}' where there is a network and give "
            f"--encoder-weights {name}, or use --encoder builtin, which needs none"
        ) from error
