"""Fuzzing: every reader of the engine is given damaged input, each case in its own bounds.

    python -m tests.fuzz                                   # the readers, and a few cases of each
    python -m tests.fuzz safetensors --count 100000 --seed 1

A case is made of (reader, seed, number) alone, so that a finding can be repeated: `--first NUMBER --count 1`.
It has to end in a result or an EngineError of one line within five seconds, and with less than 300 MB more
than before.
"""
