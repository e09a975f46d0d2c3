"""Small crawls for stage pair, and the stage run for real on Beam's in-process runner."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # small_crawl and slow_pair: modules beside the tests
