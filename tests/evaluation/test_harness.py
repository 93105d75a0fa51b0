"""The lm-evaluation-harness on this engine: a local task gives the numbers of `evaluate`; skipped where
lm_eval is not installed.
"""

import json
import math

import pytest

import rwkv_engine

pytest.importorskip("lm_eval", reason="needs lm_eval (the extra lm-eval), which brings much along")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STORIES = ["Once upon a time there was a kind girl named Mia.", "Tom lost the blue kite.", "Anna has a cat."]
QUESTIONS = [
    (
        "User: Mia has a red ball. What colour is the ball?\n\nAssistant: The ball is",
        ["blue.", "red.", "green."],
        1,
    ),
    ("User: Tom is in the park. Where is Tom?\n\nAssistant: Tom is in the", ["kitchen.", "garden."], 0),
    ("User: Anna has two cats.\n\nAssistant:", ["Anna has two cats.", "Anna"], 0),
]
ASKED = [("User: Mia went to the park. Where is Mia?\n\nAssistant:", "Mia is in the park.")]
HEAD = "dataset_path: json\ntest_split: test\ndataset_kwargs: {data_files: {test: %s}}\ntask: %s\n"
TASKS = {
    "choose": 'output_type: multiple_choice\ndoc_to_text: "{{prompt}}"\ndoc_to_choice: "{{choices}}"\n'
    'doc_to_target: "{{answer}}"\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n',
    "words": "output_type: loglikelihood\ndoc_to_text: \"{{text.split(' ')[:-1]|join(' ')}}\"\n"
    "doc_to_target: \" {{text.split(' ')[-1]}}\"\nmetric_list: [{metric: perplexity}, {metric: acc}]\n",
    "roll": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n'
    "metric_list: [{metric: bits_per_byte}]\n",
    "write": 'output_type: generate_until\ndoc_to_text: "{{prompt}}"\ndoc_to_target: "{{answer}}"\n'
    'generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 40}\n'
    "metric_list: [{metric: exact_match, ignore_case: false}]\n"
    "filter_list: [{name: none, filter: [{function: remove_whitespace}, {function: take_first}]}]\n",
}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """The harness keeps its files here, and asks no network."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def put(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.yaml").write_text(HEAD % (folder / f"{name}.jsonl", name) + TASKS[name])


def test_a_local_task_gives_the_numbers_of_evaluate(tmp_path):
    import lm_eval
    from lm_eval.tasks import TaskManager

    from rwkv_engine.evaluation.harness import HarnessModel

    rows = {
        "choose": [{"prompt": p, "choices": c, "answer": a} for p, c, a in QUESTIONS],
        "words": [{"text": text} for text in STORIES],
        "roll": [{"text": text} for text in STORIES],
        "write": [{"prompt": p, "answer": a} for p, a in ASKED],
    }
    for name, lines in rows.items():
        put(tmp_path, name, lines)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(HarnessModel(), tasks=list(rows), task_manager=manager, bootstrap_iters=0)
    theirs = found["results"]
    files = [tmp_path / f"{name}.jsonl" for name in ("choose", "words", "write")]
    (row,) = rwkv_engine.evaluate(tasks=files, memory=False)
    choose, words, write = row.tasks
    assert theirs["choose"]["acc,none"] == pytest.approx(choose.accuracy)
    assert theirs["choose"]["acc_norm,none"] == pytest.approx(choose.by_length)
    assert theirs["words"]["acc,none"] == pytest.approx(words.accuracy)
    assert theirs["words"]["perplexity,none"] == pytest.approx(words.perplexity, rel=1e-5)
    assert theirs["write"]["exact_match,none"] == write.accuracy == 1
    bits = 0.0
    for text in STORIES:
        (tmp_path / "t.txt").write_text(text)
        (one,) = rwkv_engine.evaluate(texts=[tmp_path / "t.txt"], memory=False)
        bits += one.bits_per_byte * len(text)
    assert theirs["roll"]["bits_per_byte,none"] == pytest.approx(bits / sum(map(len, STORIES)), rel=1e-5)
    assert math.isfinite(bits)


def test_its_command_asks_a_hundred_questions_of_a_format_as_evaluate_does(tmp_path, monkeypatch, capsys):
    from rwkv_engine_weights.recipe.evaluate import near_questions

    from rwkv_engine.evaluation.harness import main

    asked = list(near_questions(9, 100))
    put(tmp_path, "write", [{"prompt": q.prompt, "answer": q.answer} for q in asked])
    put(tmp_path, "words", [{"text": q.prompt + " " + q.answer} for q in asked])
    out = tmp_path / "out"
    monkeypatch.setattr(
        "sys.argv",
        ["rwkv-lm-eval", "--model", "rwkv_engine", "--model_args", "weights=int8"]
        + ["--include_path", str(tmp_path), "--tasks", "write,words", "--output_path", str(out)],
    )
    main()
    (file,) = out.rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]
    (row,) = rwkv_engine.evaluate(
        tasks=[tmp_path / "write.jsonl", tmp_path / "words.jsonl"], weights="int8", memory=False
    )
    write, words = row.tasks
    assert theirs["write"]["exact_match,none"] == write.accuracy > 0.9
    assert theirs["words"]["acc,none"] == words.accuracy > 0.5
    assert theirs["words"]["perplexity,none"] == pytest.approx(words.perplexity, rel=1e-5)
