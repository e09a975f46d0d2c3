"""Charts: axes that hold their data, and bins that the scale's slots fill."""

import numpy as np
import pytest

from pipeline.report_charts import by_hundredth, similarity_domain
from pipeline.report_scale import count_slots, scale_edges, slots_of


@pytest.mark.parametrize(
    ("used", "domain"), [([], (120, 200)), ([0, 199], (0, 200)), ([95], (90, 200)), ([130, 188], (120, 200)), ([93], (80, 200))]
)
def test_the_scale_shows_all_candidates_and_the_band(used: list[int], domain: tuple[int, int]) -> None:
    assert similarity_domain([int(i in used) for i in range(200)], 0.3, 0.9) == domain


def test_slots_fill_the_hundredth_that_they_lie_in() -> None:
    edges = scale_edges(0.3333, 0.9)
    slots = slots_of(np.array([-1.0, 0.0, 0.005, 0.3333, 0.335, 0.34, 1.0, 1.0001], np.float32), edges)
    found = by_hundredth({"edges": edges, "pairs": np.bincount(slots, minlength=count_slots(edges)).tolist()})
    assert {i: count for i, count in enumerate(found) if count} == {0: 1, 100: 2, 133: 2, 134: 1, 199: 2}
