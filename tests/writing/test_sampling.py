"""Sampling in the order and with the numbers of PyPI's `rwkv` 0.8.32."""

import numpy as np
import pytest
from reference import sampling as reference

from rwkv_engine import OptionError, Sampling
from rwkv_engine.kernels import sample
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.sample import FEW, PIECE, choose
from rwkv_engine.writing.choosing import Chooser, adjust, log_probability
from rwkv_engine.writing.history import History
from rwkv_engine.writing.sampling import PRESETS

cut = standalone(sample.cut.py_func)


def logits_of(size, seed=0, scale=3.0):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def drawn(logits, u, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0):
    """The token that the compiled choice takes for one number u."""
    work = np.empty(len(logits), np.float32), np.empty(FEW, np.float32), np.empty(-(-len(logits) // PIECE))
    return choose(logits, top_p, top_k, min_p, temperature, u, *work)


@pytest.mark.parametrize("size", [2, 50, 3000, 65536])
@pytest.mark.parametrize(
    "limits",
    [
        {"top_p": 0.85},
        {"temperature": 0.7, "top_p": 0.3},
        {"temperature": 1.3, "top_p": 0.8, "top_k": 40},
        {"temperature": 2.0, "top_p": 0.999, "top_k": 7},
        {"top_p": 0.0},
        {"top_k": 1},
        {"top_k": 20, "min_p": 0.1},
        {"min_p": 0.3, "temperature": 0.5},
        {"top_p": 0.9, "min_p": 0.01},
        {},
    ],
    ids=str,
)
def test_each_number_picks_the_token_that_the_sorted_twin_gives_it(size, limits):
    for seed, scale in ((1, 0.0), (2, 1.0), (3, 3.0), (4, 8.0), (5, 40.0)):
        logits = logits_of(size, seed, scale)
        sums = np.cumsum(reference.probabilities(logits, **limits))
        for u in (0.0, 0.1, 0.25, 0.5, 0.77, 0.9, 0.999):
            token = drawn(logits, u, **limits)
            low, high = sums[token - 1] if token else 0.0, sums[token]
            assert low - 2e-6 <= u <= high + 2e-6 and high > low, (seed, u, token, low, high)


def test_the_cut_is_where_a_sorted_sum_puts_it():
    rng = np.random.default_rng(1)
    few, tiny = np.empty(FEW, np.float32), np.float32(1e-37)
    for size in (1, 2, 17, 1000, 20_000):
        p = np.concatenate([rng.random(size), np.full(size, 0.25), 1e-30 * rng.random(size)]).astype(
            np.float32
        )
        likely = np.sort(p)[::-1]
        for rank in (1, 2, size, 2 * size, 3 * size):
            assert cut(p, tiny, np.inf, rank, few) == likely[rank - 1]
        for share in (0.0, 0.2, 0.5, 0.9, 0.999):
            mass = share * likely.sum(dtype=np.float64)
            at = cut(p, tiny, mass, 10 * size, few)
            above, reached = (p[p > at].sum(dtype=np.float64), p[p >= at].sum(dtype=np.float64))
            assert at in p and above < mass * (1 + 1e-6) + 1e-9 and reached >= mass * (1 - 1e-6)
        assert cut(p, tiny, 2.0 * len(p), 10 * size, few) == tiny


def test_the_cut_is_right_where_all_the_work_space_is_taken():
    few = np.empty(FEW, np.float32)
    for count in (FEW - 1, FEW, FEW + 1):
        p = np.concatenate([np.linspace(0.1, 0.9, count, dtype=np.float32), np.full(1000, 1e-3, np.float32)])
        likely = np.sort(p)[::-1]
        for rank in (1, count // 2, count - 1, count):
            assert cut(p, np.float32(0.05), np.inf, rank, few) == likely[rank - 1], (count, rank)


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-9, 1e-3])
def test_the_lowest_temperatures_take_the_likeliest_token(temperature):
    logits = logits_of(65536)
    assert pick(logits, temperature=temperature, top_p=1.0, seed=0) == logits.argmax()


def test_tokens_are_drawn_as_often_as_they_are_probable():
    logits, sampling = logits_of(30), Sampling(temperature=0.9, top_p=0.95, seed=4)
    chooser, history = Chooser(sampling, 30), History()
    counts = np.bincount([chooser.pick(logits, history) for _ in range(20_000)], minlength=30)
    p = reference.probabilities(logits, 0.9, 0.95)
    assert counts[p == 0].sum() == 0
    assert (np.abs(counts - 20_000 * p) < 5 * np.sqrt(20_000 * p * (1 - p)) + 1e-9).all()


def test_counts_fade_before_the_new_token_is_counted_and_digits_pay_presence_alone():
    sampling, history = Sampling(presence=0.3, frequency=0.5, decay=0.9), History()
    for token, text in ((5, "a"), (7, "3"), (5, "a"), (9, "")):
        history.add(token, text, sampling.decay)
    assert history.ids.tolist() == [5, 7, 9]
    assert history.counts == pytest.approx([(1 * 0.9 * 0.9 + 1) * 0.9, 0.0, 0.0])
    change = adjust(np.zeros(10, np.float32), sampling, history)
    assert change[5] == pytest.approx(-(0.3 + history.counts[0] * 0.5))
    assert change[7] == change[9] == pytest.approx(-0.3)
    assert not change[[0, 1, 2, 3, 4, 6, 8]].any()


def test_a_history_grows_with_what_is_written():
    history = History()
    for token in [*range(1000), *range(1000)]:
        history.add(token, "a", 1.0)
    assert history.ids.tolist() == list(range(1000)) and (history.counts == 2).all()


def pick(logits, **sampling):
    return Chooser(Sampling(**sampling), len(logits)).pick(logits, History())


def test_temperature_zero_takes_the_likeliest_token():
    logits = logits_of(100)
    assert pick(logits, temperature=0) == logits.argmax()


def test_a_very_low_temperature_does_not_underflow():
    logits = logits_of(65536, scale=0.1)
    assert pick(logits, temperature=0.001, top_p=1.0, seed=0) in np.argsort(logits)[-20:]


def test_bias_and_bans_come_before_everything_else():
    logits = logits_of(20)
    top = int(logits.argmax())
    assert pick(logits, temperature=0, banned=(top,)) == np.argsort(logits)[-2]
    assert pick(logits, temperature=0, bias=((4, 100.0),)) == 4
    assert top not in {
        pick(logits, temperature=5, top_p=1.0, banned=(top,), seed=seed) for seed in range(300)
    }
    for temperature in (0, 1):
        with pytest.raises(OptionError, match="every token"):
            pick(logits, temperature=temperature, banned=tuple(range(20)))
    for wrong in ({"banned": (20,)}, {"bias": ((20, 1.0),)}):
        with pytest.raises(OptionError, match="out of range"):
            pick(logits, **wrong)


def test_top_k_keeps_exactly_k_of_equal_tokens():
    logits = np.zeros(40, np.float32)
    assert {drawn(logits, u / 500, top_k=7) for u in range(500)} == set(range(7))


def test_the_same_seed_gives_the_same_tokens():
    logits, history = logits_of(1000), History()
    choosers = (Chooser(Sampling(top_p=1.0, seed=seed), 1000) for seed in (3, 3, 4))
    draws = [[chooser.pick(logits, history) for _ in range(20)] for chooser in choosers]
    assert draws[0] == draws[1] != draws[2]


def test_the_log_probability_is_of_the_unchanged_logits():
    logits = logits_of(500)
    assert log_probability(logits, 17) == pytest.approx(reference.log_probability(logits, 17), abs=2e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"top_k": -1},
        {"top_k": 1.5},
        {"decay": 2},
        {"seed": -3},
        {"presence": float("inf")},
        {"temperature": "hot"},
        {"bias": ((1, float("nan")),)},
        {"bias": ((1, 1e30),)},
        {"bias": {"a": 1.0}},
        {"bias": (1, 2)},
        {"banned": (-1,)},
        {"banned": "12"},
        {"top_k": None},
        {"top_k": True},
        {"processors": (1,)},
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_presets_have_the_communitys_numbers():
    pip = Sampling.preset("pip")
    assert (pip.temperature, pip.top_p, pip.presence, pip.frequency, pip.decay) == (
        1.0,
        0.85,
        0.2,
        0.2,
        0.996,
    )
    assert Sampling.preset("ai00").decay == 0.99654
    assert all(Sampling.preset(name) is PRESETS[name] for name in PRESETS)
    with pytest.raises(OptionError, match="pip"):
        Sampling.preset("nothing")


def test_numbers_of_numpy_and_a_dict_of_biases_are_as_good_as_pythons():
    plain = Sampling(temperature=0.5, top_k=4, bias=((3, 1.5),), banned=(2,), seed=7)
    other = Sampling(
        temperature=np.float32(0.5),
        top_k=np.int64(4),
        bias={np.int64(3): np.float64(1.5)},
        banned=np.array([2]),
        seed=np.int32(7),
    )
    assert plain == other and hash(plain) == hash(other)


def test_processors_see_the_logits_and_what_was_written_before_anything_else_is_done():
    seen = []

    def only_even(logits, history):
        seen.append((logits.copy(), list(history.tokens)))
        logits[1::2] = -np.inf
        return logits

    logits, history = logits_of(20), History(keep=True)
    history.add(4, "a", 1.0)
    before = logits.copy()
    sampling = Sampling(temperature=0, processors=(only_even,), bias={5: 100.0})
    assert Chooser(sampling, 20).pick(logits, history) == 2 * logits[::2].argmax()
    assert (logits == before).all() and (seen[0][0] == before).all() and seen[0][1] == [4]
    for wrong in (lambda logits, history: logits[:3], lambda logits, history: logits * np.nan):
        with pytest.raises(OptionError, match="processors"):
            pick(logits, processors=(wrong,))


def test_a_nan_among_the_logits_chooses_nothing_and_crashes_nothing():
    for bits in (0x7FC00000, 0xFFC00000):
        nan = np.array([bits], np.uint32).view(np.float32)[0]
        for size, place in ((10, 3), (3000, 0), (3000, 2999), (1024, 600)):
            logits = logits_of(size)
            logits[place] = nan
            assert -1 <= drawn(logits, 0.7, top_p=0.9) < size
        assert drawn(np.full(1000, nan, np.float32), 0.5) == -1
