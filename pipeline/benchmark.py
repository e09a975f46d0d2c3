"""`pagepairs benchmark build`: an index of a test set, so that runs keep its images out (--benchmark) and audits prove it."""

import dataclasses
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import tyro

from dedup.benchmark import ITEMS, THUMBNAILS
from dedup.changes import CHANGES, MILD, change
from dedup.hashes import pdq256, phash64
from encoders import Encoder, embed_all, load_encoder
from pagepairs.config import EmbedConfig, ScanConfig
from pagepairs.images import ImageError, encode_image, resize_shortest, working_image
from pagepairs.keys import mix, prefix64
from pipeline.ahead import map_ahead
from pipeline.benchmark_items import Item, find_items, read_hashes
from pipeline.look import Look, look, pixels

_SCAN = ScanConfig(animations="first-frame")
"""How the images of a test set are decoded: as scan decodes, without its rules on size and shape."""
_THUMBNAIL_PX, _THUMBNAIL_QUALITY = 96, 75
_ENCODER_SETTINGS = ("device", "dtype", "compile", "input_size", "engine")
_VERSIONS = ("pagepairs", "faiss-cpu", "numpy", "pillow", "pdqhash", "simplejpeg")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is indexed, and how."""

    name: str
    """Name of the test set, as reports show it."""
    images: str
    """Folder of images (with all below it); table (.csv, .tsv, .jsonl, .parquet) with path, or phash and pdq; list of hashes (.txt)."""
    output: str
    """Folder that becomes the index; it must not exist."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    """The encoder, with the settings of the run that the images are kept out of; --encoder none for hashes alone."""
    descriptor: str = ""
    """A copy-detection descriptor in the encoder's place: sscd:PATH, the TorchScript file that Meta publishes."""
    unrelated: str = ""
    """Folder or table of unrelated images, to count false matches on; the other images of the test set where not given."""
    cut: float | None = None
    """Cosine from which on an image is a match; where not given, the descriptor's published one, or a calibrated one."""
    sample: int = 200
    """Images that are changed to calibrate with, at most."""
    index: Literal["auto", "flat", "pq", "ivf"] = "auto"
    """flat compares with everything, pq with everything at 4 bits for 4 dimensions, ivf with some cells of that; auto goes by size."""
    candidates: int = 0
    """Nearest rows that are compared again exactly; 0 takes 4 (flat) or 100."""
    nprobe: int = 0
    """Cells that an ivf looks into; 0 takes a quarter."""
    threads: int = 0
    """Decode threads; 0 takes the cores."""
    seed: int = 0
    """Changes the sample and its changes."""

    def __post_init__(self) -> None:
        for name, low in (("sample", 1), ("candidates", 0), ("nprobe", 0), ("threads", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least {low}")
        if self.cut is not None and not -1 <= self.cut <= 1:
            raise ValueError(f"--cut {self.cut}: a cosine lies between -1 and 1")
        if not self.name.strip() or not self.name.isprintable():
            raise ValueError(f"--name {self.name!r}: give printable characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An item that was read and decoded."""

    look: Look
    thumbnail: bytes
    network_input: np.ndarray | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """All that is known of the images of a test set; row i of each is one item."""

    table: pa.Table
    thumbnails: pa.Table
    vectors_ND: np.ndarray | None  # float16
    paths: list[str]
    unreadable: list[dict[str, str]]


def main(command: str, argv: Sequence[str]) -> int:
    """Runs `pagepairs benchmark build`; returns 0, or 2 for what a user can set right."""
    if not argv or argv[0] != "build":
        helps = bool(argv) and argv[0] in ("-h", "--help")
        print("usage: pagepairs benchmark build --name NAME --images FOLDER|TABLE|LIST --output INDEX [FLAGS]; --help teaches the flags")
        return 0 if helps else 2
    try:
        config = tyro.cli(BenchmarkConfig, prog=f"pagepairs {command} build", args=list(argv[1:]), config=(tyro.conf.OmitArgPrefixes,))
        for line in build(config):
            print(line, flush=True)
    except (ValueError, OSError) as error:
        print(f"pagepairs: {error}", file=sys.stderr)
        return 2
    return 0


def build(config: BenchmarkConfig) -> Iterator[str]:
    """Builds an index; yields lines for the user.

    Raises:
      ValueError: if there is nothing to index, a setting cannot be used, or the search would miss too many matches.
    """
    from dedup.benchmark_build import complete_index, index_folder
    from dedup.benchmark_hashes import MIN_TEXTURE, RULE

    with index_folder(config.output) as folder:
        hashes = read_hashes(config.images)
        encoder = None
        if hashes is not None:
            items = Items(table=hashes, thumbnails=_no_thumbnails(hashes.num_rows), vectors_ND=None, paths=[], unreadable=[])
        else:
            encoder = _load(config)
            items = read_items(find_items(config.images, "--images"), encoder, config)
        if not items.table.num_rows:
            raise ValueError(f"--images {config.images}: none of the {len(items.unreadable):,} files is a readable image")
        flat = sum(value is not None and value < MIN_TEXTURE for value in items.table["texture"].to_pylist())
        if items.vectors_ND is not None:
            # All flat images look alike to an encoder too: a vector of zeros is nobody's neighbour.
            items.vectors_ND[np.array([texture < MIN_TEXTURE for texture in items.table["texture"].to_pylist()])] = 0
        value: dict[str, Any] = {
            "name": config.name,
            "items": items.table.num_rows,
            "encoder": encoder.digest if encoder else None,
            "spec": _spec_name(config) if encoder else "",
            "width": encoder.width if encoder else 0,
            "hashes": {"rule": RULE, "flat": flat},
            "unreadable": _count(row["reason"] for row in items.unreadable),
            "versions": {name: version(name) for name in _VERSIONS},
        }
        value |= yield from _measure(folder, items, encoder, config)
        complete_index(folder, items.table, items.thumbnails, items.unreadable, value)
    yield f"{config.output}: {items.table.num_rows:,} images of {config.name}, {flat:,} of them flat (never matched by hash)" + _bad(items)


def _measure(folder: str, items: Items, encoder: Encoder | None, config: BenchmarkConfig) -> Generator[str, None, dict[str, Any]]:
    """Writes the vectors; yields lines for the user, returns cut, calibration and search for the manifest."""
    from dedup.benchmark_build import check_recall, write_vectors
    from dedup.benchmark_cut import choose_cut, nearest_others, nearest_similarities, recall_table
    from dedup.benchmark_hashes import match_hashes, open_hashes
    from dedup.benchmark_vectors import choose_search, nearest_items, open_vectors

    found: dict[str, Any] = {"cut": 0.0, "cut_source": "", "search": None, "calibration": None}
    if not items.paths:
        return found
    hashes = open_hashes(items.table)
    rows = _sample(items.table["item_id"], config)
    ids = items.table["item_id"].to_pylist()
    changed = dict(_see_changed([(items.paths[row], ids[row]) for row in rows], encoder, config))
    similarities, vectors = None, None
    if encoder is not None and items.vectors_ND is not None:
        search = choose_search(items.table.num_rows, kind=config.index, candidates=config.candidates, nprobe=config.nprobe)
        write_vectors(folder, items.vectors_ND, search)
        vectors = open_vectors(folder, search)
        similarities = {kind: nearest_similarities(vectors, seen) for kind, seen in changed.items()}
        mild = np.concatenate([similarities[kind] for kind in MILD])
        cut, source = (config.cut, "--cut") if config.cut is not None else choose_cut(encoder.name, mild)
        found |= {"cut": cut, "cut_source": source, "search": check_recall(folder, search, cut=cut, seed=config.seed)}
        yield f"cut {cut} ({source}); {search.kind} index, decision recall {found['search']['decision_recall']:.4f}"
    table = recall_table(changed, hashes, similarities, found["cut"])
    yield from _show(table)
    unrelated: dict[str, Any] = {"source": "--unrelated" if config.unrelated else "the other images of the test set itself"}
    if config.unrelated:
        other = read_items(find_items(config.unrelated, "--unrelated"), encoder, config)
        near = nearest_items(vectors, other.vectors_ND)[1] if vectors and other.vectors_ND is not None else None
        by_hash = match_hashes(hashes, *_hash_columns(other.table))[0]
        unrelated |= {"images": other.table.num_rows, "hash": len(by_hash)}
    else:
        near = None if items.vectors_ND is None else nearest_others(items.vectors_ND, ids, rows)
        unrelated |= {"images": len(rows), "hash": _other_hashes(items.table, rows)}
    if near is not None:
        unrelated |= {"embedding": int((near >= np.float32(found["cut"])).sum()), "highest": round(float(near.max()), 4)}
    yield _false_matches(unrelated)
    found["calibration"] = {"changes": table, "unrelated": unrelated, "seed": config.seed, "images": len(rows)}
    return found


def _spec(config: BenchmarkConfig) -> str:
    return config.descriptor or config.embed.encoder


def _load(config: BenchmarkConfig) -> Encoder | None:
    """Loads the encoder as stage embed does, or none."""
    threads = os.cpu_count() or 1
    if _spec(config) == "none":
        return None
    settings = {name: value for name, value in dataclasses.asdict(config.embed).items() if name in _ENCODER_SETTINGS}
    encoder = load_encoder(_spec(config), weights=config.embed.encoder_weights, threads=threads, **settings)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return encoder


def _spec_name(config: BenchmarkConfig) -> str:
    """The encoder as --encoder takes it; of a file its name, as folders differ between machines."""
    kind, colon, path = _spec(config).partition(":")
    return f"{kind}{colon}{os.path.basename(path)}"


def read_items(items: list[Item], encoder: Encoder | None, config: BenchmarkConfig) -> Items:
    """Reads, decodes, hashes and embeds the images; those that give no image are listed with their reason."""
    rows: list[dict[str, Any]] = []
    thumbnails: list[bytes] = []
    paths: list[str] = []
    unreadable: list[dict[str, str]] = []
    vectors: list[np.ndarray] = []
    inputs: list[np.ndarray] = []
    threads = config.threads or os.cpu_count() or 1
    for item, prepared in map_ahead(lambda item: _prepare(item, encoder), items, threads=threads, window=3 * config.embed.batch_size):
        if isinstance(prepared, ImageError):
            unreadable.append({"path": item.name, "reason": prepared.reason, "detail": prepared.detail})
            continue
        seen = prepared.look
        rows.append({"item_id": seen.image_id, "item": item.name, "phash": seen.phash, "pdq": seen.pdq, "texture": seen.texture})
        thumbnails.append(prepared.thumbnail)
        paths.append(item.path)
        if encoder is not None and prepared.network_input is not None:
            inputs.append(prepared.network_input)
            if len(inputs) == config.embed.batch_size:
                vectors.append(_embed(encoder, inputs, config))
    if encoder is not None:
        vectors += [_embed(encoder, inputs, config)] if inputs else []
        vectors_ND = np.concatenate([np.empty((0, encoder.width), np.float16), *vectors])
        finite = np.isfinite(vectors_ND).all(axis=1)
        for lost in np.flatnonzero(~finite)[::-1]:
            unreadable.append({"path": rows[lost]["item"], "reason": "not_finite", "detail": ""})
            del rows[lost], thumbnails[lost], paths[lost]
        vectors_ND = vectors_ND[finite]
    return Items(
        table=pa.Table.from_pylist(rows, schema=ITEMS),
        thumbnails=pa.table([pa.array(thumbnails, pa.binary())], schema=THUMBNAILS),
        vectors_ND=vectors_ND if encoder is not None else None,
        paths=paths,
        unreadable=sorted(unreadable, key=lambda row: row["path"]),
    )


def _prepare(item: Item, encoder: Encoder | None) -> Prepared | ImageError:
    try:
        body = item.read(_SCAN.max_bytes)
        rgb = pixels(body, _SCAN).rgb
        network_input = None if encoder is None else encoder.preprocess(rgb)
        thumbnail = encode_image(resize_shortest(rgb, _THUMBNAIL_PX), "webp", _THUMBNAIL_QUALITY)
        return Prepared(look=look(body, _SCAN), thumbnail=thumbnail, network_input=network_input)
    except ImageError as error:
        return error


def _embed(encoder: Encoder, inputs: list[np.ndarray], config: BenchmarkConfig) -> np.ndarray:
    """Returns the vectors as the crawl's are stored, and empties the batch."""
    vectors_BD = embed_all(encoder, inputs, batch_size=config.embed.batch_size).astype(np.float16)
    inputs.clear()
    return vectors_BD


def _sample(ids: pa.ChunkedArray, config: BenchmarkConfig) -> np.ndarray:
    """Rows of the images to change: those with the lowest keyed hashes, in the order of the index."""
    return np.sort(np.argsort(mix(prefix64(ids), config.seed), kind="stable")[: config.sample])


def _see_changed(sample: list[tuple[str, str]], encoder: Encoder | None, config: BenchmarkConfig) -> Iterator[tuple[str, Any]]:
    """Yields each kind of change with what a crawl would know of the images after it; one kind is held in memory at a time."""
    from dedup.benchmark_cut import Seen

    threads = config.threads or os.cpu_count() or 1
    for kind in CHANGES:

        def see(item: tuple[str, str], kind: str = kind) -> tuple[int, bytes, int, np.ndarray | None]:
            path, item_id = item
            rgb = change(pixels(Item(path=path, name=path).read(_SCAN.max_bytes), _SCAN).rgb, kind, key=item_id, seed=config.seed)
            working = working_image(rgb)
            return phash64(working), *pdq256(working), None if encoder is None else encoder.preprocess(rgb)

        seen = [found for _, found in map_ahead(see, sample, threads=threads, window=2 * threads)]
        phash, pdq, texture, inputs = zip(*seen, strict=True)
        yield (
            kind,
            Seen(
                phash_N=np.array(phash, np.uint64),
                pdq_N32=np.frombuffer(b"".join(pdq), np.uint8).reshape(-1, 32),
                texture_N=np.array(texture),
                vectors_ND=None if encoder is None else embed_all(encoder, inputs, batch_size=config.embed.batch_size).astype(np.float16),
            ),
        )


def _hash_columns(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from dedup.benchmark_hashes import pdq_array

    return table["phash"].to_numpy(), pdq_array(table["pdq"].cast(pa.binary())), table["texture"].to_numpy()


def _other_hashes(table: pa.Table, rows: np.ndarray) -> int:
    """How many of some items another item matches by hash; equal files are one item."""
    from dedup.benchmark_hashes import match_hashes, open_hashes

    ids = np.array(table["item_id"].to_pylist())
    found = 0
    for row in rows:
        rest = open_hashes(table.take(pa.array(np.flatnonzero(ids != ids[row]))))
        found += len(match_hashes(rest, *_hash_columns(table.slice(int(row), 1)))[0])
    return found


def _no_thumbnails(rows: int) -> pa.Table:
    return pa.table([pa.nulls(rows, pa.binary())], schema=THUMBNAILS)


def _count(reasons: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items()))


def _show(table: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"{'change':<17}{'images':>7}{'hash':>8}{'embedding':>11}{'either':>8}{'neither':>9}"
    for row in table:
        shares = [f"{row[name] / row['images']:.1%}" for name in ("hash", "embedding", "either")]
        mark = "" if row["mild"] else "  (hard)"
        yield f"{row['change']:<17}{row['images']:>7}{shares[0]:>8}{shares[1]:>11}{shares[2]:>8}{row['neither']:>9}{mark}"


def _false_matches(unrelated: Mapping[str, Any]) -> str:
    by_embedding = f", {unrelated['embedding']:,} by embedding (highest {unrelated['highest']})" if "embedding" in unrelated else ""
    return f"false matches among {unrelated['images']:,} images ({unrelated['source']}): {unrelated['hash']:,} by hash{by_embedding}"


def _bad(items: Items) -> str:
    if not items.unreadable:
        return ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in _count(row["reason"] for row in items.unreadable).items())
    return f"; {len(items.unreadable):,} unreadable ({reasons}), listed in unreadable.parquet"
