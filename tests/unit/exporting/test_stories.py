"""Real trained weights, tuned and exported: far within the limits, and their tokenizer is read alike."""

import json

import pytest

from fledge.commands.train import train
from tests.runs import load, recipe_dict
from tests.unit.exporting.drafts import ask, write

KINDS = {"hf": ("hf", "float32"), "f16": ("gguf", "f16"), "bf16": ("gguf", "bf16"), "q8_0": ("gguf", "q8_0")}


@pytest.fixture(scope="module")
def checks(shared, tmp_path_factory):
    folder, written = tmp_path_factory.mktemp("stories"), {}
    rows = [
        {"prompt": f"Once upon a time, {name} found a {thing}.", "completion": f" {name} was happy and said thank you."}
        for name in ("Lily", "Tom", "Ben", "Mia", "Sam", "Anna", "Max", "Sue")
        for thing in ("ball", "dog", "cat", "tree", "book", "cake", "hat", "boat")
    ]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    changes = {"data__validation": {"fraction": 0.2}, "train__max_steps": 12, "train__learning_rate": 3e-3}
    base = shared / "data/weights/stories260K/hf"
    train(load(folder, recipe_dict(base, path, folder / "run", **changes)))
    for name, (to, dtype) in KINDS.items():
        written[name] = write(folder / "run", folder / name, to=to, dtype=dtype)
    found = ask(written)
    return {name: each.draft.prove(each.folder, found[name]) for name, each in written.items()}


@pytest.mark.parametrize("name", KINDS)
def test_a_tuned_model_of_stories_is_exported_far_within_the_limits(name, checks):
    logits = checks[name]["logits"]
    assert logits["positions"] > 150 and checks[name]["effect"]["mean_kl"] > 0.1
    assert logits["relative"] < logits["tolerance"]["relative"] / 3
    assert logits["mean_kl"] < logits["tolerance"]["mean_kl"] / 10
    text = checks[name]["text"]
    assert text["same"] + text["ties"] == 4 and checks[name]["files"]["differing"] == 0
    # behind the sentence come tokens that this base has never seen, all with the same vector: a tie of many
    assert all(said["trained"].split(".")[0] == said["exported"].split(".")[0] for said in text["answers"])
    assert checks[name]["bos"]["expected"] == checks[name]["bos"]["found"] == [1] * checks[name]["bos"]["rows"]


def test_a_finer_number_format_comes_closer(checks):
    order = [checks[name]["logits"]["mean_kl"] for name in ("hf", "f16", "bf16", "q8_0")]
    assert order == sorted(order)


def test_the_words_of_the_file_are_read_alike_by_transformers(checks):
    assert all(checks[name]["tokenizer"]["in_transformers"] == {"texts": 12, "same": 12} for name in ("f16", "q8_0"))
