"""The statistics of the benchmarks: an interval that is neither too narrow nor assumed, and a table that tells it."""

from __future__ import annotations

import random
from statistics import median

import pytest

from bench.figures import Figure, table
from bench.pairs import CONFIDENCE, Pairs, alternating, median_interval


def paired(ratios: list[float], native: float = 2.0) -> Pairs:
    pairs = Pairs()
    for ratio in ratios:
        pairs.add("native", native)
        pairs.add("through", native * ratio)
    return pairs


@pytest.mark.parametrize(
    ("count", "rank", "confidence"),
    [(6, 1, 0.96875), (7, 1, 0.984375), (9, 2, 0.9609375), (21, 6, 0.9733972)],  # the usual table of the sign test
)
def test_the_interval_of_a_median_is_made_of_the_order_statistics_of_the_sign_test(count: int, rank: int, confidence: float) -> None:
    values = [float(one) for one in range(1, count + 1)]
    random.Random(count).shuffle(values)
    found = median_interval(values)
    assert found is not None
    assert (found.low, found.high) == (rank, count + 1 - rank)
    assert found.confidence == pytest.approx(confidence)


@pytest.mark.parametrize("count", range(6))
def test_fewer_than_six_values_say_nothing_at_95_percent(count: int) -> None:
    assert median_interval([1.0] * count) is None


def test_the_interval_holds_the_true_median_as_often_as_it_says_whatever_the_distribution() -> None:
    rng = random.Random(21)
    runs = 2000
    caught = 0
    for _ in range(runs):
        interval = median_interval([rng.lognormvariate(0.0, 1.0) for _ in range(21)])
        assert interval is not None
        caught += interval.low <= 1.0 <= interval.high
    assert caught / runs >= CONFIDENCE


def test_an_interval_that_is_off_would_be_noticed() -> None:
    """The planted violation: the inner half of the values is no 95% interval."""
    rng = random.Random(21)
    caught = 0
    for _ in range(500):
        ordered = sorted(rng.lognormvariate(0.0, 1.0) for _ in range(21))
        caught += ordered[8] <= 1.0 <= ordered[12]
    assert caught / 500 < CONFIDENCE


def test_the_order_alternates_and_the_first_pair_is_for_warming_up() -> None:
    assert list(alternating(2)) == [(0, "through"), (0, "native"), (1, "native"), (1, "through"), (2, "through"), (2, "native")]


def test_the_ratio_is_the_median_of_the_pairs_and_not_that_of_the_medians() -> None:
    pairs = Pairs()
    for native, through in [(1.0, 1.1), (4.0, 4.4), (2.0, 1.0)]:
        pairs.add("native", native)
        pairs.add("through", through)
    assert pairs.ratio == pytest.approx(1.1)
    assert pairs.ratio_of_medians == pytest.approx(1.1 / 2.0)


def test_a_figure_of_pairs_tells_its_interval_and_the_ratio_of_the_medians() -> None:
    ratios = [1.0 + one / 100 for one in range(21)]
    figure = Figure.ratio("full-sync", paired(ratios), 1.05, "how")
    assert figure.value == pytest.approx(median(ratios))
    assert figure.met is False
    told = figure.to_json()
    assert told["interval"] == {"low": 1.05, "high": 1.15, "confidence": 0.9734}
    assert told["ratio_of_medians"] == pytest.approx(1.1)
    assert len(told["samples"]["native"]) == 21
    assert "how (21 pairs, 95% confidence 1.05 to 1.15; ratio of the medians 1.10)" in table([figure])
    few = Figure.ratio("full-sync", paired([1.0, 1.2, 1.1]), 1.05, "how")
    assert few.to_json()["interval"] is None
    assert "too few pairs for an interval" in table([few])
