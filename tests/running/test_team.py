"""Lanes: shares, tickets, barriers; threads that sleep, fork and end."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from rwkv_engine import OptionError
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.calling import ASLEEP, WAITING, attend
from rwkv_engine.kernels.lanes import barrier, share, take
from rwkv_engine.running.team import Team
from rwkv_engine.system import cpu


@standalone
def count_tickets(lane, taken, rounds):
    """Every piece of work is done once in each round, and seen by all after the barrier."""
    for r in range(rounds):
        ticket = take(lane, 3, taken.shape[0], -1)
        while ticket < taken.shape[0]:
            taken[ticket] += 1
            ticket = take(lane, 3, taken.shape[0], ticket)
        barrier(lane)
        for i in range(taken.shape[0]):
            if taken[i] != r + 1:
                taken[0] = -1000
        barrier(lane)


@standalone
def mark_share(lane, out):
    """out <- number of the lane whose share it is."""
    start, stop = share(lane, out.shape[0])
    for i in range(start, stop):
        out[i] += lane.number + 1


@standalone
def pause(lane, rounds):
    """Meet again and again."""
    for _ in range(rounds):
        barrier(lane)


@standalone
def count_calls(lane, told, taken, entered):
    """In each call, told[0] is added to all of `taken`, by tickets; entered [lanes] counts how often Python
    called a lane.
    """
    entered[lane.number] += 1
    calls = 0
    while attend(lane, calls):
        calls += 1
        ticket = take(lane, 1, taken.shape[0], -1)
        while ticket < taken.shape[0]:
            taken[ticket] += told[0]
            ticket = take(lane, 1, taken.shape[0], ticket)
        barrier(lane)


@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
def test_every_ticket_is_taken_once_whatever_the_lanes(lanes):
    taken = np.zeros(37, np.int64)
    Team(lanes).run(count_tickets, taken, 200)
    assert (taken == 200).all()


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_shares_are_contiguous_and_cover_everything_once(lanes):
    for total in (0, 1, 3, 100):
        out = np.zeros(total, np.int64)
        Team(lanes).run(mark_share, out)
        assert (np.diff(out) >= 0).all() and (out >= 1).all() and (out <= lanes).all()


def test_fewer_lanes_can_be_asked_for():
    out = np.zeros(10, np.int64)
    Team(4).run(mark_share, out, lanes=1)
    assert (out == 1).all()


@pytest.mark.parametrize("lanes", [0, -1, 1025, 1.5, "two"])
def test_a_lane_count_that_cannot_be_meant_is_refused(lanes):
    with pytest.raises(OptionError, match="threads"):
        Team(lanes)


def test_a_lanes_failure_reaches_the_caller_and_the_team_lives_on():
    team, seen = Team(2), []

    def fails(lane):
        seen.append(lane.number)
        if lane.number == 1:
            raise ValueError("broken lane")

    with pytest.raises(ValueError, match="broken lane"):
        team.run(fails)
    assert sorted(seen) == [0, 1]
    out = np.zeros(4, np.int64)
    team.run(mark_share, out)
    assert out.tolist() == [1, 1, 2, 2]


def test_parked_lanes_use_no_processor_time():
    team = Team(4)
    team.run(pause, 10)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


def fell_asleep(team, lanes):
    """Wait until the helpers of a call by so many lanes sleep."""
    deadline = time.monotonic() + 20
    while any(desk.says[0] != ASLEEP for desk in team._desks[: lanes - 1]) and time.monotonic() < deadline:
        time.sleep(0.001)
    return all(desk.says[0] == ASLEEP for desk in team._desks[: lanes - 1])


@pytest.mark.skipif(cpu.usable_cpus() < 2, reason="with one processor lanes do not wait for their next call")
def test_a_lane_waits_for_the_next_call_where_the_last_one_ended():
    team, told, taken, entered = Team(2), np.zeros(1, np.int64), np.zeros(23, np.int64), np.zeros(2, np.int64)
    team.run(count_calls, told, taken, entered)  # compiles
    assert fell_asleep(team, 2)
    for told[0] in range(1, 2001):
        team.run(count_calls, told, taken, entered)
    assert (taken == 2000 * 2001 // 2).all()
    assert entered[0] == 2001
    assert entered[1] < 1000  # most calls found it waiting, even on a busy machine
    before = time.process_time()
    assert fell_asleep(team, 2)
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_no_call_is_lost_around_the_moment_of_falling_asleep():
    team, told, taken, entered = Team(3), np.ones(1, np.int64), np.zeros(7, np.int64), np.zeros(3, np.int64)
    pauses = np.random.default_rng(0).uniform(0, 0.003, 600)
    for pause_before in pauses:
        deadline = time.perf_counter() + pause_before
        while time.perf_counter() < deadline:
            pass
        team.run(count_calls, told, taken, entered)
    assert (taken == len(pauses)).all()


def test_other_functions_arguments_and_lane_counts_come_between_calls():
    team, told = Team(4), np.ones(1, np.int64)
    first, second, entered = np.zeros(9, np.int64), np.zeros(9, np.int64), np.zeros(4, np.int64)
    for n in range(60):
        team.run(count_calls, told, first, entered)
        team.run(count_calls, told, second, entered, lanes=1 + n % 4)
        if n % 7 == 0:
            out = np.zeros(8, np.int64)
            team.run(mark_share, out)
            assert out.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
        team.run(count_calls, told, first, entered)
    assert (first == 120).all() and (second == 60).all()


def test_more_lanes_than_processors_do_not_poll_for_their_next_call():
    assert Team(os.cpu_count() + 1)._lane(1, 2).stay == 0


def test_a_team_can_go_while_its_lanes_wait_for_another_call():
    for _ in range(20):
        team, told, taken, entered = (
            Team(2),
            np.ones(1, np.int64),
            np.zeros(4, np.int64),
            np.zeros(2, np.int64),
        )
        team.run(count_calls, told, taken, entered)
        team.run(count_calls, told, taken, entered)
        assert team._desks[0].says[0] in (WAITING, ASLEEP) and (taken == 2).all()
        del team


def test_calls_from_many_threads_queue_up():
    team, taken = Team(2), [np.zeros(11, np.int64) for _ in range(6)]
    threads = [threading.Thread(target=team.run, args=(count_tickets, t, 50)) for t in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((t == 50).all() for t in taken)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_lanes_of_its_own():
    program = """
import os, warnings
warnings.simplefilter("ignore")
import numpy as np
from test_team import Team, count_calls, mark_share
team = Team(2)
arguments = np.ones(1, np.int64), np.zeros(4, np.int64), np.zeros(2, np.int64)
team.run(mark_share, np.zeros(4, np.int64))
team.run(count_calls, *arguments)
child = os.fork()  # while a lane waits for another call
team.run(count_calls, *arguments)
assert arguments[1].tolist() == [2, 2, 2, 2]
out = np.zeros(4, np.int64)
team.run(mark_share, out)
assert out.tolist() == [1, 1, 2, 2]
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("both")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "both\n", done.stderr


def test_a_teams_threads_end_with_it():
    def lanes():
        return sum(thread.name.startswith("rwkv-lane") for thread in threading.enumerate())

    before = lanes()
    team = Team(3)
    team.run(pause, 1)
    assert lanes() == before + 2
    del team
    deadline = time.monotonic() + 5
    while lanes() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lanes() == before


def test_another_program_does_not_wait_until_a_lane_is_tired_of_waiting():
    team, told, taken, entered = Team(2), np.zeros(1, np.int64), np.zeros(8, np.int64), np.zeros(2, np.int64)
    team.run(pause, 1)
    team._stay = 1 << 40  # polls; months
    team._views.clear()
    team.run(count_calls, told, taken, entered)
    began = time.monotonic()
    done = threading.Thread(target=team.run, args=(pause, 1), daemon=True)
    done.start()
    done.join(20)
    assert not done.is_alive() and time.monotonic() - began < 20
