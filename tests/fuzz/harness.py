"""What the fuzz targets share: seeds, files in memory, and the rules that every record keeps.

    pip install atheris
    python tests/fuzz/fuzz_warc.py -max_total_time=240 [CORPUS]

Not run by pytest: what a target finds becomes a plain test. Flags are libFuzzer's; an input that takes more than 5 s, or 2 GB, counts as a
find and is written to the current folder. Without a folder CORPUS the inputs that reached new code are forgotten at the end.
"""

import atexit
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import atheris

PACKAGES = ["pagepairs", "pipeline", "filters", "dedup", "PIL", "w3lib"]
"""Instrumented, so that new code in them counts as progress; what is not Python stays a black box."""
MAX_BYTES = 100_000


def fuzz(target: Callable[[bytes], None], seeds: Iterable[bytes], *, max_len: int = 4096) -> None:
    """Runs the target over mutations of the seeds until it fails or the time is up."""
    corpus = Path(tempfile.mkdtemp(prefix="seeds-"))
    atexit.register(shutil.rmtree, corpus, ignore_errors=True)
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    own = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    flags = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    found = own or [tempfile.mkdtemp(prefix="found-")]
    atheris.Setup([sys.argv[0], "-timeout=5", f"-max_len={max_len}", *flags, *found, str(corpus)], target)
    atheris.Fuzz()


def memory_file(suffix: str) -> Path:
    """Returns a path for the target to write its input to, in memory where the system has such a folder."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / f"crawl{suffix}"


def check_record(record: Any) -> None:
    """Every text of a record can be written, its numbers fit their columns, and an image without a reason has a body within the limit."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, str):
            value.encode("utf-8")
        elif isinstance(value, int):
            assert -(2**63) <= value < 2**64, (field.name, value)
    if hasattr(record, "body"):
        assert len(record.body) <= MAX_BYTES
        assert not (record.reason and record.body and record.reason == "too_many_bytes")
