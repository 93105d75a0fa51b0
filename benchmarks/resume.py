"""How soon a long conversation resumes: seconds from start to the first byte of the answer, for one of many
tokens and a new one.

    python benchmarks/resume.py [TOKENS]        (50,000)

Bound: the state is one file of constant size, so both should take what the program takes to start. The last
line is JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import rwkv_engine
from rwkv_engine.chat import Session, Store
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.text.templates import find_template

RUNS, TURN = 7, 400


def hold(folder: str, wanted: int) -> tuple[int, int, float]:
    """Hold and keep a conversation of `wanted` tokens: its tokens, its turns, and the seconds of reading it."""
    model = rwkv_engine.load()
    store = Store(f"{folder}/rwkv_engine")
    conversation = Conversation(model, find_template(model.config.vocab))
    session = Session(store, conversation, "long")
    start = time.perf_counter()
    while conversation.tokens < wanted:
        number = len(conversation.turns)
        text = f"Tom went to the park with {number} cats. " * (TURN // 12)
        for _ in conversation.say(f"{text} Where is Tom?", rwkv_engine.Sampling(temperature=0), 12):
            pass
        if number % 20 == 0:
            session.keep({})
    session.keep({})
    seconds = time.perf_counter() - start
    store.close()
    return conversation.tokens, len(conversation.turns), seconds


def first_byte(folder: str, *options: str) -> float:
    """Seconds from the start of `rwkv chat` to the first byte of an answer."""
    start = time.perf_counter()
    chat = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rwkv_engine_cli.app",
            "chat",
            "--temperature",
            "0",
            "--max-tokens",
            "8",
            *options,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "XDG_DATA_HOME": folder},
    )
    assert chat.stdin and chat.stdout
    chat.stdin.write(b"Where is Tom?\n")
    chat.stdin.close()
    chat.stdout.read(1)
    seconds = time.perf_counter() - start
    chat.stdout.read()
    chat.wait()
    return seconds


def main() -> None:
    """Print the table and the JSON line."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as folder:
        tokens, turns, reading = hold(folder, wanted)
        first_byte(folder, "--no-save")  # compiles, if need be
        new = statistics.median(first_byte(folder, "--no-save") for _ in range(RUNS))
        again = statistics.median(first_byte(folder, "--session", "long") for _ in range(RUNS))
    print(f"{'reading it all':<32}{reading:8.2f} s for {tokens:,} tokens in {turns} turns")
    print(f"{'first byte, new conversation':<32}{new:8.2f} s")
    print(f"{'first byte, going on with it':<32}{again:8.2f} s")
    print(
        json.dumps({"tokens": tokens, "turns": turns, "reading_s": reading, "new_s": new, "resume_s": again})
    )


if __name__ == "__main__":
    main()
