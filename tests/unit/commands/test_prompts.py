"""A prompt goes to the model in the form that the run was trained on, with the ids that a training row begins with."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fledge.commands import chat as chatting
from fledge.commands.open_run import open_run
from fledge.commands.prompts import (
    Prompt,
    conversation_ids,
    prompt_ids,
    prompt_text,
    settled,
    shared_options,
    shared_system,
)
from fledge.commands.train import train
from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.data.pipeline import prepare_training
from fledge.errors import DataError, RunError
from fledge.evaluation.generate import Answer
from fledge.models.chat_template import CHATML
from fledge.models.load_tokenizer import load_tokenizer
from tests.runs import load, recipe_dict
from tests.tiny_models import tiny_folder


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
    assert "### Input:\ntas\n" in text.text and text.text.endswith("### Response:")


def test_a_chat_prompt_is_one_message_in_the_template_and_a_conversation_several(trained_run):
    run = opened(trained_run, fmt="chat", data__chat_template="chatml")
    text, has_specials = prompt_text(Prompt("hi"), run.recipe, tokenizer=run.tokenizer)
    assert has_specials and text.text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    messages = [{"role": "user", "content": "karen 0"}, {"role": "assistant", "content": "lomi 0"}]
    asked = [*messages, {"role": "user", "content": "tas"}]
    assert conversation_ids(asked, run.recipe, tokenizer=run.tokenizer) == first_prompt(run)


def test_a_raw_prompt_goes_as_it_is(trained_run):
    run = opened(trained_run, fmt="alpaca", data__max_length=256)
    text, has_specials = prompt_text(Prompt("say 0", is_raw=True), run.recipe, tokenizer=run.tokenizer)
    assert text.text == "say 0" and not has_specials


@pytest.mark.parametrize(("prompt", "name"), [(Prompt("a", "b"), "completion"), (Prompt("a", "b", is_raw=True), "raw")])
def test_an_input_without_a_place_for_it_is_refused(prompt, name, trained_run):
    run = opened(trained_run)
    with pytest.raises(DataError, match=name):
        prompt_ids(prompt, run.recipe, tokenizer=run.tokenizer)


SPACED = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + ('</s>' if m.role == 'assistant' else '\n') }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
THINKING = CHATML.replace("{{ message['content'] }}", "{% if loop.last and message['role'] == 'assistant' %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ message['content'] }}")  # fmt: skip
pieces = st.sampled_from([*"ab \n\t.,é東🙂<|>/s_im", "</s>", "<s>", "<|im_end|>"])
words = st.lists(pieces, max_size=12).map("".join)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_folder("llama", tmp_path_factory.mktemp("base") / "base"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    turns=st.lists(st.tuples(words, words.filter(str.strip)), min_size=1, max_size=3),
    system=words,
    form=st.sampled_from(["chatml", "spaced", "thinking", "alpaca", "completion"]),
)
def test_evaluation_asks_a_row_as_generate_and_chat_ask_a_person(turns, system, form, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    messages = [{"role": "system", "content": system}] if system.strip() else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    question, answer = turns[-1]
    records = {
        "alpaca": {"instruction": question, "input": system, "output": answer},
        "completion": {"prompt": question, "completion": answer},
    }
    (folder / "rows.jsonl").write_text(json.dumps(records.get(form, {"messages": messages})) + "\n")
    source = {"path": str(folder / "rows.jsonl"), "format": form if form in records else "chat"}
    options = {"chat_template": "chatml"} if form == "chatml" else {}
    if form in ("spaced", "thinking"):
        (folder / "own.jinja").write_text({"spaced": SPACED, "thinking": THINKING}[form])
        options = {"chat_template": str(folder / "own.jinja")}
    data = DataConfig.model_validate({"train": source, "max_length": 4096, **options})
    tokenizer = load_tokenizer(ModelConfig(name_or_path=base), data)
    try:
        store = prepare_training(data, tokenizer, seed=0, progress=lambda done, total: None).train
    except DataError as error:
        assert "dropped" in str(error)
        return
    asked = store.prompt_ids(len(store) - 1)
    if form in records:
        recipe = SimpleNamespace(data=data)
        prompt = Prompt(question, system if form == "alpaca" else "")
        assert asked == (prompt_ids(prompt, recipe, tokenizer=tokenizer) or asked)
    else:
        assert asked == conversation_ids(messages[:-1], SimpleNamespace(data=data), tokenizer=tokenizer)


def test_a_persons_control_tokens_stay_text_in_every_prompt_but_a_raw_one(trained_run):
    run = opened(trained_run, fmt="chat", data__chat_template="chatml")
    end = run.tokenizer.special_tokens["<|im_end|>"]
    words = "a<|im_end|>b"
    assert prompt_ids(Prompt(words), run.recipe, tokenizer=run.tokenizer).count(end) == 1
    assert prompt_ids(Prompt(words, system=words), run.recipe, tokenizer=run.tokenizer).count(end) == 2
    assert prompt_ids(Prompt(words, is_raw=True), run.recipe, tokenizer=run.tokenizer).count(end) == 1
    assert end not in prompt_ids(Prompt("ab", is_raw=True), run.recipe, tokenizer=run.tokenizer)


def test_the_system_text_is_the_one_that_all_rows_share_unless_another_is_given(trained_run, tmp_path):
    run = opened(trained_run, fmt="chat", data__chat_template="chatml")
    assert shared_system(run) == "" and settled(Prompt("a"), run).system == ""
    ledger = json.loads(run.run.ledger.read_text())
    ledger["sources"]["train"][0]["system"] = "Be brief."
    run = SimpleNamespace(
        run=SimpleNamespace(ledger=tmp_path / "ledger.json"), recipe=run.recipe, tokenizer=run.tokenizer
    )
    run.run.ledger.write_text(json.dumps(ledger))
    text, _ = prompt_text(settled(Prompt("a"), run), run.recipe, tokenizer=run.tokenizer)
    assert text.text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na")
    for other, start in (("Be long.", "system\nBe long."), ("", "user\na")):
        text, _ = prompt_text(settled(Prompt("a", system=other), run), run.recipe, tokenizer=run.tokenizer)
        assert text.text.startswith(f"<|im_start|>{start}")


LOUD = "{{ mood | default('calm') }}\n" + CHATML


@pytest.mark.parametrize(
    ("moods", "expected"), [(["loud"] * 3, {"mood": "loud"}), (["loud", "shy", "loud"], {}), ([None] * 3, {})]
)
def test_values_for_the_template_that_all_rows_bring_are_those_that_a_prompt_is_asked_with(
    moods, expected, tmp_path, monkeypatch
):
    (tmp_path / "loud.jinja").write_text(LOUD)
    with (tmp_path / "rows.jsonl").open("w") as file:
        for mood in moods:
            messages = [{"role": "user", "content": "karen"}, {"role": "assistant", "content": "lomi"}]
            brought = {} if mood is None else {"chat_template_kwargs": {"mood": mood}}
            file.write(json.dumps({"messages": messages} | brought) + "\n")
    base = tiny_folder("llama", tmp_path / "base")
    settings = {
        "train__max_steps": 1,
        "data__max_length": 128,
        "train__global_batch_size": 3,
        "data__chat_template": str(tmp_path / "loud.jinja"),
    }
    content = recipe_dict(base, tmp_path / "rows.jsonl", tmp_path / "run", **settings)
    content["data"]["train"]["format"] = "chat"
    train(load(tmp_path, content))
    run = open_run(tmp_path / "run")
    assert shared_options(run) == expected
    asked = prompt_ids(settled(Prompt("karen"), run), run.recipe, tokenizer=run.tokenizer)
    said = conversation_ids(
        [{"role": "user", "content": "karen"}], run.recipe, tokenizer=run.tokenizer, options=shared_options(run)
    )
    text, _ = prompt_text(settled(Prompt("karen"), run), run.recipe, tokenizer=run.tokenizer)
    assert asked == said and text.text.startswith(f"{expected.get('mood', 'calm')}\n<|im_start|>user\nkaren")
    assert (asked == first_prompt(run)) == (len(set(moods)) == 1)
    heard = []
    monkeypatch.setattr(chatting, "stream", lambda *_, prompt, **__: heard.append(prompt) or Answer((), "lomi", True))
    chatting.chat(tmp_path / "run").say("karen", on_text=print)
    assert heard == [asked]
    other = settled(Prompt("karen", options={"mood": "shy"}), run)
    assert other.options == {"mood": "shy"} and settled(Prompt("a", is_raw=True), run).options == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"sources": {}}', '{"sources": {"train": []}}', '{"sources": {"train": [3]}}']
)
def test_a_ledger_that_cannot_be_read_is_told_and_without_it_there_is_no_shared_text(text, trained_run, tmp_path):
    run = opened(trained_run, fmt="chat", data__chat_template="chatml")
    ledger = tmp_path / "ledger.json"
    ledger.write_text(text)
    told = SimpleNamespace(run=SimpleNamespace(ledger=ledger), recipe=run.recipe, tokenizer=run.tokenizer)
    with pytest.raises(RunError, match=r"ledger.json: (.|\n)*cannot be read(.|\n)*remove it and give --system"):
        shared_system(told)
    ledger.unlink()
    assert shared_system(told) == ""


def test_a_system_text_without_a_place_for_it_is_refused(trained_run):
    run = opened(trained_run)
    with pytest.raises(DataError, match="no place for a system text"):
        prompt_ids(Prompt("a", system="b"), run.recipe, tokenizer=run.tokenizer)


def test_a_system_prompt_of_alpaca_is_part_of_its_prompt_and_no_message(trained_run):
    rows = trained_run("llama", fmt="alpaca", data__max_length=256).parent / "rows.json"
    source = {"path": str(rows), "format": "alpaca", "system_prompt": "Be brief."}
    data = DataConfig.model_validate({"train": source, "max_length": 256})
    run = opened(trained_run, fmt="alpaca", data__max_length=256)
    recipe = run.recipe.model_copy(update={"data": data})
    told = SimpleNamespace(run=run.run, recipe=recipe, tokenizer=run.tokenizer)
    assert shared_system(told) == ""
    text, _ = prompt_text(settled(Prompt("say 0"), told), recipe, tokenizer=run.tokenizer)
    assert text.text.startswith("Be brief.\n\n### Instruction:\nsay 0")
