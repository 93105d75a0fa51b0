"""Codes whose errors cancel: the kernel against its twin, and what they lose on inputs against codes that are each
nearest to its weight.
"""

import formats_used
import numpy as np
import pytest

from rwkv_engine.formats import fitted_codes, format_named
from rwkv_engine.numbers.code_layout import FIRST, GROUP, INT4, INT5, LARGEST_SCALE, TRIED, row_scales
from rwkv_engine.numbers.fitting import Fitting

RNG = np.random.default_rng(0)
TABLES = {"int4": INT4, "int5": INT5}
each_format = pytest.mark.parametrize("name", TABLES)


def inverse(step):
    return np.divide(np.float32(1), step, out=np.zeros_like(step), where=np.abs(step) > np.float32(1e-37))


def nearest(table, y):
    return np.array(table.values, np.float32)[np.searchsorted(np.array(table.edges, np.float32), y)]


def group_in(table, x, cost, first, wanted, step):
    """(errors [rows, 16], cost [rows]) of a group's columns in scales `step`, each making up for those before."""
    errors, total = np.zeros_like(wanted), np.zeros_like(step)
    for c in range(GROUP):
        target = wanted[:, c].copy()
        for i in range(c):
            target = target + errors[:, i] * cost.feedback[first + i, first + c]
        value = nearest(table, target * inverse(step)) * step
        errors[:, c] = x[:, first + c] - value
        off = target - value
        total = total + off * off * cost.own[first + c]
    return errors, total


def rescale(table, cost, scale, scales, now, errors, gains):
    """Each group's scale as `slope / curve` says, where that costs less; all but `table` and `cost` change."""
    for group in range(scales.shape[1]):
        here = slice(group * GROUP, group * GROUP + GROUP)
        own, slope, curve = cost.sums[here, here], np.zeros_like(scale), np.zeros_like(scale)
        values = nearest(table, now[:, here] * inverse(scales[:, group] * scale)[:, None])
        for c in range(GROUP):
            slope = slope + values[:, c] * gains[:, here][:, c]
        for c in range(GROUP):
            product = np.zeros_like(scale)
            for i in range(GROUP):
                product = product + values[:, i] * own[i, c]
            curve = curve + values[:, c] * product
        can = (curve > 0) & (scale > 0)
        part = np.divide(slope, curve, out=np.zeros_like(slope), where=can)
        part = np.divide(part, scale, out=np.zeros_like(slope), where=can)
        size = np.clip(np.rint(scales[:, group] + part), -LARGEST_SCALE, LARGEST_SCALE)
        change = (size - scales[:, group]) * scale
        better = can & (change * curve * change < np.float32(2) * change * slope)
        scales[:, group] = np.where(better, size, scales[:, group])
        moved = better & (change != 0)
        new = np.where(moved[:, None], values * (scales[:, group] * scale)[:, None], now[:, here])
        off = new - now[:, here]
        now[:, here] = new
        errors[:, here] -= off
        for c in range(GROUP):
            gains -= off[:, c : c + 1] * cost.sums[here.start + c]


def compensated(table, x, cost, scale, sweeps):
    """The slow twin of `kernels.code_feedback.compensate`: codes and scales of weights [rows, n]."""
    rows, n = x.shape
    errors, now = np.zeros_like(x), np.zeros_like(x)
    scales = np.zeros((rows, n // GROUP), np.float32)
    for group in range(n // GROUP):
        first, here = group * GROUP, slice(group * GROUP, group * GROUP + GROUP)
        wanted = x[:, here].copy()
        for i in range(first):
            wanted += errors[:, i : i + 1] * cost.feedback[i, here]
        unit = scale * np.float32(-FIRST)
        ideal = np.divide(np.abs(wanted).max(axis=1), unit, out=np.zeros_like(unit), where=unit > 0)
        best = np.full(rows, np.inf, np.float32)
        for part in TRIED:
            size = np.minimum(np.rint(ideal * np.float32(part)), np.float32(LARGEST_SCALE))
            for signed in (size, -size):
                total = group_in(table, x, cost, first, wanted, signed * scale)[1]
                better = total < best
                best = np.where(better, total, best)
                scales[:, group] = np.where(better, signed, scales[:, group])
        errors[:, here] = group_in(table, x, cost, first, wanted, scales[:, group] * scale)[0]
        now[:, here] = x[:, here] - errors[:, here]
    for _ in range(sweeps):
        gains = np.zeros_like(x)
        for i in range(n):
            gains += errors[:, i : i + 1] * cost.sums[i]
        for j in range(n):
            step = scales[:, j // GROUP] * scale
            value = nearest(table, (now[:, j] + gains[:, j] / cost.sums[j, j]) * inverse(step)) * step
            change = value - now[:, j]
            now[:, j] = value
            errors[:, j] -= change
            gains -= change[:, None] * cost.sums[j]
        rescale(table, cost, scale, scales, now, errors, gains)
    steps = np.repeat(scales * scale[:, None], GROUP, axis=1)
    codes = np.searchsorted(np.array(table.edges, np.float32), now * inverse(steps))
    return codes.astype(np.uint8), scales.astype(np.int8)


def inputs(tokens, cols):
    """[tokens, cols] that depend on one another, and have a mean, as a model's do."""
    mixing = RNG.standard_normal((cols, cols)) * np.exp(RNG.standard_normal(cols))
    return RNG.standard_normal((tokens, cols)) @ mixing + RNG.standard_normal(cols)


def weights(rows, cols):
    values = RNG.standard_normal((rows, cols)) * np.exp(RNG.standard_normal((rows, 1)))
    values[3] = 0
    return values.astype(np.float32)


@each_format
def test_the_kernel_finds_its_twins_codes(name):
    table, values, x = TABLES[name], weights(32, 128), inputs(400, 128)
    sums, _ = fitted_codes._whole(x.T @ x)
    lower = np.ascontiguousarray(sums[::-1, ::-1])
    fitted_codes.factor(lower)
    cost = fitted_codes._errors(sums, lower)
    scale = row_scales(values) * fitted_codes.HEADROOM
    want = table.arranged(*compensated(table, values, cost, scale, fitted_codes.SWEEPS), scale)
    given = np.array(table.values, np.float32), np.array(table.edges, np.float32)
    np.testing.assert_array_equal(fitted_codes._strips(table, *given, cost, values), want)


def lost(values, got, x):
    return np.square(x @ (got - values).T).sum()


@each_format
def test_products_lose_far_less_on_inputs_like_those_that_were_seen(name):
    format, values = format_named(name), weights(40, 100)
    x = inputs(2000, 100)
    seen, others, tensor = x[:1000], x[1000:], formats_used.tensor(values, "f32")
    stored = format.fitted(tensor, Fitting(seen.T @ seen, np.zeros((100, 100)), None))
    got = format.to_float32(stored, 40, 100)
    plain = format.to_float32(format.stored(tensor), 40, 100)
    for part in (seen, others):
        assert lost(values, got, part) < 0.5 * lost(values, plain, part)


def test_a_matrix_makes_up_for_what_is_wrong_before_it():
    format, values, x = format_named("int4"), weights(32, 64), inputs(1000, 64)
    tensor = formats_used.tensor(values, "f32")
    there, lacking = x + 0.1 * x[:, ::-1], x @ (0.1 * RNG.standard_normal((32, 64))).T
    want = x @ values.T + lacking
    fitting = Fitting(there.T @ there, (x - there).T @ there, lacking.T @ there)
    got = format.to_float32(format.fitted(tensor, fitting), 32, 64)
    blind = format.to_float32(format.fitted(tensor, Fitting(x.T @ x, 0 * fitting.moves, None)), 32, 64)
    assert np.square(there @ got.T - want).sum() < 0.05 * np.square(there @ blind.T - want).sum()


def test_the_triangle_and_its_equations_are_those_of_a_solver():
    x = inputs(100, 48)
    sums = x.T @ x
    lower, b = sums.copy(), RNG.standard_normal((2, 48, 16))
    fitted_codes.factor(lower)
    np.testing.assert_allclose(np.tril(lower), np.linalg.cholesky(sums), rtol=1e-6, atol=1e-9)
    want = np.linalg.solve(sums, b)
    fitted_codes.solve(lower, b)
    np.testing.assert_allclose(b, want, rtol=1e-5, atol=1e-9)


@each_format
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_nan_and_no_infinity_is_lost_by_fitting(name, bad):
    format, values, x = format_named(name), weights(20, 70), inputs(300, 70)
    values[5, 6] = bad
    stored = format.fitted(formats_used.tensor(values, "f32"), Fitting(x.T @ x, np.zeros((70, 70)), None))
    got = format.to_float32(stored, 20, 70)
    assert np.flatnonzero(~np.isfinite(got).all(axis=1)).tolist() == [5]
