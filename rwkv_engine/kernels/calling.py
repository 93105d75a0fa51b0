"""Calls the other lanes without Python: waking a thread takes longer than a stage of a small model.

Each other lane has a desk: a word that says whether it sleeps, waits for the next call, or was called. A
compiled function that may be called repeatedly loops over `attend`. After a call, a lane waits for the next
one for about a millisecond, which is longer than choosing a token takes; then it returns to Python, where it
sleeps.
"""

from rwkv_engine.kernels._jit import kernel, program
from rwkv_engine.kernels.atomics import change, load, offer_core, pause, store
from rwkv_engine.kernels.lanes import PATIENCE, STRIDE, Lane

#: values of a desk. A sleeping lane is called by Python (`team.Team`), a waiting one by `ring`
ASLEEP, WAITING, CALLED, DISMISSED = 0, 1, 2, 3
#: polls before a lane goes to sleep: about a millisecond, mostly spent in `offer_core`
STAY = PATIENCE + 1500


@program
def ring(desks: int, count: int, again: bool) -> int:
    """Call the lanes of some desks; returns how many are asleep and were not called.

    desks  address of the first one; they are STRIDE bytes apart.
    count  number of desks.
    again  True: they run the last function again, with the same arguments. False: wait until all are asleep.
    """
    asleep = 0
    for number in range(count):
        desk, polls = desks + number * STRIDE, 0
        while True:
            found = change(desk, WAITING, CALLED if again else DISMISSED)
            if found == ASLEEP:
                asleep += 1
            if found == ASLEEP or (again and found == WAITING):
                break
            polls += 1  # it is still at work, or about to sleep
            if polls < PATIENCE:
                pause()
            else:
                offer_core()
    return asleep


@kernel
def attend(lane: Lane, calls: int) -> bool:
    """Whether this lane has a call to run, having run `calls` since Python called it.

    The body of a loop over this ends with a barrier. The caller's own lane runs one call; the others wait for
    more.
    """
    if calls == 0:
        return True
    if lane.desk == 0:
        return False
    store(lane.desk, WAITING)
    polls = 0
    while load(lane.desk) == WAITING:
        polls += 1
        if polls < PATIENCE:
            pause()
        elif polls < lane.stay:
            offer_core()
        elif change(lane.desk, WAITING, ASLEEP) == WAITING:
            return False
    # on a busy machine each offer of the core can take milliseconds: whoever needs this lane for
    # something else does not wait for the last poll
    return change(lane.desk, DISMISSED, ASLEEP) != DISMISSED
