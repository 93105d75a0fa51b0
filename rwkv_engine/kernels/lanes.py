"""How lanes run one program together: shares of work, tickets, and the barrier between stages.

Every lane of a team executes the same compiled function (SPMD). A `Lane` says which one it is and where the
words are that the lanes share. Work is split either into fixed contiguous shares (`share`) or by tickets
(`take`), so that a lane that loses its core to another process holds up the others by one ticket at most.
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
#: shared lines: barrier generation, arrivals, and from COUNTERS on two lines of ticket counters for each lane
TURN, ARRIVED, COUNTERS = 0, 1, 2
SLOTS = STRIDE // 8
#: what TURN says when a lane will not come: nobody waits any more
BROKEN = -1
#: polls of the barrier before a lane offers its core to somebody else (some 20 microseconds)
PATIENCE = 1000


class Lane(NamedTuple):
    """One lane of a team, as compiled code sees it.

    number  0 <= number < lanes.
    lanes   how many take part in this call.
    shared  address of shared_bytes(lanes) zeroed bytes, the same for all lanes of the team.
    room    float32 numbers of this lane alone, for what a stage keeps from one line to the next.
    leave   0, or the address of int64 words: how many ranges of pages are given back after each stage, then
            address and length of each, in pages of files that are mapped to be read only.
    desk    0, or the address of the int64 word by which this lane is called (see `kernels.calling`).
    stay    polls for which the lane waits at its desk for another call before it goes to sleep.
    """

    number: int
    lanes: int
    shared: int
    room: np.ndarray
    leave: int = 0
    desk: int = 0
    stay: int = 0


def shared_bytes(lanes: int) -> int:
    """Bytes that a call of so many lanes shares."""
    return STRIDE * (COUNTERS + 2 * lanes)


@intrinsic
def _give_back(typingctx: Any, address: Any, length: Any) -> Any:
    """Let the system take pages of a mapped file away (Linux `madvise`, MADV_DONTNEED; nothing elsewhere)."""

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
    """Give back the pages of all ranges of a table (see Lane); whoever reads them next has them mapped anew."""
    for number in range(load(table)):
        at = table + 8 + 16 * number
        _give_back(load(at), load(at + 8))


@kernel
def _counters(lane: Lane, turn: int, owner: int) -> int:
    """Address of the SLOTS counters of lane `owner` in the stage that follows barrier `turn`; every other
    stage uses the same.
    """
    return lane.shared + STRIDE * (COUNTERS + (turn & 1) * lane.lanes + owner)


@kernel
def barrier(lane: Lane) -> None:
    """Wait until every lane of the call is here.

    What was written before is then visible to all, tickets start anew.

    In a call that is BROKEN off nobody waits: every lane runs to the end of its function, on numbers that are
    of no use.
    """
    if lane.lanes == 1:
        if lane.leave != 0:
            leave(lane.leave)
        return
    turn = load(lane.shared + TURN * STRIDE)
    if turn == BROKEN:
        return
    mine = _counters(lane, turn + 1, lane.number)  # last used before the barrier before this one
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
    """This lane's next ticket of `total`, for counter `slot` (0 <= slot < SLOTS) of the stage; `total` when
    none is left.

    before  the ticket that the lane took last, -1 at first.
    Each lane has a contiguous share of the tickets and takes them in order, so that it reads one stream of
    memory; when it is through, it takes from the others' shares, so that nobody waits for a lane that lost
    its core. Two loops of one stage use two slots.
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
