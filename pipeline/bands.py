"""Which encoder decides the pairs, and between which similarities: its own band, --low and --high, or a calibration."""

from collections.abc import Mapping
from typing import Any

from encoders import band_note, band_of, encoder_folder
from pagepairs.config import Config
from pagepairs.files import read_json
from pipeline.models import difference


def read_calibration(path: str) -> dict[str, Any]:
    """Returns what `pagepairs calibrate` wrote.

    Raises:
      ValueError: if the file is absent or something else.
    """
    try:
        value = read_json(path)
        band = value["encoder"]
        if not (isinstance(band["folder"], str) and isinstance(band["digest"], dict) and -1 <= band["low"] <= band["high"] <= 1):
            raise ValueError("its band is no band")
    except OSError as error:
        raise ValueError(f"--band {path}: {error.strerror}; pagepairs calibrate writes it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--band {path} is no calibration.json ({error}); pagepairs calibrate writes it") from error
    calibration: dict[str, Any] = value
    return calibration


def deciding_encoder(config: Config) -> str:
    """Returns the encoder whose similarities decide: the first, or that of the calibration.

    Raises:
      ValueError: if the calibration's encoder is none of this run.
    """
    if not config.pair.band:
        return config.embed.encoders[0]
    folder = read_calibration(config.pair.band)["encoder"]["folder"]
    for spec in config.embed.encoders:
        if encoder_folder(spec) == folder:
            return spec
    raise ValueError(f"--band {config.pair.band} is of {folder}, this run has --encoder {config.embed.encoder}: embed with {folder} first")


def find_band(config: Config) -> tuple[float, float, str]:
    """Returns low, high and where they come from.

    Raises:
      ValueError: if neither a calibration, --low/--high nor the encoder give a band.
    """
    spec = deciding_encoder(config)
    if config.pair.band:
        calibration = read_calibration(config.pair.band)
        band, reference = calibration["encoder"], calibration["reference"]
        return band["low"], band["high"], f"calibrated: {reference['folder']} {reference['low']:.4g} to {reference['high']:.4g}"
    if config.pair.low is not None and config.pair.high is not None:
        return config.pair.low, config.pair.high, "--low and --high"
    band_here = band_of(spec)
    if band_here is None:
        known = f" ({band_note(spec)})" if band_note(spec) else ""
        raise ValueError(
            f"--encoder {spec} has no similarity band of its own{known}: give --low and --high (try --low 0.3 --high 0.9, then read the "
            "histogram in the report), or --band FILE from `pagepairs calibrate`, which finds it from another encoder's"
        )
    return band_here.low, band_here.high, band_here.source


def find_copies_encoder(config: Config) -> str:
    """Returns the folder under embeddings/ of the vectors that --copy-cosine compares, "" without it.

    Raises:
      ValueError: if the run does not embed with that encoder, or the cut lies inside the band of the same vectors.
    """
    cut, asked, deciding = config.pair.copy_cosine, config.pair.copy_encoder, deciding_encoder(config)
    if cut is None:
        return ""
    if asked and asked not in config.embed.encoders:
        raise ValueError(f"--copy-encoder {asked}: this run has --encoder {config.embed.encoder}; embed with both (--encoder RUN,{asked})")
    high = find_band(config)[1]
    if asked in ("", deciding) and cut <= high:
        raise ValueError(f"--copy-cosine {cut:g} lies in the band, which ends at {high:g}: give more, or a lower --high")
    return encoder_folder(asked or deciding)


def check_calibration(config: Config, folder: str, digest: Mapping[str, str]) -> None:
    """Refuses a calibration of other vectors than the encoder's that decides.

    Raises:
      ValueError: naming what differs.
    """
    if not config.pair.band:
        return
    changed = difference(read_calibration(config.pair.band)["encoder"]["digest"], digest)
    if changed:
        raise ValueError(f"--band {config.pair.band} is of another {folder} ({changed}): calibrate again with `pagepairs calibrate`")
