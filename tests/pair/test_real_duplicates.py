"""Groups and boilerplate of real archives: one picture in several sizes, crops of one painting, the icons of a site."""

from collections import Counter
from pathlib import Path

import pytest
from small_crawl import Crawl, pair_job, run_pair

from pagepairs.config import Config, EmbedConfig, PairConfig, RunConfig, ScanConfig, ShardConfig
from pagepairs.files import read_arrow
from pagepairs.images import ImageError
from pagepairs.manifest import read_dataset, read_manifest
from pipeline.look import look
from pipeline.pair_copies import apply_stars
from pipeline.run import run_stages
from pipeline.sources import ImageRecord, find_units, read_unit


def groups_of(archive: Path, folder: Path, *, min_side_px: int) -> set[frozenset[str]]:
    """Names of the usable images of an archive, grouped as stage pair groups them."""
    config = ScanConfig(input=(str(archive),), min_side_px=min_side_px)
    crawl = Crawl()
    for unit in find_units(config.input, config):
        for record in read_unit(unit, config):
            if isinstance(record, ImageRecord) and not record.reason:
                try:
                    seen = look(record.body, config)
                except ImageError:
                    continue
                if not seen.reason:
                    name = record.url.rsplit("/", 1)[1]
                    facts = {field: getattr(seen, field) for field in ("image_id", "width", "height", "phash", "pdq", "texture")}
                    crawl.image(name, bytes=len(record.body), angle=None, **facts)
    run_pair(crawl, folder, parts=2)
    job = pair_job(folder / "out", folder / "work", parts=2)
    named = {row["url_key"]: row["image_url"].removeprefix("https://img/") for row in crawl.rows["images"]}
    found: dict[str, set[str]] = {}
    for part in range(2):
        for row in apply_stars(read_arrow(job.path("canonical", part)), job.read_range("stars", part)).to_pylist():
            found.setdefault(row["canonical_id"], set()).add(named[row["url_key"]])
    return {frozenset(members) for members in found.values()}


def test_one_image_in_several_sizes_is_one_group(shared_data: Path, tmp_path: Path) -> None:
    """The two test squares have a PDQ 28 to 32 bits from the portraits, which are other pictures in the same round frame."""
    assert groups_of(shared_data / "warc_public" / "kiwix-with-redirects.warc.gz", tmp_path, min_side_px=100) == {
        frozenset({"test-square.png", "test-square-300x300.png", "test-square-150x150.png"}),
        frozenset({"about-us-bg.png", "about-us-bg-285x300.png"}),
        frozenset({"Group-3175-1.png", "Group-3175-1-294x300.png"}),
        frozenset({"android-chrome-512x512.png"}),
        frozenset({"Kiwix-youtube-banner-1.png"}),
    }


def test_crops_and_variants_of_one_painting_stay_apart(shared_data: Path, tmp_path: Path) -> None:
    """Details, parodies and the room it hangs in are pictures of their own: such pairs are what a crawl is read for."""
    found = groups_of(shared_data / "warc_public" / "wikipedia-mona-lisa.warc.gz", tmp_path, min_side_px=100)
    assert found == {
        frozenset({name})
        for name in (
            "250px-Mona_Lisa,_by_Leonardo_da_Vinci,_from_C2RMF_natural_color.jpg",
            "170px-Mona_Lisa_detail_background_right.jpg",
            "220px-Mona_Lisa_detail_hands.jpg",
            "220px-Mona_Lisa_stolen-1911.jpg",
            "220px-Mona-lisa_in_the_Louvre.jpg",
            "220px-ARC194219.png",
            "100px-Marcel_Duchamp_Mona_Lisa_LHOOQ.jpg",
            "100px-Sapeck-La_Joconde_fumant_la_pipe.jpg",
            "170px-Leonardo_da_Vinci_-_Self-Portrait_-_WGA12798.jpg",
            "Wiki.png",
        )
    }


@pytest.fixture(scope="module")
def archive_org(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive with every rule for size, shape and texture off, so that counting alone has to find the icons."""
    output = tmp_path_factory.mktemp("archive-org")
    archive = str(shared_data / "warc_public" / "archive-org-2008.warc.gz")
    config = Config(
        scan=ScanConfig(input=(archive,), min_side_px=16, max_aspect=20, min_texture=0),
        embed=EmbedConfig(encoder="builtin"),
        pair=PairConfig(),
        shard=ShardConfig(size=16),
        run=RunConfig(output=str(output)),
    )
    run_stages(config, ("scan", "embed", "pair"), lambda line: None)
    return output


def test_the_icons_of_a_site_are_found_by_counting_pages(archive_org: Path) -> None:
    drops = read_dataset(str(archive_org / "drops" / "pair")).to_pylist()
    found = Counter(row["image_url"] for row in drops if row["reason"].startswith("boilerplate"))
    assert found == {"http://www.archive.org/images/logo.jpg": 83, "http://www.archive.org/images/main-header.jpg": 49}


def test_a_smaller_logo_is_a_near_copy_and_the_counts_add_up(archive_org: Path) -> None:
    counts = read_manifest(str(archive_org / "episodes")).counters["duplicates"]
    assert counts["near_hash"] == 1  # wayback_logo-sm.gif of wayback.gif
    assert counts["captures"] == sum(counts[rule] for rule in ("exact_copy", "equal_hash", "near_hash", "kept"))


def test_icons_and_banners_are_dropped_by_rule_before_anything_is_counted(shared_data: Path) -> None:
    config = ScanConfig(input=(str(shared_data / "warc_public" / "archive-org-2008.warc.gz"),))
    reasons = {}
    for unit in find_units(config.input, config):
        for record in read_unit(unit, config):
            if isinstance(record, ImageRecord) and not record.reason:
                try:
                    reasons[record.url.rsplit("/", 1)[1]] = look(record.body, config).reason
                except ImageError as error:
                    reasons[record.url.rsplit("/", 1)[1]] = error.reason
    assert {name: reasons[name] for name in ("logo.jpg", "main-header.jpg", "star.png", "alexalogo-archive.gif")} == {
        "logo.jpg": "too_small",
        "main-header.jpg": "too_small",
        "star.png": "too_small",
        "alexalogo-archive.gif": "too_small",
    }
    assert {name for name, reason in reasons.items() if not reason} == {
        "LOCLogoSmall.jpg",
        "archive.small.jpg",
        "clicktoplay.png",
        "tsunamiweb1_02.jpg",
    }
