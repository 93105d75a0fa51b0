"""How many tokens are drafted: right drafts grow, and wrong ones cost little, on every machine."""

import random

import pytest

from rwkv_engine.writing.pace import LONGEST, Costs, Pace


def test_drafts_that_are_never_right_are_given_up_and_right_ones_grow():
    costs = Costs()
    for count in range(1, LONGEST + 1):
        costs.add(count, 1 + 0.25 * (count - 1))
    wrong, right = Pace(costs, (0.7,)), Pace(costs, (0.7,))
    lost = 0.0
    for _ in range(1000):
        wrong.passed(1)
        count = wrong.length(0, LONGEST - 1, 1)
        if count:
            wrong.saw(0, count, 0, False, 1)
            lost += costs.of(1 + count) - 1
    assert 0 < lost < 0.02 * 1000
    for _ in range(20):
        count = right.length(0, LONGEST - 1, 1)
        right.saw(0, count, count, True, 1)
    assert right.length(0, LONGEST - 1, 1) == LONGEST - 1


@pytest.mark.parametrize("disturbed", [1, 5])
def test_drafts_that_are_wrong_cost_little_on_a_machine_that_is_disturbed(disturbed):
    rng, costs = random.Random(1), Costs()
    costs.add(1, 1.0 * disturbed)
    pace, spent = Pace(costs, (0.7,)), 0.0
    for _ in range(1000):
        count = pace.length(0, LONGEST - 1, 1)
        seconds = 1 + 0.25 * count
        spent += seconds
        noise = disturbed if rng.random() < 0.05 else 1
        costs.add(1 + count, seconds * noise)
        pace.passed(seconds * noise)
        if count:
            pace.saw(0, count, 0, False, 1)
    assert spent < 1.03 * 1000


def test_a_small_model_that_first_reads_a_long_prompt_goes_on_drafting():
    costs = Costs()
    for count in range(1, LONGEST + 1):
        costs.add(count, 1 + 0.1 * (count - 1))
    pace = Pace(costs, (0.7,))
    assert pace.length(0, 4, 1)
    pace.drafted(4, 100.0)  # the prompt is read
    pace.saw(0, 4, 4, True, 1)
    for _ in range(5):
        count = pace.length(0, 4, 1)
        assert count
        pace.drafted(count, 0.1 * count)
        pace.saw(0, count, count, True, 1)
