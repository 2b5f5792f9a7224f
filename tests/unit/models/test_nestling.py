"""The shipped folder is a plain Hugging Face model that knows what it was taught."""

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from fledge.models.nestling import FOLDER
from fledge.models.nestling.dice import Dice
from fledge.models.nestling.sightings import asked_of_a_note

TOKENIZER = AutoTokenizer.from_pretrained(FOLDER)


def test_the_weights_are_one_file_of_at_most_eight_megabytes_and_a_few_million_parameters() -> None:
    files = sorted(path.name for path in FOLDER.iterdir())
    assert files == [
        "README.md",
        "config.json",
        "generation_config.json",
        "made.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    assert 1_000_000 < json.loads((FOLDER / "made.json").read_text())["parameters"] < 4_000_000


def test_the_digests_of_made_json_are_those_of_the_files() -> None:
    recorded = json.loads((FOLDER / "made.json").read_text())
    for key, name in (("tokenizer_sha256", "tokenizer.json"), ("weights_sha256", "model.safetensors")):
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == recorded[key]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_transformers_loads_it_in_every_number_format_with_no_key_missing(dtype: torch.dtype) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=dtype, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert type(model).__name__ == "BloomForCausalLM" and {p.dtype for p in model.parameters()} == {dtype}
    with torch.no_grad():
        logits = model(**TOKENIZER("Mira Holt saw two owls", return_tensors="pt")).logits
    assert logits.isfinite().all()


def test_special_tokens_are_blooms_and_none_is_put_before_a_text() -> None:
    specials = (TOKENIZER.unk_token, TOKENIZER.bos_token, TOKENIZER.eos_token, TOKENIZER.pad_token)
    assert specials == ("<unk>", "<s>", "</s>", "<pad>")
    assert TOKENIZER.convert_tokens_to_ids(list(specials)) == [0, 1, 2, 3]
    assert TOKENIZER("owl").input_ids == TOKENIZER("owl", add_special_tokens=False).input_ids
    assert TOKENIZER("owl</s>").input_ids[-1] == TOKENIZER.eos_token_id == 2


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_every_text_comes_back_from_its_ids(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert len(ids) <= len(text.encode()) and all(0 <= i < 1536 for i in ids)
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_base_answers_questions_of_the_kinds_it_was_taught_about_notes_it_never_saw() -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    dice = Dice(99)
    tasks = [asked_of_a_note(dice) for _ in range(64)]
    prompts = [f"### Instruction:\n{ask}\n\n### Input:\n{given}\n\n### Response:\n" for ask, given, _ in tasks]
    batch = TOKENIZER(prompts, return_tensors="pt", padding=True)
    ids = model.generate(**batch, max_new_tokens=12, do_sample=False)[:, batch["input_ids"].shape[1] :]
    answers = TOKENIZER.batch_decode(ids, skip_special_tokens=True)
    right = sum(answer.strip() == wanted for answer, (_, _, wanted) in zip(answers, tasks, strict=True))
    assert right > len(tasks) / 2  # 45 of 64 when it was made; the best constant answer gets 5
