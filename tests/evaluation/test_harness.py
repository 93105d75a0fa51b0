"""The lm-evaluation-harness on this engine: a local task gives the numbers of `evaluate`; skipped where
lm_eval is not installed.
"""

import json
import math

import pytest

import rwkv_engine

pytest.importorskip("lm_eval", reason="needs lm_eval (the extra lm-eval), which brings much along")

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


@pytest.mark.filterwarnings("ignore")
def test_a_local_task_gives_the_numbers_of_evaluate(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
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
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / f"{name}.yaml").write_text(HEAD % (tmp_path / f"{name}.jsonl", name) + TASKS[name])
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
