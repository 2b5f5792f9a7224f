"""A prompt goes to the model in the form that the run was trained on, with the ids that a training row begins with."""

import pytest

from fledge.commands.open_run import open_run
from fledge.commands.prompts import Prompt, conversation_ids, prompt_ids, prompt_text
from fledge.data.pipeline import prepare_training
from fledge.errors import DataError


def opened(trained_run, architecture="llama", **changes):
    return open_run(trained_run(architecture, **changes))


def first_prompt(run) -> list[int]:
    """The prompt of the first training row, as it was tokenised."""
    data = prepare_training(run.recipe.data, run.tokenizer, seed=7, progress=lambda done, total: None)
    return data.train.prompt_ids(0)


def test_a_completion_prompt_has_the_ids_of_a_training_rows_prompt(trained_run):
    run = opened(trained_run)
    assert prompt_ids(Prompt("zero plus zero ="), run.recipe, tokenizer=run.tokenizer) == first_prompt(run)


def test_an_alpaca_prompt_has_the_ids_of_a_training_rows_prompt_with_and_without_input(trained_run):
    run = opened(trained_run, fmt="alpaca", data__max_length=256)
    assert prompt_ids(Prompt("say 0"), run.recipe, tokenizer=run.tokenizer) == first_prompt(run)
    text, _ = prompt_text(Prompt("say 1", "tas"), run.recipe, tokenizer=run.tokenizer)
    assert "### Input:\ntas\n" in text and text.endswith("### Response:")


def test_a_chat_prompt_is_one_message_in_the_template_and_a_conversation_several(trained_run):
    run = opened(trained_run, fmt="chat", data__chat_template="chatml")
    text, has_specials = prompt_text(Prompt("hi"), run.recipe, tokenizer=run.tokenizer)
    assert has_specials and text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    messages = [{"role": "user", "content": "karen 0"}, {"role": "assistant", "content": "lomi 0"}]
    asked = [*messages, {"role": "user", "content": "tas"}]
    assert conversation_ids(asked, run.tokenizer) == first_prompt(run)


def test_a_raw_prompt_goes_as_it_is(trained_run):
    run = opened(trained_run, fmt="alpaca", data__max_length=256)
    text, has_specials = prompt_text(Prompt("say 0", is_raw=True), run.recipe, tokenizer=run.tokenizer)
    assert text == "say 0" and not has_specials


@pytest.mark.parametrize(("prompt", "name"), [(Prompt("a", "b"), "completion"), (Prompt("a", "b", is_raw=True), "raw")])
def test_an_input_without_a_place_for_it_is_refused(prompt, name, trained_run):
    run = opened(trained_run)
    with pytest.raises(DataError, match=name):
        prompt_ids(prompt, run.recipe, tokenizer=run.tokenizer)
