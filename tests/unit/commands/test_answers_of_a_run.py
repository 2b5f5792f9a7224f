"""evaluate, generate and chat say of a run what its model says, base beside tuned."""

import json
import math
import shutil
from pathlib import Path

import pytest

from fledge.commands import evaluate as evaluation
from fledge.commands.chat import chat
from fledge.commands.evaluate import Question, evaluate
from fledge.commands.generate import Prompt, Sampling, generate
from fledge.commands.open_run import open_run
from fledge.commands.opening import Opening
from fledge.errors import FledgeError, RunError


@pytest.fixture
def run(trained_run):
    return trained_run("llama", train__max_steps=40)


@pytest.fixture
def chatty(trained_run):
    return trained_run("llama", fmt="chat", data__chat_template="chatml", train__max_steps=60)


def test_the_tuned_loss_is_the_runs_own_last_validation_loss_and_lower_than_the_bases(run):
    summary = json.loads((run / "summary.json").read_text())
    result = evaluate(run)
    assert result.tuned.loss == pytest.approx(summary["validation_loss"], rel=1e-6)
    assert result.tuned.perplexity == pytest.approx(math.exp(result.tuned.loss))
    assert result.tuned.loss < result.base.loss
    assert result.rows == 48 and result.tokens > 48


@pytest.mark.parametrize("architecture", ["bloom", "gpt2"])
def test_the_base_beside_the_tuned_model_is_the_untouched_base(architecture, trained_run):
    run = trained_run(architecture)
    first_loss = json.loads((run / "summary.json").read_text())["first_loss"]
    result = evaluate(run, question=Question("train"))
    assert result.base.loss == pytest.approx(first_loss, rel=0.2)
    untaught = trained_run(architecture, train__learning_rate=1e-12)
    nothing = evaluate(untaught, question=Question("train"))
    assert nothing.tuned.loss == pytest.approx(result.base.loss, rel=1e-6)


def test_packed_and_padded_evaluations_are_the_same(run, trained_run):
    padded = trained_run("llama", train__max_steps=40, data__packing=False)
    assert evaluate(padded).tuned.loss == pytest.approx(evaluate(run).tuned.loss, rel=1e-3)
    assert evaluate(padded).base.loss == pytest.approx(evaluate(run).base.loss, rel=1e-6)


def test_answers_are_generated_where_asked_and_written_row_by_row(run):
    result = evaluate(run, question=Question(max_rows=8, exact_match=True, max_new_tokens=8))
    lines = [json.loads(line) for line in (result.folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == result.rows == 8
    judged = {f"{who}_is_{what}" for who in ("base", "tuned") for what in ("exact", "complete")}
    assert set(lines[0]) == {"row", "prompt", "reference", "base", "tuned"} | judged
    assert lines[0]["prompt"] == "zero plus zero =" and lines[0]["reference"] == " zero"
    assert lines[0]["row"] == "rows.jsonl:1"
    assert result.tuned.exact_match == sum(line["tuned_is_exact"] for line in lines) / 8
    written = json.loads((result.folder / "result.json").read_text())
    assert written["tuned"] == result.tuned.as_json() and set(written["tuned"]) == {"loss", "perplexity", "exact_match"}


@pytest.mark.parametrize("on", ["validation", "train"])
def test_rows_that_are_not_those_of_the_training_any_more_are_not_measured(on, trained_run, tmp_path):
    run, rows = copied(trained_run("llama", data__validation={"fraction": 0.25}), tmp_path)
    rows_before = rows.read_text()
    assert evaluate(run, question=Question(on)).rows
    with rows.open("a") as file:
        file.write(json.dumps({"prompt": "one plus one plus one =", "completion": " three"}) + "\n")
    with pytest.raises(RunError, match=r"data changed since this run began(.|\n)*put back"):
        evaluate(run, question=Question(on))
    rows.write_text(rows_before)
    assert evaluate(run, question=Question(on)).rows


def test_test_rows_may_be_others_than_before(trained_run, tmp_path):
    original = trained_run(
        "llama", data__test={"path": str(trained_run("llama").parent / "rows.jsonl"), "format": "completion"}
    )
    run, _ = copied(original, tmp_path)
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": "one plus one plus one =", "completion": " three"}) + "\n")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(trained_run("llama").parent / "rows.jsonl"), str(test)))
    assert evaluate(run, question=Question("test")).rows == 1


def copied(original: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of a run, and of the rows that its recipe names."""
    rows = folder / "rows.jsonl"
    shutil.copyfile(original.parent / "rows.jsonl", rows)
    shutil.copytree(original, folder / "run")
    recipe = folder / "run/recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(original.parent / "rows.jsonl"), str(rows)))
    return folder / "run", rows


def test_a_run_folder_that_cannot_be_written_is_refused_before_any_work(trained_run, tmp_path, monkeypatch):
    run, _ = copied(trained_run("llama"), tmp_path)
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    (run / "evaluation").write_text("in the way")
    monkeypatch.setattr(evaluation, "load_tuned", None)
    with pytest.raises(RunError, match=r"cannot be written(.|\n)*copy of the run folder"):
        evaluate(run)


def test_the_best_adapter_can_be_measured_beside_the_last(run):
    result = evaluate(run, opening=Opening("best"))
    best = json.loads((run / "checkpoints/best/best.json").read_text())
    assert result.tuned.loss == pytest.approx(best["validation_loss"], rel=1e-6)
    assert result.folder.name == "validation-best"


def test_rows_that_the_recipe_does_not_name_are_an_error(run, trained_run):
    with pytest.raises(RunError, match=r"no data\.test"):
        evaluate(run, question=Question("test"))
    without = trained_run("llama", data__validation=None)
    with pytest.raises(RunError, match=r"no data\.validation"):
        evaluate(without)


def test_test_rows_are_measured_where_the_recipe_names_them(trained_run):
    rows = trained_run("llama").parent / "rows.jsonl"
    run = trained_run("llama", data__test={"path": str(rows), "format": "completion"})
    on_test, on_validation = evaluate(run, question=Question("test")), evaluate(run)
    assert on_test.tuned.loss == pytest.approx(on_validation.tuned.loss, rel=1e-6)
    assert on_test.folder.name == "test"


def test_generate_streams_what_it_returns_and_the_base_says_something_else(run):
    pieces: list[str] = []
    tuned = generate(run, "zero plus zero =", sampling=Sampling(6), on_text=pieces.append)
    base = generate(run, Prompt("zero plus zero ="), sampling=Sampling(6), use_base=True)
    assert "".join(pieces) == tuned.text != base.text
    assert tuned.prompt == "zero plus zero =" and tuned.tokens <= 6


def test_generate_is_decided_by_its_seed(run):
    texts = [generate(run, "zero", sampling=Sampling(6, temperature=2.0, seed=seed)).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_conversation_remembers_and_forgets(chatty):
    conversation = chat(chatty, sampling=Sampling(6))
    first = conversation.say("karen 0", on_text=lambda piece: None)
    assert conversation.remembers and [one["role"] for one in conversation.messages] == ["user", "assistant"]
    second = conversation.say("tas", on_text=lambda piece: None)
    assert conversation.messages[1]["content"] == first.text and len(conversation.messages) == 4
    conversation.reset()
    assert conversation.messages == []
    assert second.text and first.is_complete and first.text.startswith("lomi")


def test_a_conversation_longer_than_the_bases_positions_is_told_to_reset_and_goes_on_after_it(trained_run):
    run = trained_run("gpt2", fmt="chat", data__chat_template="chatml", train__max_steps=1)
    conversation = chat(run, sampling=Sampling(2))
    conversation.say("karen", on_text=ignored)
    conversation.messages = [{"role": "user", "content": "karen " * 400}, {"role": "assistant", "content": "lomi"}]
    with pytest.raises(
        RunError, match=r"the conversation has .* tokens by now, and this base has positions for 512"
    ) as caught:
        conversation.say("tas", on_text=ignored)
    assert caught.value.problems[0].cure.startswith("/reset forgets what was said before")
    conversation.reset()
    conversation.say("tas", on_text=ignored)
    with pytest.raises(FledgeError, match="shorten the prompt"):
        chat(run, sampling=Sampling(2)).say("karen " * 400, on_text=ignored)


def ignored(piece: str) -> None:
    """Nothing is shown."""


def test_an_interrupted_answer_is_forgotten(chatty):
    conversation = chat(chatty, sampling=Sampling(6))
    conversation.say("karen 0", on_text=lambda piece: None)

    def interrupt(piece: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.say("tas", on_text=interrupt)
    assert len(conversation.messages) == 2
    assert conversation.say("tas", on_text=lambda piece: None).text


def test_without_a_template_each_message_is_a_prompt_of_the_runs_form(run):
    conversation = chat(run, sampling=Sampling(6))
    said = [conversation.say("zero plus zero =", on_text=lambda piece: None).text for _ in range(2)]
    assert said[0] == said[1] == generate(run, "zero plus zero =", sampling=Sampling(6)).text
    assert not conversation.remembers and conversation.form == "completion" and conversation.messages == []


def test_a_run_that_was_not_trained_on_a_conversation_is_asked_in_the_form_that_was_trained(trained_run, tmp_path):
    run = copied_alpaca(trained_run, tmp_path)
    conversation = chat(run, sampling=Sampling(6))
    said = conversation.say("say 0", on_text=str).text
    assert said == generate(run, "say 0", sampling=Sampling(6)).text
    assert not conversation.remembers and conversation.form == "alpaca" and conversation.messages == []
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("format: alpaca", "format: text"))
    assert chat(run, sampling=Sampling(6)).remembers, "text has no form of its own: the base's template is kept"


def copied_alpaca(trained_run, folder: Path) -> Path:
    """A run on alpaca rows whose tokenizer has a chat template nevertheless, as an instructed base's has."""
    run = folder / "run"
    shutil.copytree(trained_run("llama", fmt="alpaca", data__max_length=256), run)
    template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}"
    (run / "adapter/chat_template.jinja").write_text(template)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["hashes"]["tokenizer_and_template"]  # it names the tokenizer without a template
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert open_run(run).tokenizer.has_chat_template
    return run


def test_the_base_can_be_talked_with(chatty):
    base, tuned = chat(chatty, sampling=Sampling(6), use_base=True), chat(chatty, sampling=Sampling(6))
    assert base.say("karen 0", on_text=str).text != tuned.say("karen 0", on_text=str).text


def test_an_empty_prompt_is_refused(run):
    with pytest.raises(FledgeError, match="no tokens"):
        generate(run, "")
