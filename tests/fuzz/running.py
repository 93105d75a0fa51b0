"""Runs cases in a process of its own, which may die, hang or swell without taking the caller along."""

import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

SECONDS, BYTES, LETTERS = 5.0, 300 << 20, 700
#: cases between two words of a process to its caller
TOLD = 200


def run(name, seed, first, count, seconds=1e9):
    """(number of a case, what was wrong with it or None): of every case with a finding, and of others now and
    then.

    count  cases in all.    seconds  after which to end early.
    """
    end, number, last = time.time() + seconds, first, first + count
    context = multiprocessing.get_context("spawn")
    while number < last and time.time() < end:
        at = context.Value("q", number, lock=False)
        ours, theirs = context.Pipe(False)
        child = context.Process(target=_work, args=(name, seed, number, last, end, at, theirs), daemon=True)
        child.start()
        theirs.close()
        seen, since = -1, time.time()
        while child.is_alive() or ours.poll():
            if ours.poll(0.05):
                try:
                    yield ours.recv()
                except EOFError:
                    break
            if at.value != seen:
                seen, since = at.value, time.time()
            elif time.time() - since > 4 * SECONDS + 20 * (seen == number):
                child.kill()
        child.join()
        if child.exitcode == 0:
            return
        what = "hangs" if child.exitcode == -signal.SIGKILL else f"dies, exit code {child.exitcode}"
        yield at.value, what
        number = at.value + 1


def _work(name, seed, first, last, end, at, pipe):
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "checkpoints")]
    from tests.fuzz.readers import READERS

    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        make, read = READERS[name](Path(folder))
        make(random.Random(f"{name} {seed} warm"))
        limit = _size() + 4 * BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        number = first
        for number in range(first, last):
            at.value = number
            finding = of_case(read, make(random.Random(f"{name} {seed} {number}")))
            swollen = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - base
            if swollen > BYTES:
                pipe.send((number, f"takes {swollen >> 20} MB"))
                base += swollen
            if finding or number % TOLD == 0:
                pipe.send((number, finding))
            if time.time() > end:
                break
        pipe.send((number, None))


def of_case(read, content):
    """What is wrong with how `content` is read; None: it is read, or refused in one line."""
    from rwkv_engine import EngineError

    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read(content)
    except EngineError as error:
        said = str(error)
        if "\n" in said or len(said) > LETTERS or not said:
            return f"message of {len(said)} letters: {said[:200]!r}"
    except TimeoutError:
        return f"takes over {SECONDS} seconds"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:150]!r} in {Path(frame.filename).name}:{frame.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _late(number, frame):
    raise TimeoutError


def _size():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
