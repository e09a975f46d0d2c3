"""The descriptor without weights."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders import embed_all, load_encoder
from encoders.builtin import SIZE, WIDTH, Builtin, colour_cells, edge_cells
from conftest_path import as_jpeg, read_rgb  # placeholder

