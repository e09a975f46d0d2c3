"""The statement for a paper says what was compared, and nothing of what was not."""

from typing import Any

from pipeline.report_benchmark import statement

_DIGEST = {"name": "dinov2-base", "weights": "ab" * 32, "preprocessing": "p1", "library": "transformers 5"}
_VERSIONS = {"pagepairs": "0.1", "pdqhash": "0.2", "faiss-cpu": "1.15"}
_SEARCH = {"kind": "flat", "decision_recall": 1.0}
_CALIBRATION = {
    "images": 200,
    "changes": [{"change": "padded", "neither": 3, "images": 200}, {"change": "resized", "neither": 0, "images": 200}],
    "unrelated": {"images": 200, "hash": 0, "embedding": 1, "source": "--unrelated"},
}


def benchmark(**more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"name": "b", "items": 1000, "flat_items": 0, "content": "c" * 64, "versions": _VERSIONS, "hash_rule": "rule"}
    known |= {"compared_by_hash": 90, "compared_by_embedding": 80, "matched": 7, "cut": 0.5, "cut_source": "--cut"}
    return known | {"search": _SEARCH, "encoder_digest": _DIGEST, "calibration": _CALIBRATION} | more


def test_what_was_skipped_is_not_called_compared() -> None:
    text = statement(benchmark(flat_items=12), 100)
    assert text.startswith(
        "Of the 100 distinct images of the crawl, all were compared by their bytes, 90 by perceptual hash and 80 by embedding "
        "with the 1,000 images of b, 12 of them flat and compared by their bytes alone (pagepairs 0.1, "
        "index cccccccccccccccc); 7 (7 %) matched"
    )
    assert "Of 200 of its images that are not flat, after seeded changes, both signals together miss: padded 3 of 200." in text
    assert text.endswith("False matches among 200 images (--unrelated): 1.")


def test_of_a_list_of_hashes_no_bytes_were_compared() -> None:
    text = statement(benchmark(calibration=None, encoder_digest=None, search=None), 100)
    assert text.startswith(
        "Of the 100 distinct images of the crawl, 90 were compared by perceptual hash with the 1,000 images of b (pagepairs"
    )
    assert text.endswith("An image matches by hash (rule; pdqhash 0.2) alone.")
