"""How the caller's lane calls the others, without Python: to wake a thread takes longer than a stage of a
small model.

Each other lane has a desk, a word that says whether it sleeps, waits there for the next call, or was called.
A compiled function that may be called again and again is a loop over `attend`; having run a call, a lane
waits for the next one for about a millisecond, which is longer than choosing a token takes, and then goes
back to Python, where it sleeps.
"""

from rwkv_engine.kernels._jit import kernel, program
from rwkv_engine.kernels.atomics import change, load, offer_core, pause, store
from rwkv_engine.kernels.lanes import PATIENCE, STRIDE, Lane

#: what a desk says. A lane that sleeps is called by Python (`team.Team`), one that waits by `ring`
ASLEEP, WAITING, CALLED, DISMISSED = 0, 1, 2, 3
#: polls before a lane goes to sleep: about a millisecond, nearly all of it in offers of its core to others
STAY = PATIENCE + 1500


@program
def ring(desks: int, count: int, again: bool) -> int:
    """Call the lanes of `count` desks (address of the first, STRIDE bytes from one to the next); return how
    many are asleep, uncalled.

    again  whether they are to run what they ran last, on the same arguments; if not, wait until all are
           asleep.
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
            polls += 1  # it is still on its way to its desk, or about to sleep
            if polls < PATIENCE:
                pause()
            else:
                offer_core()
    return asleep


@kernel
def attend(lane: Lane, calls: int) -> bool:
    """Whether there is a call to run for this lane, which has run `calls` since Python called it.

    What loops over this ends each call with a barrier. The caller's own lane runs one call; the others stay
    for more.
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
