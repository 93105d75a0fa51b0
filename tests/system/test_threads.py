"""Where the system refuses threads (a container's limit on processes), everything runs on the caller's own."""

import threading

import numpy as np
import pytest
from rwkv_engine_cli.preparing import Preparation

import rwkv_engine
from rwkv_engine import EngineError
from rwkv_engine.system.threads import each


@pytest.fixture
def refused(monkeypatch):
    """What a limit does to a thread that is started."""

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_every_piece_is_worked_on(refused):
    done = []
    each(done.append, range(5), 3)
    assert sorted(set(done)) == list(range(5))


def test_what_a_piece_runs_into_is_raised():
    with pytest.raises(ZeroDivisionError):
        each(lambda piece: 1 / piece, [1, 0], 2)


@pytest.mark.parametrize("weights", ["int4"])
def test_a_model_is_quantized_prepared_and_runs(refused, checkpoints, tokenizer_file, weights):
    path = checkpoints("7", "F32")[0]
    models = [
        rwkv_engine.load(path, weights, threads, tokenizer=tokenizer_file, cache=False) for threads in (1, 2)
    ]
    assert Preparation(*models).wait()
    first, second = (model.feed([1, 2, 3], model.new_state()) for model in models)
    assert np.array_equal(first, second)


def test_the_server_says_what_it_needs(refused):
    engine = pytest.importorskip("rwkv_engine.serve.engine", reason="the extra serve is not installed")
    with pytest.raises(EngineError, match="refuses a thread; allow more"):
        engine.Engine(print)
