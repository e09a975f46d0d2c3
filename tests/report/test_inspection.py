"""inspect: what it prints of every dataset, and its contact sheets."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pagepairs.manifest import read_manifest
from pipeline.contact_sheet import CAPTION_PX, GAP_PX, MARGIN_PX, SIDE_PX, Tile, draw_sheet, sheet_size
from pipeline.inspection import inspect_dataset, main, make_tiles, show_value

from .conftest import HOSTILE_URL  # noqa: TID252
