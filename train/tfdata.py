"""A tf.data reader of the TFRecord shards, for people who train with TensorFlow or JAX. Nothing else here imports TensorFlow."""

from typing import Any

from pagepairs.manifest import dataset_files

_IMAGES = ("condition_image", "target_image")
_TEXTS = ("pair_id", "page_url", "condition_id", "target_id", "condition_url", "target_url")


def pairs(folder: str, *, shuffle_pairs: int = 0, seed: int = 0, decode: bool = True) -> Any:
    """Returns a tf.data.Dataset of pairs: their texts, the similarity, and both images as uint8 (H, W, 3).

    The order of shards is shuffled with the pairs where that is asked for, else it is that of the manifest. Batch and repeat it as you
    like; JPEGs are decoded accurately, so pixels equal libjpeg's own.

    Args:
      folder: shards/ of a run made with --format tfrecord.
      shuffle_pairs: pairs held for shuffling; 0 keeps the order.
      seed: of the shuffling, which tf.data repeats in another order each epoch.
      decode: whether images are decoded; their encoded bytes otherwise.

    Raises:
      ValueError: if the folder holds no complete TFRecord shards.
    """
    import tensorflow as tf

    files = dataset_files(folder)
    if not files or not all(path.endswith(".tfrecord") for path in files):
        raise ValueError(f"{folder} holds no TFRecord shards: run `pagepairs shard --format tfrecord`")
    columns = {name: tf.io.FixedLenFeature([], tf.string) for name in (*_TEXTS, *_IMAGES)} | {
        "similarity": tf.io.FixedLenFeature([], tf.float32)
    }

    def parse(record: Any) -> dict[str, Any]:
        row: dict[str, Any] = tf.io.parse_single_example(record, columns)
        return row | ({name: _decode(row[name]) for name in _IMAGES} if decode else {})

    if not shuffle_pairs:
        records = tf.data.TFRecordDataset(files)
    else:
        names = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=seed)
        records = names.interleave(tf.data.TFRecordDataset, cycle_length=4, deterministic=True).shuffle(shuffle_pairs, seed=seed)
    return records.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def _decode(body: Any) -> Any:
    """Decodes JPEG or PNG; tf.io.decode_image would choose a faster, less accurate inverse transform."""
    import tensorflow as tf

    return tf.cond(
        tf.io.is_jpeg(body),
        lambda: tf.io.decode_jpeg(body, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(body, channels=3, expand_animations=False),
    )
