"""Distillation: the loss against plain numpy, what a student begins with, that a run that was stopped ends
with the same numbers, and what is refused.
"""

import importlib.util
import json

import numpy as np
import pytest

import rwkv_engine
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.shrinking.corpus import Corpus

STORY = "Once upon a time there was a kind girl named Mia. She had a red ball. Mia went to the park.\n\n"
SMALL = rwkv_engine.Course(tokens=640, rows=2, length=32, rate=1e-3)
TORCH = pytest.mark.skipif(
    not importlib.util.find_spec("torch"), reason="torch (extra `train`) is not installed"
)


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY * 20)
    return path


def documents(path, *texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_rows_follow_from_the_step_and_begin_with_documents(tmp_path, embedded):
    texts = [f"Mia has {number} cats. Tom went to the park." for number in range(40)]
    first = documents(tmp_path / "a.jsonl", *texts)
    (tmp_path / "b.txt").write_text(STORY * 5)
    made = [Corpus([first, tmp_path / "b.txt"], embedded.tokenizer, tmp_path / "t.bin", 12) for _ in range(2)]
    rows = made[0].rows(8, 1, 5, 0.0)
    assert rows.shape == (8, 13) and (rows == made[1].rows(8, 1, 5, 0.0)).all()
    assert not (rows == made[0].rows(8, 1, 6, 0.0)).all() and not (rows == made[0].rows(8, 2, 5, 0.0)).all()
    heads = {embedded.tokenizer.decode(row[row != embedded.tokenizer.end])[:8] for row in rows}
    assert heads <= {"Mia has "} and {row[0] == embedded.tokenizer.end for row in rows} == {True, False}
    later = made[0].rows(8, 1, 5, 0.99)
    assert all(embedded.tokenizer.decode(row) in STORY * 5 for row in later)


@TORCH
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_divergence_is_the_mean_kl_and_that_of_the_likeliest_is_at_most_as_large(temperature):
    import torch
    from rwkv_engine_weights.recipe.student import divergence

    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(size=(2, 7, 30)) * 3
    p, q = (np.exp(x / temperature) for x in (theirs, ours))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    want = (p * np.log(p / q)).sum(-1).mean() * temperature**2
    own, far = (torch.tensor(x, dtype=torch.float32) for x in (ours, theirs))
    assert divergence(own, far, temperature, 30).item() == pytest.approx(want, rel=1e-5)
    top = np.argsort(-p, -1)[:, :4]
    a, b = (np.take_along_axis(x, top, -1) for x in (p, q))
    a, b = (np.concatenate([x, 1 - x.sum(-1, keepdims=True)], -1) for x in (a, b))
    few = divergence(own, far, temperature, 4).item()
    assert few == pytest.approx((a * np.log(a / b)).sum(-1).mean() * temperature**2, rel=1e-4)
    assert 0 < few < want and divergence(far, far, temperature, 4).item() == pytest.approx(0, abs=1e-5)


@TORCH
def test_a_student_of_the_teachers_sizes_begins_as_the_teacher(embedded):
    import torch
    from rwkv_engine_weights.recipe import student

    from rwkv_engine.shrinking.distill import _finder, _sizes_of

    sizes = student.sizes_of(2048, 3, 256, None, _sizes_of(embedded))
    network = student.student_of(sizes, 1, _finder(embedded.checkpoint), 3, None)
    ids = embedded.tokenizer.encode(STORY)
    want = embedded.feed(ids, embedded.new_state(), every=True)
    got = network(torch.tensor([ids]))[0].detach().numpy()
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()


@TORCH
def test_a_narrow_student_begins_with_the_nearest_embedding_and_head(embedded):
    from rwkv_engine_weights.recipe import student

    from rwkv_engine.shrinking.distill import _finder

    find = _finder(embedded.checkpoint)
    network = student.student_of(student.sizes_of(2048, 2, 64, None, None), 1, find, 3, None)
    for name in ("emb.weight", "head.weight"):
        theirs, own = find(name).astype(np.float64), network.state_dict()[name].numpy().astype(np.float64)
        least = np.linalg.svd(theirs, compute_uv=False)[64:]
        away = theirs @ theirs.T - own @ own.T
        assert np.linalg.norm(away) == pytest.approx(np.linalg.norm(least**2), rel=1e-3)


@TORCH
def test_a_run_that_was_stopped_ends_with_the_numbers_of_one_that_was_not(tmp_path, story, monkeypatch):
    from rwkv_engine_weights.recipe import loop

    monkeypatch.setattr(loop, "REPORT_STEPS", 1)
    monkeypatch.setattr(loop, "KEEP_SECONDS", 0.0)
    lines, wishes = [], {"layers": 1, "width": 64, "text": story, "course": SMALL, "threads": 1}
    done = rwkv_engine.distill(None, tmp_path / "whole.safetensors", **wishes, tell=lines.append)
    assert done.tokens == 640 and done.parameters < done.teacher and len(lines) == 11

    def stop(line):
        if line.startswith("step 6 "):
            raise KeyboardInterrupt

    target = tmp_path / "again.safetensors"
    with pytest.raises(KeyboardInterrupt):
        rwkv_engine.distill(None, target, **wishes, tell=stop)
    assert not target.exists()
    other = wishes | {"course": rwkv_engine.Course(tokens=641, rows=2, length=32)}
    with pytest.raises(rwkv_engine.OptionError, match="another teacher, text or setting"):
        rwkv_engine.distill(None, target, **other)
    lines.clear()
    rwkv_engine.distill(None, target, **wishes, tell=lines.append)
    assert lines[1].startswith("step 6 ") and not (tmp_path / "again.safetensors.training").exists()
    assert target.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    model = rwkv_engine.load(target)
    assert (model.config.layers, model.config.width, model.vocab) == (1, 64, 2048)
    assert open_checkpoint(target).tensors["head.weight"].dtype == "BF16"


@TORCH
def test_a_student_comes_nearer_to_what_it_learns_from(tmp_path, story, embedded):
    for name, steps in (("begun", 1), ("taught", 20)):
        course = rwkv_engine.Course(tokens=steps * 64, rows=1, length=64, rate=2e-2, hidden=1.0)
        target = tmp_path / f"{name}.safetensors"
        rwkv_engine.distill(None, target, layers=1, width=64, text=story, course=course, threads=1)
    rows = rwkv_engine.evaluate(
        [tmp_path / "begun.safetensors", tmp_path / "taught.safetensors"],
        texts=[story],
        against=embedded.checkpoint.path,
        memory=False,
    )
    assert rows[1].kl_mean < 0.8 * rows[0].kl_mean


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--width", 512), "the teacher has 256: a student is not wider"),
        (("--width", 100), "a multiple of 64"),
        (("--layers", 0), "a whole number of 1 or more"),
        (("--length", 0), "a whole number of 1 or more"),
        (("--temperature", 0), "above 0"),
        (("--truth", 2), "between 0 and 1"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(tmp_path, rwkv, story, options, why):
    wishes = {"--width": 64, "--layers": 1, "--text": story} | dict([options])
    asked = [part for wish in wishes.items() for part in wish]
    assert why in rwkv("distill", "embedded", tmp_path / "s", *asked, status=2)


@TORCH
@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.txt", "", "is empty"),
        ("t.txt", "Mia.", "a row takes 257"),
        ("t.jsonl", '{"prompt": "a"}\n', "line 1: got"),
        ("t.jsonl", "\n", "is empty"),
    ],
)
def test_a_text_to_learn_nothing_from_is_refused_and_leaves_no_target(tmp_path, rwkv, name, content, why):
    (tmp_path / name).write_text(content)
    asked = ("--layers", 1, "--width", 64, "--text", tmp_path / name)
    assert why in rwkv("distill", "embedded", tmp_path / "s", *asked, status=2)
    assert not (tmp_path / "s").exists()


def test_without_torch_one_sentence_says_how_to_get_it(tmp_path, story, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest)
    )
    with pytest.raises(rwkv_engine.MissingExtra, match="distill needs the package torch"):
        rwkv_engine.distill(None, tmp_path / "s", layers=1, width=64, text=story)
