"""What tests of sources share: reading an input whole, and reading its images again by reference."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pagepairs.config import ScanConfig
from pipeline.references import read_bodies
from pipeline.sources import ImageRecord, Record, SourceMap, find_units, read_unit

_DEFAULT = ScanConfig()
_DEFAULT = ScanConfig()
sys.path.insert(0, str(Path(__file__).parent))  # archives.py


@pytest.fixture
def read_all() -> Callable[..., list[Record]]:
    """Reads all units of a file, and checks that every image in place is the same when it is read by reference."""

    def read(path: Path, config: ScanConfig = _DEFAULT) -> list[Record]:
        units = find_units((str(path),), config)
        assert len({unit.name for unit in units}) == len(units)
        records = [record for unit in units for record in read_unit(unit, config)]
        images = [
            record for record in records if isinstance(record, ImageRecord) and record.length and not record.spill and not record.reason
        ]
        again = list(read_bodies([(image.source, image.offset, image.length) for image in images], SourceMap(units, "")))
        assert again == [image.body for image in images]
        return records

    return read
