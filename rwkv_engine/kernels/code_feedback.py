"""Codes of 4 and 5 bits whose errors cancel in the products: each column makes up for the errors of those before
it (GPTQ, arXiv 2210.17323), then each, and each group's scale, is chosen anew with all others in view.

Twin: tests/kernels/test_code_feedback.py. Written as vectors of 16 rows, each operation rounding on its own and
in the twin's order, so that every machine finds the same numbers.

The errors e of a row (what is wanted - what it becomes) cost e H e', H being sums of products of inputs. With
H = R R', R an upper triangle, that is the sum over columns j of own[j] (e[j] + the sum over i < j of
e[i] feedback[i, j])^2, where own[j] = R[j, j]^2 and feedback[i, j] = R[i, j] / R[j, j].
"""

from typing import NamedTuple

import numpy as np

from rwkv_engine.kernels._jit import exact, program
from rwkv_engine.kernels.vectors import LANES
from rwkv_engine.numbers.code_layout import FIRST, GROUP, LARGEST_SCALE, TRIED

#: scales that are tried, as parts of the one that brings the largest weight to the table's end
_TRIED = np.array(TRIED, np.float32)
_ENDS, _LARGEST, _SMALL = np.float32(-FIRST), np.float32(LARGEST_SCALE), np.float32(1e-37)
#: rows of `Room.small`
SMALL = 3 * GROUP


class Errors(NamedTuple):
    """What the errors of a matrix with n columns cost, all float32.

    own  [n].   feedback, sums  [n, n]: see above; sums is H.
    """

    own: np.ndarray
    feedback: np.ndarray
    sums: np.ndarray


class Room(NamedTuple):
    """Work arrays: errors, gains and now [n, 16], small [SMALL, 16], all float32."""

    errors: np.ndarray
    gains: np.ndarray
    now: np.ndarray
    small: np.ndarray


@exact
def _inverse(step, out):
    for r in range(LANES):
        out[r] = np.float32(1) / step[r] if abs(step[r]) > _SMALL else np.float32(0)


@exact
def _nearest(values, edges, y, out):
    """out [16] <- the values nearest to y [16]."""
    for r in range(LANES):
        out[r] = values[0]
    for k in range(edges.shape[0]):
        for r in range(LANES):
            out[r] = values[k + 1] if y[r] > edges[k] else out[r]


@exact
def _codes(edges, y, out):
    for r in range(LANES):
        code = 0
        for k in range(edges.shape[0]):
            code += y[r] > edges[k]
        out[r] = code


@exact
def _group(first, x, cost, values, edges, step, wanted, errors, line, total):
    """errors [16, 16], total [16] <- of a group's 16 columns in scales `step` [16], and what they cost."""
    inverse, y, near = line[0], line[1], line[2]
    _inverse(step, inverse)
    for r in range(LANES):
        total[r] = 0
    for c in range(GROUP):
        target = line[3]
        for r in range(LANES):
            target[r] = wanted[c, r]
        for i in range(c):
            share = cost.feedback[first + i, first + c]
            for r in range(LANES):
                target[r] += errors[i, r] * share
        for r in range(LANES):
            y[r] = target[r] * inverse[r]
        _nearest(values, edges, y, near)
        weight = cost.own[first + c]
        for r in range(LANES):
            value = near[r] * step[r]
            errors[c, r] = x[first + c, r] - value
            off = target[r] - value
            total[r] += off * off * weight


@exact
def _best_scale(first, x, cost, values, edges, scale, wanted, room, scales):
    """scales [16] i8 <- of a group those whose columns, each making up for those before it, cost least."""
    line, errors = room.small[:GROUP], room.small[GROUP : 2 * GROUP]
    ideal, best, step, total = line[4], line[5], line[6], line[7]
    for r in range(LANES):
        ideal[r] = 0
        best[r] = np.inf
        scales[r] = 0
    for c in range(GROUP):
        for r in range(LANES):
            size = abs(wanted[c, r])
            ideal[r] = size if size > ideal[r] else ideal[r]
    for r in range(LANES):
        unit = scale[r] * _ENDS
        ideal[r] = ideal[r] / unit if unit > 0 else np.float32(0)
    for part in _TRIED:
        for sign in (np.float32(1), np.float32(-1)):
            for r in range(LANES):
                size = np.rint(ideal[r] * part)
                size = _LARGEST if size > _LARGEST else size
                step[r] = size * sign * scale[r]
            _group(first, x, cost, values, edges, step, wanted, errors, line, total)
            for r in range(LANES):
                if total[r] < best[r]:
                    size = np.rint(ideal[r] * part)
                    size = _LARGEST if size > _LARGEST else size
                    best[r] = total[r]
                    scales[r] = np.int8(size * sign)


@exact
def _forward(x, cost, values, edges, scale, scales, room):
    """scales [groups, 16] and room.now, room.errors [n, 16] <- column after column."""
    wanted, line = room.small[2 * GROUP : 3 * GROUP], room.small[:GROUP]
    for group in range(scales.shape[0]):
        first = group * GROUP
        for c in range(GROUP):
            for r in range(LANES):
                wanted[c, r] = x[first + c, r]
        for i in range(first):
            for c in range(GROUP):
                share = cost.feedback[i, first + c]
                for r in range(LANES):
                    wanted[c, r] += room.errors[i, r] * share
        _best_scale(first, x, cost, values, edges, scale, wanted, room, scales[group])
        step, total = line[6], line[7]
        for r in range(LANES):
            step[r] = np.float32(scales[group, r]) * scale[r]
        errors = room.errors[first : first + GROUP]
        _group(first, x, cost, values, edges, step, wanted, errors, line, total)
        for c in range(GROUP):
            for r in range(LANES):
                room.now[first + c, r] = x[first + c, r] - errors[c, r]


@exact
def _again(cost, values, edges, scale, scales, room):
    """Each column of room.now once more, with the errors of all others in view."""
    line, n = room.small, cost.own.shape[0]
    step, inverse, y, near = line[0], line[1], line[2], line[3]
    for j in range(n):
        for r in range(LANES):
            room.gains[j, r] = 0
    for i in range(n):
        for j in range(n):
            share = cost.sums[i, j]
            for r in range(LANES):
                room.gains[j, r] += room.errors[i, r] * share
    for j in range(n):
        own = cost.sums[j, j]
        for r in range(LANES):
            step[r] = np.float32(scales[j // GROUP, r]) * scale[r]
        _inverse(step, inverse)
        for r in range(LANES):
            y[r] = (room.now[j, r] + room.gains[j, r] / own) * inverse[r]
        _nearest(values, edges, y, near)
        moved = False
        for r in range(LANES):
            value = near[r] * step[r]
            change = value - room.now[j, r]
            moved = moved or change != 0
            y[r] = change
            room.now[j, r] = value
            room.errors[j, r] -= change
        if moved:
            for k in range(n):
                share = cost.sums[j, k]
                for r in range(LANES):
                    room.gains[k, r] -= y[r] * share


@exact
def _rescale(cost, table, edges, scale, scales, room):
    """Each group's scale <- that with which its codes cost least, all others in view; room.gains as after `_again`."""
    line, n = room.small, cost.own.shape[0]
    step, inverse, y, near = line[0], line[1], line[2], line[3]
    slope, curve, moved = line[4], line[5], line[6]
    values, products = room.small[GROUP : 2 * GROUP], room.small[2 * GROUP : 3 * GROUP]
    for group in range(scales.shape[0]):
        first = group * GROUP
        for r in range(LANES):
            step[r] = np.float32(scales[group, r]) * scale[r]
            slope[r] = 0
            curve[r] = 0
        _inverse(step, inverse)
        for c in range(GROUP):
            for r in range(LANES):
                y[r] = room.now[first + c, r] * inverse[r]
            _nearest(table, edges, y, near)
            for r in range(LANES):
                values[c, r] = near[r]
                slope[r] += near[r] * room.gains[first + c, r]
        for c in range(GROUP):
            for r in range(LANES):
                products[c, r] = 0
            for i in range(GROUP):
                share = cost.sums[first + i, first + c]
                for r in range(LANES):
                    products[c, r] += values[i, r] * share
            for r in range(LANES):
                curve[r] += values[c, r] * products[c, r]
        for r in range(LANES):
            old, moved[r] = np.float32(scales[group, r]), 0
            if curve[r] > 0 and scale[r] > 0:
                size = np.rint(old + slope[r] / curve[r] / scale[r])
                size = min(max(size, -_LARGEST), _LARGEST)
                change = (size - old) * scale[r]
                if change * curve[r] * change < np.float32(2) * change * slope[r]:
                    scales[group, r] = np.int8(size)
                    moved[r] = change
            step[r] = np.float32(scales[group, r]) * scale[r]
        for c in range(GROUP):
            for r in range(LANES):
                value = room.now[first + c, r]
                value = values[c, r] * step[r] if moved[r] != 0 else value
                change = value - room.now[first + c, r]
                products[c, r] = change
                room.now[first + c, r] = value
                room.errors[first + c, r] -= change
        for c in range(GROUP):
            for k in range(n):
                share = cost.sums[first + c, k]
                for r in range(LANES):
                    room.gains[k, r] -= products[c, r] * share


@exact
def compensate_strip(x, cost, values, edges, scale, sweeps, codes, scales, room):
    """`compensate` for one strip."""
    _forward(x, cost, values, edges, scale, scales, room)
    for _ in range(sweeps):
        _again(cost, values, edges, scale, scales, room)
        _rescale(cost, values, edges, scale, scales, room)
    step, inverse, y = room.small[0], room.small[1], room.small[2]
    for j in range(cost.own.shape[0]):
        for r in range(LANES):
            step[r] = np.float32(scales[j // GROUP, r]) * scale[r]
        _inverse(step, inverse)
        for r in range(LANES):
            y[r] = room.now[j, r] * inverse[r]
        _codes(edges, y, codes[j])


@program
def compensate(
    x: np.ndarray,
    cost: Errors,
    values: np.ndarray,
    edges: np.ndarray,
    scale: np.ndarray,
    sweeps: int,
    codes: np.ndarray,
    scales: np.ndarray,
    room: Room,
) -> None:
    """codes [strips, n, 16] u8, scales [strips, groups, 16] i8 <- those of strips of weights x [strips, n, 16] f32.

    values, edges  f32, of the codes' table.    scale  [strips, 16] f32: the rows' own.
    sweeps         how often each column and scale is chosen anew.
    Cost: n / 2 sums for each weight, and at most 3 n for each sweep.
    """
    for strip in range(x.shape[0]):
        compensate_strip(
            x[strip], cost, values, edges, scale[strip], sweeps, codes[strip], scales[strip], room
        )
