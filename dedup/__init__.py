"""Which images are the same: exact, perceptual and embedding duplicates, and which one of them stays."""
