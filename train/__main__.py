"""`torchrun --nproc-per-node N -m train ...`: pagepairs train in several processes."""

import sys

from train.commands import main

if __name__ == "__main__":
    sys.exit(main("train", sys.argv[1:]))
