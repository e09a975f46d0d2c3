"""Charts: axes that hold their data and their labels."""

import pytest

from pipeline.report_charts import count_ticks, similarity_domain


@pytest.mark.parametrize(
    ("largest", "ticks"),
    [(1, [0, 1]), (3, [0, 1, 2, 3]), (9, [0, 2, 4, 6, 8]), (10, [0, 2, 4, 6, 8, 10]), (26, [0, 10, 20]), (1234, [0, 500, 1000])],
)
def test_ticks_are_round_and_leave_room_for_a_label(largest: int, ticks: list[int]) -> None:
    assert count_ticks(largest) == (ticks, largest * 1.12)


@pytest.mark.parametrize(
    ("used", "domain"), [([], (120, 200)), ([0, 199], (0, 200)), ([95], (90, 200)), ([130, 188], (120, 200)), ([93], (80, 200))]
)
def test_the_scale_shows_all_candidates_and_the_band(used: list[int], domain: tuple[int, int]) -> None:
    assert similarity_domain([int(i in used) for i in range(200)], 0.3, 0.9) == domain
