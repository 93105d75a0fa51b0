"""Sampling in the order and with the numbers of PyPI's `rwkv` 0.8.32."""

import numpy as np
import pytest

from rwkv_engine import OptionError, Sampling
from rwkv_engine.sampling import PRESETS, History, adjust, filtered, log_probability, pick, softmax


def logits_of(size, seed=0, scale=3.0):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def pip_probabilities(logits, temperature, top_p, top_k):
    """PIPELINE.sample_logits of that package on a CPU, up to the draw, written down again in numpy."""
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    ids = np.argsort(probs)
    ordered = probs[ids][::-1]
    cutoff = float(ordered[np.argmax(np.cumsum(ordered) >= top_p)])
    probs[probs < cutoff] = 0
    if 0 < top_k < len(probs):
        probs[ids[:-top_k]] = 0
    if temperature != 1.0:
        probs = probs ** (1.0 / temperature)
    return probs / probs.sum()


def ours(logits, sampling):
    p = filtered(softmax(logits), sampling).astype(np.float64) ** (1 / sampling.temperature)
    return p / p.sum()


@pytest.mark.parametrize("size", [50, 3000, 65536])
@pytest.mark.parametrize(("temperature", "top_p", "top_k"), [(1.0, 0.85, 0), (0.7, 0.3, 0), (1.3, 0.8, 40), (2.0, 0.999, 7), (1.0, 0.0, 0)])
def test_the_distribution_is_the_pip_packages(size, temperature, top_p, top_k):
    for seed, scale in ((1, 1.0), (2, 3.0), (3, 8.0)):
        logits = logits_of(size, seed, scale)
        want = pip_probabilities(logits, temperature, top_p, top_k)
        got = ours(logits, Sampling(temperature=temperature, top_p=top_p, top_k=top_k))
        np.testing.assert_array_equal(got > 0, want > 0)
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_tokens_are_drawn_as_often_as_they_are_probable():
    logits, sampling = logits_of(30), Sampling(temperature=0.9, top_p=0.95)
    rng, history = np.random.default_rng(4), History()
    counts = np.bincount([pick(logits, sampling, history, rng) for _ in range(20_000)], minlength=30)
    p = ours(logits, sampling)
    assert counts[p == 0].sum() == 0
    assert (np.abs(counts - 20_000 * p) < 5 * np.sqrt(20_000 * p * (1 - p)) + 1e-9).all()


def test_counts_fade_before_the_new_token_is_counted_and_digits_pay_presence_alone():
    sampling, history = Sampling(presence=0.3, frequency=0.5, decay=0.9), History()
    for token, text in ((5, "a"), (7, "3"), (5, "a"), (9, "")):
        history.add(token, text, sampling.decay)
    assert history.counts == pytest.approx({5: (1 * 0.9 * 0.9 + 1) * 0.9, 7: 0.0, 9: 0.0})
    change = adjust(np.zeros(10, np.float32), sampling, history)
    assert change[5] == pytest.approx(-(0.3 + history.counts[5] * 0.5))
    assert change[7] == change[9] == pytest.approx(-0.3)
    assert not change[[0, 1, 2, 3, 4, 6, 8]].any()


def test_temperature_zero_takes_the_likeliest_token():
    logits = logits_of(100)
    assert pick(logits, Sampling(temperature=0), History(), np.random.default_rng()) == logits.argmax()


def test_a_very_low_temperature_does_not_underflow():
    logits = logits_of(65536, scale=0.1)
    assert pick(logits, Sampling(temperature=0.001, top_p=1.0), History(), np.random.default_rng(0)) in np.argsort(logits)[-20:]


def test_bias_and_bans_come_before_everything_else():
    logits = logits_of(20)
    top = int(logits.argmax())
    greedy = {"temperature": 0.0}
    assert pick(logits, Sampling(**greedy, banned=(top,)), History(), np.random.default_rng()) == np.argsort(logits)[-2]
    assert pick(logits, Sampling(**greedy, bias=((4, 100.0),)), History(), np.random.default_rng()) == 4
    with pytest.raises(OptionError, match="every token"):
        pick(logits, Sampling(banned=tuple(range(20))), History(), np.random.default_rng())
    for wrong in (Sampling(banned=(20,)), Sampling(bias=((-1, 1.0),))):
        with pytest.raises(OptionError, match="out of range"):
            pick(logits, wrong, History(), np.random.default_rng())


def test_top_k_keeps_exactly_k_and_min_p_the_likely_ones():
    p = softmax(np.zeros(40, np.float32))
    assert (filtered(p, Sampling(top_k=7, top_p=1.0)) > 0).sum() == 7
    p = np.array([0.5, 0.3, 0.15, 0.05], np.float32)
    assert (filtered(p, Sampling(top_p=1.0, min_p=0.25)) > 0).tolist() == [True, True, True, False]


def test_the_same_seed_gives_the_same_tokens():
    logits, sampling = logits_of(1000), Sampling(top_p=1.0)
    draws = [[pick(logits, sampling, History(), rng) for _ in range(20)] for rng in map(np.random.default_rng, (3, 3, 4))]
    assert draws[0] == draws[1] != draws[2]


def test_the_log_probability_is_of_the_unchanged_logits():
    logits = logits_of(500)
    want = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    assert log_probability(logits, 17) == pytest.approx(want[17], abs=1e-5)


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
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_presets_have_the_communitys_numbers():
    pip = Sampling.preset("pip")
    assert (pip.temperature, pip.top_p, pip.presence, pip.frequency, pip.decay) == (1.0, 0.85, 0.2, 0.2, 0.996)
    assert Sampling.preset("ai00").decay == 0.99654
    assert all(Sampling.preset(name) is PRESETS[name] for name in PRESETS)
    with pytest.raises(OptionError, match="pip"):
        Sampling.preset("nothing")
