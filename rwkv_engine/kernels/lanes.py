"""How lanes run one program together: shares of work, tickets, and the barrier between stages.

Every lane of a team executes the same compiled function (SPMD). A `Lane` says which one it is and where the
shared words are. Work is split into fixed contiguous shares (`share`) or by tickets (`take`), so that a lane
that loses its core to another process delays the others by one ticket at most.
"""

import sys
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rwkv_engine.kernels._jit import kernel
from rwkv_engine.kernels.atomics import add, load, offer_core, pause, store

#: bytes between two shared words: two cache lines, because x86 prefetches lines in pairs
STRIDE = 128
#: shared lines: number of the barrier, arrivals, and from COUNTERS on two lines of ticket counters per lane
TURN, ARRIVED, COUNTERS = 0, 1, 2
SLOTS = STRIDE // 8
#: value of TURN if a lane will not come: the others stop waiting
BROKEN = -1
#: polls of the barrier before a lane offers its core to others (about 20 microseconds)
PATIENCE = 1000


class Lane(NamedTuple):
    """One lane of a team, as compiled code sees it.

    number  0 <= number < lanes.
    lanes   how many take part in this call.
    shared  address of shared_bytes(lanes) zeroed bytes, the same for all lanes of the team.
    room    private float32 numbers for intermediate results.
    leave   0, or the address of int64 words: number of page ranges to give back after each stage, then
            address and length of each one, in files that are mapped read-only.
    desk    0, or the address of the int64 word that calls this lane (see `kernels.calling`).
    stay    polls that the lane waits at its desk for another call before it goes to sleep.
    """

    number: int
    lanes: int
    shared: int
    room: np.ndarray
    leave: int = 0
    desk: int = 0
    stay: int = 0


def shared_bytes(lanes: int) -> int:
    """Bytes shared by a call with this many lanes."""
    return STRIDE * (COUNTERS + 2 * lanes)


@intrinsic
def _give_back(typingctx: Any, address: Any, length: Any) -> Any:
    """Let the system reclaim pages of a mapped file (Linux `madvise`, MADV_DONTNEED; nothing elsewhere)."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        if sys.platform == "linux":
            i64, i32 = ir.IntType(64), ir.IntType(32)
            kind = ir.FunctionType(i32, [i64, i64, i32])
            builder.call(
                cgutils.get_or_insert_function(builder.module, kind, "madvise"), [*arguments, i32(4)]
            )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@kernel
def leave(table: int) -> None:
    """Give back the pages of all ranges in a table (see Lane); the next read maps them again."""
    for number in range(load(table)):
        at = table + 8 + 16 * number
        _give_back(load(at), load(at + 8))


@kernel
def _counters(lane: Lane, turn: int, owner: int) -> int:
    """Address of lane `owner`'s SLOTS counters after barrier `turn`; alternate stages use the same ones."""
    return lane.shared + STRIDE * (COUNTERS + (turn & 1) * lane.lanes + owner)


@kernel
def barrier(lane: Lane) -> None:
    """Wait for all lanes of the call; earlier writes are then visible to all, and tickets restart.

    In a BROKEN call no lane waits: each runs to the end of its function, on meaningless numbers.
    """
    if lane.lanes == 1:
        if lane.leave != 0:
            leave(lane.leave)
        return
    turn = load(lane.shared + TURN * STRIDE)
    if turn == BROKEN:
        return
    mine = _counters(lane, turn + 1, lane.number)  # last used before the previous barrier
    for slot in range(SLOTS):
        store(mine + 8 * slot, 0)
    if add(lane.shared + ARRIVED * STRIDE, 1) == lane.lanes - 1:
        if lane.leave != 0:
            leave(lane.leave)
        store(lane.shared + ARRIVED * STRIDE, 0)
        store(lane.shared + TURN * STRIDE, turn + 1)
        return
    polls = 0
    while load(lane.shared + TURN * STRIDE) == turn:
        polls += 1
        if polls < PATIENCE:
            pause()
        else:
            offer_core()


@kernel
def take(lane: Lane, slot: int, total: int, before: int) -> int:
    """This lane's next ticket of `total` for counter `slot` (0 <= slot < SLOTS); `total` if none is left.

    before  the ticket the lane took last, -1 at first.
    Each lane has a contiguous share of the tickets and takes them in order, so it reads one stream of memory.
    After its own, it takes tickets from the others' shares, so none waits for a lane that lost its core. Two
    loops of one stage need two slots.
    """
    if lane.lanes == 1:
        return before + 1
    turn = load(lane.shared + TURN * STRIDE)
    owner = lane.number if before < 0 else ((before + 1) * lane.lanes - 1) // total
    for _ in range(lane.lanes):
        first, last = total * owner // lane.lanes, total * (owner + 1) // lane.lanes
        if first < last:
            ticket = first + add(_counters(lane, turn, owner) + 8 * slot, 1)
            if ticket < last:
                return ticket
        owner = (owner + 1) % lane.lanes
    return np.int64(total)


@kernel
def share(lane: Lane, total: int) -> tuple[int, int]:
    """This lane's contiguous part [start, stop) of `total` equal pieces of work."""
    return np.int64(total * lane.number // lane.lanes), np.int64(total * (lane.number + 1) // lane.lanes)
