"""Stage pair once more, row by row in plain Python: what the product must agree with."""

import itertools
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from small_crawl import HIGH, LOW, SIZE_PX, Crawl, Row

from pagepairs.config import PairConfig
from pagepairs.keys import mix, pair_id, text_key
from pagepairs.urls import episode_page, host_of, url_key

NEVER = -(10**30)  # a time that is not known lies before all others


def slow_mix(*values: int) -> int:
    return int(mix(*(np.array([value], np.uint64) for value in values))[0])


def prefix(key: str) -> int:
    return int(key[:16], 16)


def closure(aliases: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Walks at most five hops from each URL."""
    reached, ends = set(), {(url, url) for url, _ in aliases}
    for _ in range(5):
        ends = {(start, target) for start, end in ends for url, target in aliases if url == end}
        reached |= ends
    return {pair for pair in reached if pair[0] != pair[1]}


def rank(row: Row) -> tuple[Any, ...]:
    """The total order of images, best first."""
    return -row["width"] * row["height"], -row["bytes"], row["image_id"], row["source"], row["offset"], row["url_key"]


def bits(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def is_near(a: Row, b: Row) -> bool:
    """Whether two images are near copies that share a band of 16 bits."""
    differing = a["phash"] ^ b["phash"]
    shared = any(not (differing >> shift) & 0xFFFF for shift in (0, 16, 32, 48))
    return shared and differing.bit_count() <= 6 and bits(a["pdq"], b["pdq"]) <= 48 and min(a["texture"], b["texture"]) >= 50


def stars(images: list[Row], near: Callable[[Row, Row], bool]) -> dict[str, Row]:
    """By id, the image that stands for each: in the total order, the first kept one that is near."""
    kept: list[Row] = []
    found: dict[str, Row] = {}
    for row in images:
        found[row["image_id"]] = next((other for other in kept if near(row, other)), row)
        kept += [row] * (found[row["image_id"]] is row)
    return found


def is_alike(a: Row, b: Row, vectors: dict[str, np.ndarray], cut: float) -> bool:
    """Whether the vectors of two images that are not flat have a cosine of `cut` or more."""
    known = a["image_id"] in vectors and b["image_id"] in vectors and min(a["texture"], b["texture"]) >= 50
    return known and exact_cosine(vectors[a["image_id"]], vectors[b["image_id"]]) >= cut


def canonical(images: list[Row], near: Callable[[Row, Row], bool] = is_near) -> list[Row]:
    """Adds to every capture the image that stands for it, the rule that made it a copy, and the verdict over its group."""
    first = {row["image_id"]: row for row in sorted(images, key=rank, reverse=True)}
    ranked = sorted(first.values(), key=rank)

    def is_equal(a: Row, b: Row) -> bool:
        return a["phash"] == b["phash"] and a["pdq"] == b["pdq"] and is_near(a, b)

    equal = stars(ranked, is_equal)
    own: dict[str, set[str]] = {}  # reasons of each group of equal hashes
    for row in images:
        own.setdefault(equal[row["image_id"]]["image_id"], set()).update({row["reason"]} - {""})
    nodes = [row for row in ranked if row["image_id"] in own]
    best = stars(nodes, near)
    found = []
    for row in images:
        node = equal[row["image_id"]]
        star = best[node["image_id"]]
        mates = [other for other in nodes if best[other["image_id"]] is star or near(other, node)]
        causes = set().union(*(own[other["image_id"]] for other in mates))
        causes = own[node["image_id"]] or causes
        verdict = row["reason"] or ("copy_removed" if causes else "")
        cause = min(causes, default="") if verdict == "copy_removed" else row["reason"]
        rule = "" if star is node else "near_hash" if is_near(star, node) else "near_embedding"
        rule = rule if node["image_id"] == row["image_id"] else "equal_hash"
        found.append(row | {"best": star, "rule": rule, "verdict": verdict, "cause": cause, "pixels": row["width"] * row["height"]})
    return found


def follow(link: Row, crawl: Crawl, captures: list[Row], aliases: set[tuple[str, str]], config: PairConfig) -> list[Row]:
    """All alternatives that one link stands for, each with what it leads to."""
    rows = []
    targets = {target for _, target in aliases}
    for key in [link["url_key"], *sorted(target for url, target in aliases if url == link["url_key"])]:
        there = [c for c in captures if c["url_key"] == key or (c["digest_key"] == key and key in targets)]
        distance = {id(c): abs(_time(c["time"]) - _time(link["page_time"])) for c in there}
        best = min(there, key=lambda c: (distance[id(c)], c["image_id"], _time(c["time"]), c["verdict"]), default=None)
        dropped = sorted(row["reason"] for row in crawl.rows["drops/scan"] if url_key(row["image_url"]) == key)
        reason, detail = _verdict(best, dropped)
        row = link | {
            "url_key": key,
            "reason": link["reason"] or reason,
            "detail": detail,
            "page_key": text_key(episode_page(link["page_url"], config.group_by)),
        }
        stands = best["best"] if best else dict.fromkeys(["image_id", "source", "offset", "length", "width", "height"])
        row |= {name: stands[name] for name in ("image_id", "source", "offset", "length", "width", "height")}
        rows.append(row | {"pixels": best["pixels"] if best else 0, "host": host_of(link["page_url"])})
    return rows


def _time(value: int | None) -> int:
    return NEVER if value is None else value


def _verdict(capture: Row | None, dropped: list[str]) -> tuple[str, str]:
    if capture is None:
        return ("image_dropped", dropped[0]) if dropped else ("not_in_crawl", "")
    reason = capture["verdict"] if capture["verdict"] in ("", "copy_removed") else "image_dropped"
    return reason, capture["cause"]


def appear(rows: list[Row], crawl: Crawl, config: PairConfig) -> None:
    """Sets the reasons that depend on all appearances of an image."""
    alive = [row for row in rows if not row["reason"]]
    shown = {
        page: (urlsplit(page).path.partition(";")[0], frozenset(row["image_id"] for row in alive if row["page_url"] == page))
        for page in {row["page_url"] for row in alive}
    }
    for row in alive:
        same = [other for other in alive if other["image_id"] == row["image_id"]]
        hosts: dict[tuple[str, frozenset[str]], str] = {}  # by path and images of a page: the lowest of its hosts
        for other in same:
            hosts[shown[other["page_url"]]] = min(other["host"], hosts.get(shown[other["page_url"]], other["host"]))
        if min(row["width"], row["height"]) < SIZE_PX:
            row["late"] = "smaller_than_size"
        elif len(hosts) > config.max_pages_per_image:
            row["late"] = "boilerplate_pages"
        elif len(set(hosts.values())) > config.max_hosts_per_image:
            row["late"] = "boilerplate_hosts"
        elif row["image_id"] not in crawl.vectors:
            row["late"] = "not_embedded"
    for row in alive:
        row["reason"] = row.pop("late", "")


def slowly_chosen(rows: list[Row], captures: list[Row]) -> list[Row]:
    """One row an element, page by page."""
    rows = [dict(row, pixels=row["pixels"] or 0) for row in rows]
    named = {(row["page_url"], row["url_key"]) for row in rows if row["via"] != "referer"}
    spoken = [row for row in rows if row["via"] != "referer" or (row["page_url"], row["url_key"]) not in named]
    for reason in ("page_blocked", "page_opt_out"):
        closed = {row["page_url"] for row in [*rows, *captures] if row["reason"] == reason}
        spoken = [row | {"reason": reason} if row["page_url"] in closed else row for row in spoken]
    elements: dict[tuple[Any, ...], list[Row]] = {}
    for row in spoken:
        elements.setdefault((row["page_key"], row["page_url"], row["capture"], row["position"]), []).append(row)

    def best_first(row: Row) -> tuple[Any, ...]:
        missing, unknown = row["reason"] != "", row["reason"] == "not_in_crawl"
        # No id sorts behind all ids.
        return (
            missing,
            unknown,
            -row["pixels"],
            row["image_id"] or "~",
            row["image_url"],
            row["via"],
            row["reason"],
            row["detail"],
            row["alt"],
        )

    return [min(elements[key], key=best_first) for key in sorted(elements)]


def set_episode_reasons(references: list[Row]) -> None:
    """Sets the reasons that depend on the page."""
    pages: dict[str, list[Row]] = {}
    for row in references:
        if not row["reason"]:
            pages.setdefault(row["page_key"], []).append(row)
    for members in pages.values():
        seen: set[str] = set()
        for row in members:
            row["reason"] = "duplicate_on_page" if row["image_id"] in seen else ""
            seen.add(row["image_id"])
        alone = [row for row in members if not row["reason"]]
        if len(alone) == 1:
            alone[0]["reason"] = "single_image"


def set_mirrors(references: list[Row]) -> None:
    """Of pages with the same images only the one with the lowest key stays."""
    pages: dict[str, list[Row]] = {}
    for row in references:
        if not row["reason"]:
            pages.setdefault(row["page_key"], []).append(row)
    shown: dict[frozenset[str], str] = {}
    for page, members in sorted(pages.items()):
        first = shown.setdefault(frozenset(row["image_id"] for row in members), page)
        for row in members if first != page else []:
            row["reason"], row["detail"] = "same_images_as_other_page", min(other["page_url"] for other in lowest_images(pages[first]))


def lowest_images(members: list[Row]) -> list[Row]:
    """The references of a page's lowest id."""
    lowest = min(row["image_id"] for row in members)
    return [row for row in members if row["image_id"] == lowest]


def set_page_cap(rows: list[Row], config: PairConfig) -> None:
    """Samples the images of pages that offer too many, before alternatives and repeats are reduced."""
    pages: dict[str, set[str]] = {}
    for row in rows:
        if not row["reason"]:
            pages.setdefault(row["page_key"], set()).add(row["image_id"])
    kept = {
        (page, name)
        for page, ids in pages.items()
        for name in sorted(ids, key=lambda name: slow_mix(config.seed, prefix(name)))[: config.max_images_per_page]
    }
    for row in rows:
        if not row["reason"] and (row["page_key"], row["image_id"]) not in kept:
            row["reason"] = "page_cap"


def exact_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0)))


def similarity(a: np.ndarray, b: np.ndarray) -> np.float32:
    """The exact cosine, rounded once."""
    return np.float32(exact_cosine(a, b))


def candidates_of(page: str, members: list[Row], crawl: Crawl, config: PairConfig, low: float, high: float) -> list[Row]:
    """Samples pairs of one page and scores them."""
    members = sorted(members, key=lambda row: row["image_id"])
    keyed = []
    for a, b in itertools.combinations(members, 2):
        ends = sorted([prefix(a["image_id"]), prefix(b["image_id"])])
        keyed.append((slow_mix(config.seed, prefix(page), *ends), a, b))
    rows = []
    for _, a, b in sorted(keyed, key=lambda entry: entry[0])[: config.pairs_per_episode]:
        value = similarity(crawl.vectors[a["image_id"]], crawl.vectors[b["image_id"]])
        reason = "below_low" if value < np.float32(low) else "above_high" if value > np.float32(high) else ""
        row = {"page_url": episode_page(a["page_url"], config.group_by), "page_key": page, "similarity": float(value), "reason": reason}
        rows.append(row | {f"{side}_{name}": image[key] for side, image in (("a", a), ("b", b)) for name, key in NAMES.items()})
    return rows


NAMES = {"id": "image_id", "url": "image_url", "alt": "alt", "source": "source", "offset": "offset", "length": "length"}


def pairs_of(candidates: list[Row], config: PairConfig) -> list[Row]:
    """Keeps each pair once, and gives it its direction; marks the other pages' candidates."""
    pairs = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in candidates:
        if not row["reason"]:
            groups.setdefault((row["a_id"], row["b_id"]), []).append(row)
    for (a_id, b_id), group in groups.items():
        group.sort(key=lambda row: row["page_key"])
        for row in group[1:]:
            row["reason"] = "on_another_page"
        flip = slow_mix(config.seed, prefix(a_id), prefix(b_id), 1) & 1
        for condition, target in [("ab", "ba")[flip]] + [("ba", "ab")[flip]] * (config.directions == "both"):
            first = group[0]
            row = {"page_url": first["page_url"], "page_count": len(group), "similarity": first["similarity"]}
            row |= {
                f"{side}_{name}": first[f"{end}_{name}"] for side, end in (("condition", condition), ("target", target)) for name in NAMES
            }
            pairs.append(row | {"pair_id": pair_id(row["condition_id"], row["target_id"])})
    return sorted(pairs, key=lambda row: row["pair_id"])


def slow_pair(crawl: Crawl, config: PairConfig, low: float = LOW, high: float = HIGH) -> dict[str, list[Row]]:
    """Returns the rows of copies, episodes, drops/pair, candidates and pairs."""
    aliases = closure([(row["url_key"], row["target_key"]) for row in crawl.rows["aliases"]])
    cut = config.copy_cosine
    captures = canonical(crawl.rows["images"], lambda a, b: is_near(a, b) or (cut is not None and is_alike(a, b, crawl.vectors, cut)))
    rows = [row for link in crawl.rows["links"] for row in follow(link, crawl, captures, aliases, config)]
    appear(rows, crawl, config)
    set_page_cap(rows, config)
    references = slowly_chosen(rows, crawl.rows["pages"])
    set_episode_reasons(references)
    set_mirrors(references)
    pages: dict[str, list[Row]] = {}
    for row in references:
        if not row["reason"]:
            pages.setdefault(row["page_key"], []).append(row)
    candidates = [row for page, members in sorted(pages.items()) for row in candidates_of(page, members, crawl, config, low, high)]
    pairs = pairs_of(candidates, config)
    shown = ("image_id", "image_url", "position", "alt", "width", "height")
    episodes = [
        {
            "page_url": episode_page(members[0]["page_url"], config.group_by),
            "page_key": page,
            "images": [{name: row[name] for name in shown} for row in members],
        }
        for page, members in pages.items()
    ]
    drops = [
        {
            "stage": "pair",
            "reason": row["reason"],
            "error": False,
            "page_url": row["page_url"],
            "image_url": row["image_url"],
            "detail": row["detail"],
        }
        for row in references
        if row["reason"]
    ]
    copies = {row["image_id"]: {"canonical_id": row["best"]["image_id"], "rule": row["rule"]} for row in captures if row["rule"]}
    copied = [{"image_id": image_id} | row for image_id, row in copies.items()]
    return {"copies": copied, "episodes": episodes, "drops/pair": drops, "candidates": candidates, "pairs": pairs}


def reasons(rows: list[Row]) -> Counter[str]:
    return Counter(row["reason"] for row in rows)
