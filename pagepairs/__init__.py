"""What all packages of pagepairs share: records, keys, configuration, files, manifests, images, shards."""

__version__ = "0.1.0"
