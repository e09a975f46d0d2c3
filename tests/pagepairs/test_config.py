import dataclasses
import json
import re

import pytest

from pagepairs.config import Config, EmbedConfig, PairConfig, RunConfig, ScanConfig, ShardConfig

NAN = float("nan")
# (class, setting, values just inside, values just outside, a word of the remedy)
RANGES = [
    (ScanConfig, "limit", [0, 1], [-1], "number of images"),
    (ScanConfig, "min_side_px", [16], [15, 0, -1], "16 pixels"),
    (ScanConfig, "max_aspect", [1.0, 1.5], [0.999, 0.0, NAN], "at least 1"),
    (ScanConfig, "max_pixels", [256], [255], "256 pixels"),
    (ScanConfig, "max_bytes", [1], [0], "positive number of bytes"),
    (ScanConfig, "min_texture", [0, 100], [-1, 101], "between 0 and 100"),
    (ScanConfig, "decode_timeout_s", [0.001], [0.0, -1.0, NAN], "positive number of seconds"),
    (EmbedConfig, "batch_size", [1], [0], "at least 1"),
    (PairConfig, "pairs_per_episode", [1], [0], "at least 1"),
    (PairConfig, "max_images_per_page", [2, 2048], [1, 2049], "2 to 2048"),
    (PairConfig, "max_pages_per_image", [1], [0], "at least 1"),
    (PairConfig, "max_hosts_per_image", [1], [0], "at least 1"),
    (PairConfig, "seed", [0, 2**63 - 1], [-1, 2**63], "0 to"),
    (ShardConfig, "size", [16], [15], "16 pixels"),
    (ShardConfig, "quality", [1, 100], [0, 101], "1 to 100"),
    (ShardConfig, "pairs_per_shard", [1], [0], "at least 1"),
    (RunConfig, "workers", [1], [0], "at least 1"),
    (RunConfig, "threads", [0], [-1], "number of threads"),
]


@pytest.mark.parametrize(("kind", "name", "inside", "outside", "remedy"), RANGES, ids=[entry[1] for entry in RANGES])
def test_a_value_out_of_range_names_flag_value_and_remedy(kind: type, name: str, inside: list, outside: list, remedy: str) -> None:
    for value in inside:
        assert getattr(kind(**{name: value}), name) == value
    for value in outside:
        with pytest.raises(ValueError, match=re.escape(f"--{name.replace('_', '-')} {value}: ") + f".*{re.escape(remedy)}"):
            kind(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 0.3}, r"--low 0\.3: give --low and --high together"),
        ({"high": 0.9}, r"--low None: give --low and --high together"),
        ({"low": 0.9, "high": 0.9}, r"--low 0\.9: must lie below --high 0\.9"),
        ({"low": -1.01, "high": 0.9}, r"--low -1\.01: a cosine lies between -1 and 1"),
        ({"low": 0.3, "high": 1.01}, r"--high 1\.01: a cosine lies between -1 and 1"),
        ({"low": NAN, "high": 0.9}, r"--low nan: a cosine"),
        ({"low": 0.3, "high": NAN}, r"--high nan: a cosine"),
    ],
)
def test_a_band_must_be_whole_ordered_and_of_cosines(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairConfig(**settings)


def test_the_widest_and_the_narrowest_band_are_allowed() -> None:
    assert (PairConfig(low=-1, high=1).low, PairConfig(low=0.5, high=0.5000001).high) == (-1, 0.5000001)


def test_the_defaults_work_and_are_json() -> None:
    value = json.loads(json.dumps(dataclasses.asdict(Config())))
    settings = ["columns", "format", "image_format", "pairs_per_shard", "quality", "resize", "size"]
    assert {name: sorted(group) for name, group in value.items() if name == "shard"} == {"shard": settings}
    assert (Config().pair.pairs_per_episode, Config().scan.min_side_px, Config().shard.size) == (32, 200, 256)


def test_every_flag_is_of_one_group_only() -> None:
    names = [field.name for kind in (ScanConfig, EmbedConfig, PairConfig, ShardConfig, RunConfig) for field in dataclasses.fields(kind)]
    assert len(names) == len(set(names))


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().shard.size = 3  # type: ignore[misc]
