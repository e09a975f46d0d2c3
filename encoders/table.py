"""The one table of encoders: names, sizes, licences, similarity bands. It imports no encoder's library."""

import difflib
import os
from dataclasses import dataclass

_TFLITE, _SSCD = "tflite:PATH", "sscd:PATH"
_FILES = (_TFLITE, _SSCD)
"""Encoders that are named by their file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The cosine similarities of pairs that are related but not near-duplicates."""

    low: float
    high: float
    source: str
    """Where the two numbers come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of an encoder before it is loaded; 0 stands for what only the network's file tells."""

    module: str
    """Where its `load` is."""
    hub: str = ""
    """Repository of the published weights; empty where there are none to fetch."""
    width: int
    """D, the length of a vector."""
    input_size: int
    """Side in pixels of the square images it was made for, or is used with by default."""
    patch: int = 0
    """Side of a patch in pixels; every multiple of it is a valid input size. 0: the size is fixed."""
    choices: tuple[str, ...] = ("device", "dtype", "compile", "input_size", "engine")
    """The settings that it takes its share of where several encoders run side by side; the others are not meant for it."""
    parameters: int
    """Numbers in the part of the network that runs here."""
    licence: str
    """Of the published weights."""
    band: Band | None = None
    """None where nobody has published or measured both cuts."""
    note: str = ""
    """What is known where `band` is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an encoder is loaded; `encoders.load_encoder` says what the fields mean."""

    weights: str = ""
    device: str = "auto"
    threads: int = 0
    dtype: str = "auto"
    compile: bool = False
    input_size: int = 0
    engine: str = "torch"

    def __post_init__(self) -> None:
        for flag, value, known in (
            ("device", self.device, ("auto", "cpu", "cuda")),
            ("dtype", self.dtype, ("auto", "float32", "bfloat16")),
            ("engine", self.engine, ("torch", "openvino")),
        ):
            if value not in known:
                raise ValueError(f"--{flag} {value}: give {', '.join(known[:-1])} or {known[-1]}")
        if self.input_size < 0:
            raise ValueError(f"--input-size {self.input_size}: give 0 (the encoder's own) or a number of pixels")
        if self.engine == "openvino" and self.compile:
            raise ValueError("--compile True: OpenVINO compiles by itself; leave the flag out, or give --engine torch")


def refuse_torch_settings(spec: str, settings: Settings) -> None:
    """Raises ValueError for a setting that only networks in torch have."""
    plain = Settings()
    for flag, value, unset in (
        ("dtype", settings.dtype, plain.dtype),
        ("compile", settings.compile, plain.compile),
        ("input-size", settings.input_size, plain.input_size),
        ("engine", settings.engine, plain.engine),
    ):
        if value != unset:
            raise ValueError(f"--{flag} {value}: {spec} has no such choice; leave the flag out")
    if settings.device == "cuda":
        raise ValueError(f"--device cuda: {spec} runs on the CPU only; leave the flag out")


_PAPER = Band(low=0.3, high=0.9, source="paper: arXiv 2405.14857, DINOv2 CLS tokens")
_MEASURED = Band(low=0.3, high=0.9, source="measured on 154 photos of 40 recipe pages")
# arXiv 2405.14857, appendix C.
_SIGLIP_NOTE = "low 0.65, the paper's; no high cut is published"


def _dinov2(size: str, width: int, parameters: int, *, registers: bool = False) -> Entry:
    return Entry(
        module="encoders.dinov2",
        hub=f"facebook/dinov2-with-registers-{size}" if registers else f"facebook/dinov2-{size}",
        width=width,
        input_size=224,
        patch=14,
        parameters=parameters,
        licence="Apache-2.0",
        band=None if registers else _PAPER,
    )


def _dinov3(size: str, width: int, parameters: int) -> Entry:
    licence = "DINOv3 License, gated: accept it on the hub first"
    hub = f"facebook/dinov3-{size}-pretrain-lvd1689m"
    return Entry(module="encoders.dinov3", hub=hub, width=width, input_size=224, patch=16, parameters=parameters, licence=licence)


def _siglip(model: str, width: int, input_size: int, parameters: int, *, note: str = "", patch: int = 16) -> Entry:
    return Entry(
        module="encoders.siglip",
        hub=f"timm/{model}",
        width=width,
        input_size=input_size,
        patch=patch,
        parameters=parameters,
        licence="Apache-2.0",
        note=note,
    )


def _clip(model: str, width: int, patch: int, parameters: int) -> Entry:
    hub = f"timm/{model}_clip_224.openai"
    return Entry(module="encoders.clip", hub=hub, width=width, input_size=224, patch=patch, parameters=parameters, licence="MIT")


ENCODERS = {
    "builtin": Entry(module="encoders.builtin", width=338, input_size=64, choices=(), parameters=0, licence="Apache-2.0", band=_MEASURED),
    "dinov2-small": _dinov2("small", 384, 22_056_576),
    "dinov2-base": _dinov2("base", 768, 86_580_480),
    "dinov2-large": _dinov2("large", 1024, 304_368_640),
    "dinov2-giant": _dinov2("giant", 1536, 1_136_480_768),
    "dinov2-small-reg": _dinov2("small", 384, 22_058_112, registers=True),
    "dinov2-base-reg": _dinov2("base", 768, 86_583_552, registers=True),
    "dinov2-large-reg": _dinov2("large", 1024, 304_372_736, registers=True),
    "dinov2-giant-reg": _dinov2("giant", 1536, 1_136_486_912, registers=True),
    "dinov3-small": _dinov3("vits16", 384, 21_596_544),
    "dinov3-small-plus": _dinov3("vits16plus", 384, 28_692_864),
    "dinov3-base": _dinov3("vitb16", 768, 85_660_416),
    "dinov3-large": _dinov3("vitl16", 1024, 303_129_600),
    "dinov3-huge-plus": _dinov3("vith16plus", 1280, 840_592_640),
    "dinov3-7b": _dinov3("vit7b16", 4096, 6_716_035_072),
    "siglip-base": _siglip("ViT-B-16-SigLIP", 768, 224, 92_884_224, note=_SIGLIP_NOTE),
    "siglip-base-256": _siglip("ViT-B-16-SigLIP-256", 768, 256, 92_930_304, note=_SIGLIP_NOTE),
    "siglip-large": _siglip("ViT-L-16-SigLIP-256", 1024, 256, 315_956_224, note=_SIGLIP_NOTE),
    "siglip-so400m": _siglip("ViT-SO400M-14-SigLIP", 1152, 224, 427_680_704, patch=14, note=_SIGLIP_NOTE),
    "siglip2-base": _siglip("ViT-B-16-SigLIP2", 768, 224, 92_884_224),
    "siglip2-base-256": _siglip("ViT-B-16-SigLIP2-256", 768, 256, 92_930_304),
    "siglip2-large": _siglip("ViT-L-16-SigLIP2-256", 1024, 256, 315_956_224),
    "siglip2-so400m": _siglip("ViT-SO400M-14-SigLIP2", 1152, 224, 427_680_704, patch=14),
    "clip-b32": _clip("vit_base_patch32", 512, 32, 87_849_216),
    "clip-b16": _clip("vit_base_patch16", 512, 16, 86_192_640),
    "clip-l14": _clip("vit_large_patch14", 768, 14, 303_966_208),
    "mae-large": Entry(
        module="encoders.mae",
        hub="facebook/vit-mae-large",
        width=1024,
        input_size=224,
        patch=16,
        parameters=303_301_632,
        licence="CC-BY-NC-4.0 (the original release)",
    ),
    _TFLITE: Entry(module="encoders.tflite", width=0, input_size=0, choices=(), parameters=0, licence="the file's"),
    _SSCD: Entry(
        module="encoders.sscd", width=0, input_size=320, choices=("device", "dtype"), parameters=0, licence="MIT (the published files)"
    ),
}


def entry_of(spec: str) -> Entry:
    """Returns the row of an encoder.

    Raises:
      ValueError: for a name that is not in the table, naming the nearest.
    """
    kind, _, path = spec.partition(":")
    name = f"{kind}:PATH" if path else spec
    if name not in ENCODERS or spec in _FILES:
        near = difflib.get_close_matches(spec, ENCODERS, n=1, cutoff=0.0)[0]
        raise ValueError(f"--encoder {spec}: no such encoder, the nearest is {near}; there are {', '.join(ENCODERS)}")
    return ENCODERS[name]


def encoder_folder(spec: str) -> str:
    """Returns the name of the encoder's folder under embeddings/."""
    entry_of(spec)
    kind, _, path = spec.partition(":")
    return f"{kind}-{os.path.splitext(os.path.basename(path))[0]}" if path else spec


def band_of(spec: str) -> Band | None:
    """Returns the similarity band of the encoder, or None where nobody has measured one."""
    return entry_of(spec).band


def band_note(spec: str) -> str:
    """Returns what is known of an encoder's similarities that makes no whole band, or nothing."""
    return entry_of(spec).note


def encoder_list() -> str:
    """Returns the table of encoders for people: a line each, with width, input size, parameters, licence and band."""
    rows = [("encoder", "width", "pixels", "parameters", "band", "licence"), *(_row(name, entry) for name, entry in ENCODERS.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(name: str, entry: Entry) -> tuple[str, ...]:
    band = f"{entry.band.low} to {entry.band.high}, {entry.band.source.split(':')[0].split(' ')[0]}" if entry.band else entry.note or "none"
    parameters = f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "-"
    width, size = (str(entry.width), str(entry.input_size)) if entry.width else ("file's", "file's")
    return name, width, size, parameters, band, entry.licence
