"""A program as a user would write it. It is never run: type checkers read it (test_door.py)."""

from collections.abc import Generator, Iterator

import numpy as np
import numpy.typing as npt

from rwkv_engine import (
    Batch,
    CheckpointError,
    Constraint,
    Conversation,
    Course,
    DownloadError,
    EngineError,
    MissingExtra,
    MissingTensor,
    Model,
    ModelConfig,
    OptionError,
    Part,
    PrefixCache,
    Sampling,
    SessionError,
    State,
    StateError,
    Step,
    Template,
    TokenError,
    Turn,
    UnknownLayout,
    UnsupportedSystem,
    Usage,
    WrongShape,
    __version__,
    blend,
    calibrate,
    describe,
    distill,
    evaluate,
    load,
    prune,
    pull,
    quantize,
    watch_compiling,
)

PROMPT = "Once upon a time"
Row = npt.NDArray[np.float32]


def open_model(name: str) -> Model | None:
    watch_compiling(lambda functions, seconds, done: print(functions + 1, f"{seconds:.0f}", not done))
    try:
        pull(name)
        found = describe(name)
        print(__version__, found.family, found.parameters, found.memory["int8"].total)
        quantize(name, "model-int8.safetensors", "int8")
        return load("model-int8.safetensors", threads=2, ram="900M")
    except (UnknownLayout, MissingTensor, WrongShape) as error:
        print(error.path, error.name, error.got, error.wanted)
    except (CheckpointError, DownloadError, MissingExtra, UnsupportedSystem) as error:
        print(f"{error.path}: {error}")
    return None


def write(model: Model, schema: str) -> str:
    sampling = Sampling(temperature=0.7, top_k=40, seed=1)
    constraint = Constraint.json_schema(schema)
    state: State = model.new_state()
    steps: Generator[Step] = model.generate(PROMPT, sampling=sampling, state=state, constraint=constraint)
    text = ""
    for step in steps:
        text += step.text
        if len(text) > 100:
            steps.close()
    likeliest: list[tuple[int, float]] = [
        pair for step in model.generate([1, 2], alternatives=3) for pair in step.alternatives
    ]
    return f"{text} {likeliest}"


def logits(model: Model, other: State) -> Row:
    config: ModelConfig = model.config
    state = blend(model.new_state(), other, 0.5)
    row: Row = model.feed(range(config.vocab), state)
    rows: Row = model.feed_batch([([1], state), (np.array([2]), other)])
    planes: Row = state[state.names[0]]
    again: State = State.from_bytes(state.to_bytes(), model)
    scores: Row = model.score(PROMPT, context=(n for n in [1, 2]))
    vectors: Row = model.embed([PROMPT, [1, 2]])
    print(row.sum(), planes.shape, model.count(PROMPT), again, scores + vectors[0])
    return rows


def answered(model: Model, template: Template) -> list[Turn]:
    conversation = Conversation(model, template, system="Be brief.")
    try:
        parts: Iterator[Part] = conversation.say("Who has the ball?", max_tokens=64)
        print("".join(part.text for part in parts if part.kind == "answer"))
    except (OptionError, StateError, TokenError, SessionError) as error:
        print(error)
    except EngineError:
        raise SystemExit(1) from None
    return conversation.turns


def cached(model: Model, cache: PrefixCache) -> int:
    return sum(1 for _ in model.generate(PROMPT * 100, prefix_cache=cache))


def together(model: Model, prompts: list[str]) -> dict[int, str]:
    batch = Batch(model, max_sequences=8)
    texts = {batch.add(prompt, max_tokens=20): "" for prompt in prompts}
    while len(batch):
        for ticket, step in batch.step():
            texts[ticket] += step.text
            usage: Usage = step.usage
            print(usage.rate)
    return texts


def measured(path: str) -> float:
    prune(path, "smaller.safetensors", ffn=0.5, text="story.txt")
    calibrated = calibrate(path, "fitted.safetensors", ["story.txt"], "int4")
    print(calibrated.losses[0].calibrated, calibrated.warning)
    distill(path, "small.safetensors", layers=2, width=64, text="story.txt", course=Course(rows=2))
    rows = evaluate([path, "smaller.safetensors"], texts=["story.txt"], weights=["bf16", "int4"])
    return sum(row.tokens_per_second or 0 for row in rows)
