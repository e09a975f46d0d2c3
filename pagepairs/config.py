"""The settings of the pipeline: one frozen dataclass a stage, checked when made, written to config.json before work begins."""

from dataclasses import dataclass, field
from typing import Literal


def _require(good: bool, name: str, value: object, remedy: str) -> None:
    if not good:
        raise ValueError(f"--{name.replace('_', '-')} {value}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """Which files are read and which images are kept."""

    input: tuple[str, ...] = ()
    """Files, folders of images or globs: *.warc(.gz), *.arc(.gz), *.wacz, *.tar(.gz), *.parquet, *.csv, *.tsv, *.jsonl(.gz)."""
    page_url_key: str = "page_url"
    """Key in the JSON of a tar's samples that holds the page's URL; parent-of-url takes the folder of the image's URL."""
    limit: int = 0
    """Stops after this many images; 0 reads all."""
    min_side_px: int = 200
    """Shortest side of an image that is kept."""
    max_aspect: float = 3.0
    """Longest side divided by shortest side, at most."""
    max_pixels: int = 100_000_000
    """Width times height, at most; checked before decoding."""
    max_bytes: int = 50_000_000
    """Length of an image body, at most."""
    min_texture: int = 50
    """PDQ's quality value, 0 to 100; flat images below it resemble everything."""
    decode_timeout_s: float = 60.0
    """Time to decode one image, at most."""
    isolate: bool = False
    """Decodes in child processes, one a thread: a decoder that crashes or hangs costs one image, not the job. Adds up to 9 ms an image."""
    animations: Literal["drop", "first-frame"] = "drop"
    """What becomes of animated images."""
    ignore_opt_out: bool = False
    """Keeps images and pages whose owner said noai, noimageai or tdm-reservation; they are dropped otherwise."""
    block_list: str = ""
    """File with one domain, URL or sha256 of an image a line; matches are dropped, and their copies with them."""

    def __post_init__(self) -> None:
        _require(bool(self.page_url_key), "page_url_key", self.page_url_key, "give a key of the samples' JSON, or parent-of-url")
        _require(self.limit >= 0, "limit", self.limit, "give 0 (all) or a number of images")
        _require(self.min_side_px >= 16, "min_side_px", self.min_side_px, "give at least 16 pixels")
        _require(self.max_aspect >= 1, "max_aspect", self.max_aspect, "give at least 1 (square)")
        _require(self.max_pixels >= 256, "max_pixels", self.max_pixels, "give at least 256 pixels")
        _require(self.max_bytes >= 1, "max_bytes", self.max_bytes, "give a positive number of bytes")
        _require(0 <= self.min_texture <= 100, "min_texture", self.min_texture, "PDQ's quality lies between 0 and 100")
        _require(self.decode_timeout_s > 0, "decode_timeout_s", self.decode_timeout_s, "give a positive number of seconds")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Which network turns images into vectors."""

    encoder: str = "dinov2-base"
    """A name of the table below: builtin needs neither weights nor a network; tflite:PATH takes any TFLite network. Several, with commas
    between them, read and decode every image once; the first decides the pairs."""
    encoder_weights: str = ""
    """Local checkpoint as the encoder's library saves it: a folder of transformers, a file or folder of open_clip; empty downloads.
    With several encoders one for each, in their order, with commas between them; an empty place downloads."""
    batch_size: int = 32
    """Images a forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; cuda fails where there is none."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; auto is bfloat16 on a GPU and float32 on a CPU."""
    compile: bool = False
    """Compiles the network for its batch size: a minute at the start, then a little faster."""
    engine: Literal["torch", "openvino"] = "torch"
    """What runs the network; OpenVINO is faster on a CPU and an extra to install."""
    input_size: int = 0
    """Side in pixels of the images that the network sees, a multiple of its patch; 0 is its own."""
    share_model: bool = False
    """Loads the networks once a machine and not once a worker: less memory, and every image crosses a socket (about 1 ms)."""
    embeddings_from: str = ""
    """The --output of an earlier run: vectors of images that it holds are copied, where the encoder is the same in every respect."""
    gpu_type: str = ""
    """GPU that a cluster gives to the workers that embed, and to no other (Dataflow: nvidia-l4); a worker without it fails."""
    gpu_count: int = 1
    """GPUs of each such worker."""
    gpu_driver: str = "install-nvidia-driver"
    """How such a worker gets its driver, as Dataflow writes it (install-nvidia-driver:5xx); empty where its image has one."""
    gpu_ram_gb: int = 16
    """Memory of each such worker, at least."""

    def __post_init__(self) -> None:
        _require(all(self.encoders), "encoder", self.encoder, "give names, with commas between them")
        _require(len(set(self.encoders)) == len(self.encoders), "encoder", self.encoder, "name each encoder once")
        fits = not self.encoder_weights or self.encoder_weights.count(",") == self.encoder.count(",")
        _require(fits, "encoder_weights", self.encoder_weights, f"give one for each of --encoder {self.encoder}, with commas between them")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "give at least 1")
        _require(self.input_size >= 0, "input_size", self.input_size, "give 0 (the encoder's own) or a number of pixels")
        _require(self.gpu_count >= 1, "gpu_count", self.gpu_count, "give at least 1")
        _require(self.gpu_ram_gb >= 1, "gpu_ram_gb", self.gpu_ram_gb, "give at least 1")
        _require(not self.gpu_type or self.device != "cpu", "gpu_type", self.gpu_type, "leave it out, or --device cpu")

    @property
    def encoders(self) -> tuple[str, ...]:
        """The encoders' names, the one that decides the pairs first."""
        return tuple(self.encoder.split(","))

    @property
    def weights(self) -> tuple[str, ...]:
        """A checkpoint for each encoder, "" where none is named."""
        return tuple(self.encoder_weights.split(",")) if self.encoder_weights else ("",) * len(self.encoders)


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which images of a page become pairs."""

    group_by: Literal["page", "path", "host"] = "page"
    """What an episode is: the images of one page, of one folder of a site, or of one host."""
    low: float | None = None
    """Lowest cosine similarity that is kept; the encoder's own band where not given."""
    high: float | None = None
    """Highest cosine similarity that is kept; the encoder's own band where not given."""
    band: str = ""
    """A calibration.json, as `pagepairs calibrate` writes it, in place of --low and --high; its encoder decides the pairs."""
    pairs_per_episode: int = 32
    """Unordered pairs sampled an episode, at most, uniformly and without replacement."""
    max_images_per_page: int = 128
    """Images of an episode, at most; more are sampled down before pairs are formed."""
    max_pages_per_image: int = 20
    """An image on more pages than this is boilerplate (logo, icon, advertisement) and dropped."""
    max_hosts_per_image: int = 5
    """An image on more hosts than this is boilerplate and dropped."""
    copy_cosine: float | None = None
    """Cosine from which two images anywhere in the crawl are one picture, besides near hashes; vectors are not compared where not given."""
    copy_encoder: str = ""
    """The encoder of --encoder whose vectors --copy-cosine is of; the one that decides the pairs where not given."""
    directions: Literal["one", "both"] = "one"
    """Whether a pair is written once, its condition chosen by a hash, or both ways."""
    seed: int = 0
    """Changes every random choice."""
    benchmark: tuple[str, ...] = ()
    """Indexes of test sets (pagepairs benchmark build) whose images, and all copies of them, are left out."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            _require(value is None or -1 <= value <= 1, name, value, "a cosine lies between -1 and 1")
        _require(not self.band or self.low is None is self.high, "band", self.band, "leave it out, or --low and --high")
        _require((self.low is None) == (self.high is None), "low", self.low, "give --low and --high together")
        _require(self.low is None or self.high is None or self.low < self.high, "low", self.low, f"must lie below --high {self.high}")
        _require(self.pairs_per_episode >= 1, "pairs_per_episode", self.pairs_per_episode, "give at least 1")
        _require(2 <= self.max_images_per_page <= 2048, "max_images_per_page", self.max_images_per_page, "give 2 to 2048")
        _require(self.max_pages_per_image >= 1, "max_pages_per_image", self.max_pages_per_image, "give at least 1")
        _require(self.max_hosts_per_image >= 1, "max_hosts_per_image", self.max_hosts_per_image, "give at least 1")
        cosine = self.copy_cosine
        _require(cosine is None or 0.5 <= cosine <= 1, "copy_cosine", cosine, "one picture twice has a cosine between 0.5 and 1")
        _require(cosine is not None or not self.copy_encoder, "copy_encoder", self.copy_encoder, "give --copy-cosine too")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "give a number from 0 to 2**63 - 1")


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How pairs are written."""

    format: Literal["parquet", "webdataset", "tfrecord"] = "parquet"
    """File format: the same pairs, pixels and order in each."""
    size: int = 256
    """Shortest side in pixels of the images written; larger ones are resized to it, none is enlarged."""
    resize: Literal["crop", "keep-ratio"] = "crop"
    """crop cuts the middle square out of the resized image, keep-ratio leaves its longest side as it is."""
    image_format: Literal["jpeg", "webp", "png"] = "jpeg"
    """Encoding of the images: JPEG without chroma subsampling (4:4:4), lossy WebP (4:2:0 by its nature) or lossless PNG."""
    quality: int = 95
    """Quality of JPEG and WebP, 1 to 100; PNG has none."""
    columns: tuple[Literal["alt", "embeddings"], ...] = ()
    """Columns besides the fixed ones: alternative texts, both embeddings (float16)."""
    pairs_per_shard: int = 2048
    """Pairs a shard, about."""

    def __post_init__(self) -> None:
        _require(self.size >= 16, "size", self.size, "give at least 16 pixels")
        _require(1 <= self.quality <= 100, "quality", self.quality, "give 1 to 100")
        _require(self.pairs_per_shard >= 1, "pairs_per_shard", self.pairs_per_shard, "give at least 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run writes and how; nothing here changes a byte of the datasets."""

    output: str = ""
    """Folder for everything that the run leaves behind."""
    workers: int = 1
    """Processes on this machine; each decodes with its share of the cores. A job of one task is done by one."""
    threads: int = 0
    """Threads a process that decode, and as many that read images; 0 takes the cores divided by --workers."""
    rebuild: bool = False
    """Throws away what an earlier run with other scan settings left in --output."""
    dry_run: bool = False
    """Prints the resolved configuration and the plan, and exits."""

    def __post_init__(self) -> None:
        _require(self.workers >= 1, "workers", self.workers, "give at least 1")
        _require(self.threads >= 0, "threads", self.threads, "give 0 (automatic) or a number of threads")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What the report shows besides the run."""

    compare: str = ""
    """The --output of another complete run: what changed in settings, counts and similarities is shown too."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of the pipeline."""

    scan: ScanConfig = field(default_factory=ScanConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    pair: PairConfig = field(default_factory=PairConfig)
    shard: ShardConfig = field(default_factory=ShardConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    run: RunConfig = field(default_factory=RunConfig)
    beam_args: tuple[str, ...] = ()
    """Flags of Apache Beam, passed on as they are."""
