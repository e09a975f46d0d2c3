"""Groups of near copies: the same in one worker or by rounds, in any order, files and parts; every capture is counted under one rule."""

import random
from collections import Counter
from pathlib import Path

import pytest
from slow_pair import canonical
from small_crawl import Crawl, pair_job, run_pair

import pipeline.pair_duplicates
from pagepairs.config import PairConfig
from pagepairs.files import read_arrow
from pipeline.journal import Journal, merge_counters, part_name
from pipeline.pair_copies import count_duplicates
from pipeline.pair_duplicates import near_parts, read_stars
from pipeline.pair_job import PairJob


def clustered(seed: int, *, images: int = 60) -> Crawl:
    """Walks of small steps away from a few hashes, so that near pairs form stars and long chains."""
    rng, crawl = random.Random(seed), Crawl()
    place = 0
    for n in range(images):
        if n % 12 == 0:
            place = rng.getrandbits(64)
        for _ in range(rng.choice([0, 1, 2, 2, 3, 5])):
            place ^= 1 << rng.randrange(64)
        crawl.image(
            str(n), phash=place, width=rng.choice([300, 400, 500]), reason="opt_out" if rng.random() < 0.05 else "", angle=20 * (n % 5)
        )
        if rng.random() < 0.2:
            crawl.image(str(n), url=f"https://img/again/{n}", phash=place, width=crawl.rows["images"][-1]["width"])
    for page in range(images // 3):
        crawl.page(f"p{page}", *(str(rng.randrange(images)) for _ in range(4)))
    return crawl


def duplicates(job: PairJob) -> dict:
    """The counts that a run shows, of a finished stage."""
    journals = {phase: Journal(f"{job.work}/done/{phase}") for phase in ("canonical", "stars")}
    images = merge_counters(journals["canonical"].read(part_name(part, job.parts)).counters for part in range(job.parts))
    return count_duplicates(images, read_stars(job, journals))


@pytest.mark.parametrize("seed", range(2))
def test_rounds_give_the_groups_of_one_worker_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    crawl = clustered(seed)
    one = run_pair(crawl, tmp_path / "one", parts=3)
    monkeypatch.setattr(pipeline.pair_duplicates, "MAX_EDGES", 0)
    many = run_pair(crawl, tmp_path / "many", parts=3, files=3, shuffle=seed)
    rounds = sorted(path.name for path in (many.work / "done" / "labels").iterdir())
    assert len(rounds) >= 3  # chains are longer than one step
    assert many.hashes == one.hashes
    found = [duplicates(pair_job(tmp_path / name / "out", tmp_path / name / "work", parts=3)) for name in ("one", "many")]
    assert found[0] == found[1]
    assert sum(int(size) * count for size, count in found[0]["components"].items()) > 20
    assert max(map(int, found[0]["components"])) > max(map(int, found[0]["groups"]))


def test_groups_and_counts_are_those_of_the_definition(tmp_path: Path) -> None:
    crawl = clustered(7, images=90)
    run_pair(crawl, tmp_path, parts=5, files=2, shuffle=0)
    found = duplicates(pair_job(tmp_path / "out", tmp_path / "work", parts=5))
    rows = canonical(crawl.rows["images"])
    best = {row["phash"]: row["best"]["image_id"] for row in rows}  # PDQ is the same everywhere, so a hash is an image for `near`
    sizes = Counter(Counter(best.values()).values())
    assert found["captures"] == len(rows)
    assert found["exact_copy"] == len(rows) - len({row["image_id"] for row in rows})
    assert found["equal_hash"] == len({row["image_id"] for row in rows}) - len(best)
    assert found["near_hash"] == len(best) - len(set(best.values()))
    assert found["near_hash"] > 10
    assert found["near_embedding"] == 0
    assert found["kept"] == len(set(best.values()))
    assert found["groups"] == {str(size): count for size, count in sizes.items() if size > 1}


def test_every_capture_stands_for_itself_or_is_a_copy_by_one_rule_with_vectors_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl, config = clustered(5), PairConfig(copy_cosine=0.95)
    one = run_pair(crawl, tmp_path / "one", parts=3, config=config)
    monkeypatch.setattr(pipeline.pair_duplicates, "MAX_EDGES", 0)
    many = run_pair(crawl, tmp_path / "many", parts=3, config=config, files=2, shuffle=1)
    assert many.hashes == one.hashes
    found = duplicates(pair_job(tmp_path / "one" / "out", tmp_path / "one" / "work", parts=3))
    assert found["captures"] == sum(found[rule] for rule in ("kept", "exact_copy", "equal_hash", "near_hash", "near_embedding"))
    rules = Counter(row["rule"] for row in one.rows["copies"])
    assert rules == {rule: found[rule] for rule in ("equal_hash", "near_hash", "near_embedding")}
    assert min(rules.values()) > 0


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(tmp_path: Path) -> None:
    crawl = clustered(1)
    one = run_pair(crawl, tmp_path / "1", parts=2)
    two = run_pair(crawl, tmp_path / "2", parts=2, workers=2)
    assert two.hashes == one.hashes


def test_a_worker_holds_the_buckets_of_its_part_only(tmp_path: Path) -> None:
    crawl = clustered(3, images=400)
    run_pair(crawl, tmp_path, parts=9)
    job = pair_job(tmp_path / "out", tmp_path / "work", parts=9)
    parts = [job.read_range("bands", part) for part in range(near_parts(9))]
    assert len(parts) == 3
    sizes = [part.num_rows for part in parts if part is not None]
    distinct = sum(read_arrow(job.path("images", part)).num_rows for part in range(9))
    assert sum(sizes) == 4 * distinct
    assert max(sizes) < 0.6 * sum(sizes)


def test_copies_stand_on_every_page_as_the_image_that_stands_for_them(tmp_path: Path) -> None:
    crawl = Crawl()
    crawl.image("big", phash=5, width=900, angle=0)
    crawl.image("small", phash=7, angle=0)
    for name, angle in (("a", 40), ("b", 50)):
        crawl.image(name, angle=angle)
    crawl.page("one", "big", "a")
    crawl.page("two", "small", "b")
    found = run_pair(crawl, tmp_path)
    ids = {image["image_id"] for row in found.rows["episodes"] for image in row["images"]}
    big, small = (row["image_id"] for row in crawl.rows["images"][:2])
    assert big in ids
    assert small not in ids
    pages = [row["page_url"] for row in found.rows["episodes"] if big in {image["image_id"] for image in row["images"]}]
    assert sorted(pages) == ["https://one", "https://two"]


def test_near_copies_on_one_page_never_pair(tmp_path: Path) -> None:
    """Their vectors lie in the band, but they are one picture."""
    crawl = Crawl()
    crawl.image("one", phash=0, angle=0)
    crawl.image("other", phash=3, angle=40)
    crawl.image("third", angle=50)
    crawl.page("p", "one", "other", "third")
    found = run_pair(crawl, tmp_path)
    assert found.drops() == {("p", "other", "duplicate_on_page")}
    assert len(found.rows["candidates"]) == 1
