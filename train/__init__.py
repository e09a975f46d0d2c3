"""Trains, samples and scores an image-conditioned diffusion model on pair shards. Imports neither Beam nor pipeline."""
