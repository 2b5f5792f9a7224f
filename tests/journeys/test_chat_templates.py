"""Templates that write before the answer: what exact match says, `generate` gives."""

import json

import pytest

from fledge.commands.generate import generate
from fledge.commands.train import train
from tests.runs import load

THINKING = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.last %}"
    "{{- '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
    "{{- m.content + '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"
)
SPACED = (
    "{%- for m in messages %}{{- m.role | upper + ': ' + m.content }}"
    "{{- '<|im_end|>' if m.role == 'assistant' else ' ' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{% endif %}"
)
BIRDS = ["crows", "tits", "owls"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "reasoning", "expected"),
    [
        (THINKING, True, "<think>\nOne has 2.\n</think>\n\n{} legs."),
        (THINKING, False, "<think>\n\n</think>\n\n{} legs."),
        (SPACED, False, " {} legs."),
    ],
    ids=["reasoning", "no reasoning", "a space"],
)
def test_generate_gives_the_answers_that_exact_match_counts(template, reasoning, expected, tmp_path):
    questions = {f"How many legs have {n} {bird}?": 2 * n for n in range(2, 6) for bird in BIRDS}
    thought = {"reasoning_content": "One has 2."} if reasoning else {}
    with (tmp_path / "rows.jsonl").open("w") as file:
        for question, legs in questions.items():
            answer = {"role": "assistant", "content": f"{legs} legs."} | thought
            file.write(json.dumps({"messages": [{"role": "user", "content": question}, answer]}) + "\n")
    (tmp_path / "own.jinja").write_text(template)
    source = {"path": "./rows.jsonl", "format": "chat"}
    recipe = {
        "model": {"name_or_path": "builtin:nestling"},
        "data": {
            "train": source,
            "validation": source,
            "chat_template": "./own.jinja",
            "new_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "max_length": 256,
        },
        "lora": {"r": 32},
        "train": {"max_steps": 110, "global_batch_size": 12, "learning_rate": 3e-3},
        "evaluate": {"exact_match": True, "max_new_tokens": 40, "every_steps": 110},
        "output": {"dir": "./run"},
    }
    summary = train(load(tmp_path, recipe)).summary
    assert summary["exact_match_before"] == 0.0 and summary["exact_match_after"] == 1.0
    predictions = [json.loads(line) for line in (tmp_path / "run/evaluation/predictions.jsonl").open()]
    for prediction, (question, legs) in list(zip(predictions, questions.items(), strict=True))[::4]:
        given = generate(tmp_path / "run", question)
        assert given.is_complete and given.text == prediction["tuned"] == prediction["reference"]
        assert given.text == expected.format(legs)
