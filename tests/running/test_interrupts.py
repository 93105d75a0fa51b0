"""Interrupts (ctrl-C) at any moment of a pass, of compiling and of writing: the next pass works, no state
lies about its tokens.
"""

import pytest
from hostile import run

EVERY_MOMENT = """
import dis, functools
model = load()
tokens = list(range(1, 11))
want = model.feed([3, 4], model.new_state())
files = "team.py", "machinery.py", "model.py", "state.py"

@functools.cache
def looks(code):
    "Where CPython looks for signals: behind calls and jumps, and where a function begins."
    steps = list(dis.get_instructions(code))
    return {after.offset for step, after in zip(steps, steps[1:])
            if step.opname.startswith("CALL") or "JUMP" in step.opname or step.opname == "RESUME"}

def interrupted_at(number, work):
    "Do `work` with an interrupt at the moment `number`; whether there is one."
    seen = 0
    def trace(frame, event, about):
        nonlocal seen
        if os.path.basename(frame.f_code.co_filename) not in files: return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in looks(frame.f_code):
            seen += 1
            if seen == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks at it when tracing begins
    sys.settrace(trace)
    try: work()
    except KeyboardInterrupt: return True
    finally: sys.settrace(None)
    return False

def works(fresh):
    for number in range(1, 1000):
        model, state, work = fresh()
        again = interrupted_at(number, work)
        assert np.array_equal(model.feed([3, 4], model.new_state()), want), number
        assert not lies(state, model, tokens), number
        if not again: return number
"""
WAYS = {
    "feed": "lambda m, s: m.feed(tokens, s)",
    "skim": "lambda m, s: m.skim(tokens, s)",
    "several passes": "lambda m, s: m.feed(tokens, s)",
    "feed_batch": "lambda m, s: m.feed_batch([(tokens, s), ([5], m.new_state())])",
    "generate": "lambda m, s: list(m.generate(tokens[:2], state=s, max_tokens=3, sampling=rwkv_engine.Sampling(temperature=0)))",
}


@pytest.mark.parametrize("way", WAYS)
def test_after_an_interrupt_at_any_moment_the_next_pass_works_and_no_state_lies(small, way):
    code = f"""
way = {WAYS[way]}
if {way == "several passes"}:
    import rwkv_engine.model
    rwkv_engine.model.CHUNK = 4
if {way == "generate"}:
    steps = list(model.generate(tokens[:2], max_tokens=3, sampling=rwkv_engine.Sampling(temperature=0)))
    tokens = tokens[:2] + [step.token for step in steps]

def fresh():
    state = model.new_state()
    return model, state, lambda: way(model, state)

print(works(fresh) > 50)
"""
    assert run(EVERY_MOMENT + code, small) == "True\n"


def test_after_an_interrupt_at_any_moment_of_the_first_pass_the_next_one_works(small):
    code = """
def fresh():
    model = load(threads=3)
    state = model.new_state()
    return model, state, lambda: model.feed(tokens, state)

assert works(fresh) > 50
deadline = time.monotonic() + 20
gc.collect()
while sum(thread.name.startswith("rwkv-lane") for thread in threading.enumerate()) > 3 and time.monotonic() < deadline: time.sleep(0.01)
print([thread.name for thread in threading.enumerate() if thread.name.startswith("rwkv-lane")])
"""
    assert (
        run(EVERY_MOMENT + code, small).count("rwkv-lane") <= 3
    )  # threads of teams that are gone have ended


SIGNALS = """
count, seed = int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
model, main = load(), threading.get_ident()
tokens = [n % 256 for n in range(1, 300)]
logits = model.feed(tokens[:9], model.new_state())
steps = list(model.generate(tokens[:2], max_tokens=400, sampling=rwkv_engine.Sampling(temperature=0)))
written = tokens[:2] + [step.token for step in steps]

def feed(state):
    for start in range(0, 299, 23): model.feed(tokens[start:start + 23], state)
def long(state): model.feed(tokens, state)
def generate(state):
    for step in model.generate(tokens[:2], state=state, max_tokens=400, sampling=rwkv_engine.Sampling(temperature=0)): pass

def timed(way):
    began = time.perf_counter(); way(model.new_state()); return time.perf_counter() - began

ways = [(way, text, timed(way)) for way, text in ((feed, tokens), (long, tokens), (generate, written))]
hits = broken = 0
while hits < count:
    way, text, seconds = random.choice(ways)
    state = model.new_state()
    alarm = threading.Timer(random.uniform(0, seconds), signal.pthread_kill, (main, signal.SIGINT))
    try:
        try:
            alarm.start()
            way(state)
        finally:
            alarm.join()
    except KeyboardInterrupt:
        hits += 1
    assert np.array_equal(model.feed(tokens[:9], model.new_state()), logits)
    assert not lies(state, model, text)
    broken += not usable(state)
print(hits)
"""


def test_after_an_interrupt_at_a_random_moment_the_next_pass_works(small):
    assert run(SIGNALS, small, 20, 1, timeout=400) == "20\n"


@pytest.mark.slow
def test_after_300_interrupts_at_random_moments_the_next_pass_works(small):
    assert run(SIGNALS, small, 300, 2, timeout=600) == "300\n"


COMPILING = """
count, longest, seed = int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
random.seed(seed)
model, main = load(), threading.get_ident()
state, hits = model.new_state(), 0
while True:
    last = hits == count
    alarm = threading.Timer(random.uniform(0, longest), signal.pthread_kill, (main, signal.SIGINT))
    try:
        try:
            if not last: alarm.start()
            logits = model.feed([1, 2, 3], state)
        finally:
            if not last: alarm.join()
        break
    except KeyboardInterrupt:
        hits += 1
        assert not lies(state, model, [1, 2, 3]) if not usable(state) else state.position in (0, 3)
        state = model.new_state()
print(hits, np.array_equal(logits, load().feed([1, 2, 3], load().new_state())))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_compiling_can_be_interrupted_again_and_again(small, tmp_path, seed):
    hits, same = run(COMPILING, small, 10, 6, seed, timeout=600, NUMBA_CACHE_DIR=str(tmp_path)).split()
    assert int(hits) > 0 and same == "True"


@pytest.mark.slow
def test_an_interrupt_while_compiling_leaves_the_state_as_it_was(small, tmp_path):
    code = """
from numba.core import event
class Listener(event.Listener):
    def on_start(self, about):
        if about.data["dispatcher"].__name__ == "barrier": raise KeyboardInterrupt
    def on_end(self, about): pass
model = load()
state = model.new_state()
with event.install_listener("numba:compile", Listener()):
    try: model.feed([1, 2], state)
    except KeyboardInterrupt: print("interrupted")
assert state == model.new_state()
print(np.isfinite(model.feed([1, 2], state)).all(), state.position)
"""
    assert run(code, small, timeout=300, NUMBA_CACHE_DIR=str(tmp_path)) == "interrupted\nTrue 2\n"


def test_an_interrupt_that_comes_while_llvm_calls_back_is_not_lost(small, tmp_path):
    code = """
plain, seen = ExecutionEngine.set_object_cache, []
def hear(self, notify, getbuffer):
    def interrupted(*about):
        seen.append(1)
        if len(seen) == 1: raise KeyboardInterrupt
        notify(*about)
    plain(self, interrupted, getbuffer)
ExecutionEngine.set_object_cache = hear
from rwkv_engine.kernels.calling import ring
try: ring(0, 0, True)
except KeyboardInterrupt: print("interrupted")
print(ring(0, 0, True))
"""
    begin = "from llvmlite.binding.executionengine import ExecutionEngine"
    assert run(code, small, begin=begin, NUMBA_CACHE_DIR=str(tmp_path)) == "interrupted\n0\n"
