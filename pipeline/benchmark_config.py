"""The settings of `pagepairs benchmark build`."""

import os
from dataclasses import dataclass, field
from typing import Literal

from pagepairs.config import EmbedConfig


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is indexed, and how."""

    name: str
    """Name of the test set, as reports show it."""
    images: str
    """Folder of images (with all below it); table (.csv, .tsv, .jsonl, .parquet) with path, or phash and pdq; list of hashes (.txt)."""
    output: str
    """Folder that becomes the index; it must not exist."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    """The encoder, with the settings of the run that the images are kept out of; --encoder none for hashes alone."""
    descriptor: str = ""
    """A copy-detection descriptor in the encoder's place: sscd:PATH, the TorchScript file that Meta publishes."""
    unrelated: str = ""
    """Folder or table of unrelated images, to count false matches on; the other images of the test set where not given."""
    cut: float | None = None
    """Cosine from which on an image is a match; where not given, the descriptor's published one, or a calibrated one."""
    sample: int = 200
    """Images that are changed to calibrate with, at most."""
    index: Literal["auto", "flat", "pq", "ivf"] = "auto"
    """flat compares with everything, pq with everything at 4 bits for 4 dimensions, ivf with some cells of that; auto goes by size."""
    candidates: int = 0
    """Nearest rows that are compared again exactly; 0 takes 4 (flat) or 100."""
    nprobe: int = 0
    """Cells that an ivf looks into; 0 takes a quarter."""
    threads: int = 0
    """Decode threads; 0 takes the cores."""
    seed: int = 0
    """Changes the sample and its changes."""

    @property
    def decode_threads(self) -> int:
        """Threads that decode."""
        return self.threads or os.cpu_count() or 1

    def __post_init__(self) -> None:
        for name, low in (("sample", 1), ("candidates", 0), ("nprobe", 0), ("threads", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least {low}")
        if self.cut is not None and not -1 <= self.cut <= 1:
            raise ValueError(f"--cut {self.cut}: a cosine lies between -1 and 1")
        if not self.name.strip() or not self.name.isprintable():
            raise ValueError(f"--name {self.name!r}: give printable characters")
