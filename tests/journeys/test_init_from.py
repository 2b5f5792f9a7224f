"""`lora.init_from`: training starts from an adapter that is there, and a finished run is given more steps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fledge import FledgeError, Recipe, evaluate, load_recipe, train
from fledge.commands.evaluate import Question
from fledge.commands.export import source_of
from fledge.commands.open_run import open_run
from fledge.commands.steps import make_plan, row_order
from fledge.data.pipeline import prepare_training
from fledge.exporting.merged import merged_onto, outline_of
from fledge.models.load_tokenizer import load_tokenizer
from fledge.rundir import RunDir, read_events, read_steps
from tests.foreign import foreign_adapter, put_on, settings
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, rows, and a finished run in `first`."""
    folder = tmp_path_factory.mktemp("from")
    tiny_folder("llama", folder / "base")
    write_rows(folder / "rows.jsonl", count=24)
    train(recipe_of(folder, "first"))
    return folder


def recipe_of(folder: Path, run: str, *, start: str | None = None, **changes: Any) -> Recipe:
    """A short recipe; with a start it leaves open what the adapter decides."""
    content = recipe_dict(folder / "base", folder / "rows.jsonl", folder / run, **changes)
    if start is not None:
        written = {name[6:]: value for name, value in changes.items() if name.startswith("lora__")}
        content["lora"] = {"init_from": start} | written
    return load(folder, content)


def notices(run: Path) -> list[str]:
    return [event["text"] for event in read_events(RunDir(run).events) if event["event"] == "notice"]


def losses(run: Path) -> list[float]:
    return [step["loss"] for step in read_steps(RunDir(run).events)]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def test_a_finished_run_is_given_more_steps_in_a_new_folder_as_its_refusal_says(place: Path) -> None:
    with pytest.raises(FledgeError) as caught:
        train(recipe_of(place, "first", train__max_steps=8))
    cure = caught.value.problems[0].cure
    assert f"add lora.init_from={place / 'first'} output.dir={place / 'first-2'}" in cure
    assert f"to train this recipe, add output.dir={place / 'first-2'};" in cure
    recipe = recipe_of(place, "more", start="first", train__max_steps=2)
    result = train(recipe)
    assert losses(result.run)[0] < losses(place / "first")[0]
    for name, tensor in tensors(place / "first/adapter").items():
        assert torch.equal(tensors(result.run / "checkpoints/step-0/adapter")[name], tensor), name
    [said] = [text for text in notices(result.run) if text.startswith("training starts from the adapter")]
    assert "r 4, lora_alpha 8.0" in said and "the optimiser starts anew" in said
    assert "the cosine schedule of the learning rate, 0.01 at its peak, over 2 steps" in said
    noted = json.loads((result.run / "manifest.json").read_text())["hashes"]["init_from"]
    assert noted.keys() == {"weights", "settings"}
    assert train(recipe).was_finished
    assert train(load_recipe(result.run / "recipe.yaml")).was_finished
    evaluate(result.run, question=Question(on="train", max_rows=2))


def stopped_after(folder: Path, run: str, start: str, step: int) -> Recipe:
    """A run of 4 steps whose process died after `step`; its recipe."""
    recipe = recipe_of(
        folder, run, start=start, train__max_steps=4, train__save_every_steps=1, train__keep_checkpoints=9
    )
    train(recipe)
    there = RunDir(folder / run)
    shutil.rmtree(there.adapter)
    there.summary.unlink()
    for each in there.checkpoint_steps():
        if each > step:
            shutil.rmtree(there.checkpoint(each))
    return recipe


def test_a_resume_gives_the_same_bits_when_the_start_is_gone_or_another_one(place: Path) -> None:
    for name in ("kept", "gone", "changed"):
        shutil.copytree(place / "first/adapter", place / f"start-{name}")
    expected = train(recipe_of(place, "whole", start="start-kept", train__max_steps=4)).summary["adapter_sha256"]
    for name in ("gone", "changed"):
        recipe = stopped_after(place, f"run-{name}", f"start-{name}", 2)
        if name == "gone":
            shutil.rmtree(place / "start-gone")
            recipe = recipe_of(
                place, "run-gone", start="start-gone", train__max_steps=4, train__save_every_steps=1,
                train__keep_checkpoints=9,
            )  # fmt: skip
            assert recipe.lora.r != 4, "nothing says it any more but the run"
        else:
            spoil(place / "start-changed")
        assert train(recipe).summary["adapter_sha256"] == expected
    with pytest.raises(FledgeError, match="is finished, and the adapter that it started from has changed"):
        train(recipe)
    shutil.rmtree(place / "start-changed")
    assert train(recipe).was_finished


def spoil(adapter: Path) -> None:
    changed = tensors(adapter)
    next(iter(changed.values())).add_(1)
    save_file(changed, adapter / WEIGHTS)


def test_before_the_first_checkpoint_another_or_a_lost_start_is_noticed(place: Path) -> None:
    shutil.copytree(place / "first/adapter", place / "early")
    recipe = stopped_after(place, "run-early", "early", -1)
    spoil(place / "early")
    with pytest.raises(FledgeError, match="init_from changed since this run began"):
        train(recipe)
    shutil.rmtree(place / "early")
    with pytest.raises(FledgeError, match="is gone, and the run has no checkpoint yet"):
        train(recipe)


def test_changed_rows_of_a_finished_run_are_refused_and_trained_on_from_it(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copytree(place / "base", folder / "base")
    write_rows(folder / "rows.jsonl", count=24)
    recipe = recipe_of(folder, "run", train__max_steps=2)
    train(recipe)
    write_rows(folder / "rows.jsonl", count=25)
    with pytest.raises(FledgeError) as caught:
        train(recipe)
    [problem] = caught.value.problems
    assert problem.what == "this run is finished, and the rows have changed since it was trained"
    assert f"add lora.init_from={folder / 'run'} output.dir={folder / 'run-2'}" in problem.cure
    assert train(recipe_of(folder, "run-2", start="run", train__max_steps=1)).summary["steps"] == 1


@pytest.mark.parametrize(
    "kind",
    [
        {"use_dora": True, "r": 2, "target_modules": ["q_proj", "o_proj"]},
        {"r": 2, "target_modules": ["v_proj"], "layers_to_transform": [1]},
        {"r": 2, "target_modules": ["v_proj"], "trainable_token_indices": {"embed_tokens": [5, 9]}},
    ],
    ids=lambda kind: next(name for name in kind if name not in ("r", "target_modules")),
)
def test_each_kind_of_lora_starts_where_it_was_and_is_saved_as_the_same_kind(kind: dict[str, Any], place: Path) -> None:
    name = "-".join(kind)
    start = foreign_adapter(place / "base", place / f"start-{name}", lora_alpha=6, **kind)
    result = train(recipe_of(place, f"run-{name}", start=start.name, train__max_steps=1))
    first, last = tensors(result.run / "checkpoints/step-0/adapter"), tensors(result.run / "adapter")
    assert first.keys() == last.keys() == tensors(start).keys()
    assert all(torch.equal(tensor, first[key]) for key, tensor in tensors(start).items())
    assert any(not torch.equal(tensor, last[key]) for key, tensor in tensors(start).items())
    saved = json.loads((result.run / "adapter/adapter_config.json").read_text())
    assert {key: saved[key] for key in kind if key != "target_modules"} == {
        key: value for key, value in kind.items() if key != "target_modules"
    }


def test_a_run_with_new_tokens_is_trained_on_with_the_same_tokens_and_refused_without(place: Path) -> None:
    tokens = {"data__new_tokens": ["plus", "please"]}
    train(recipe_of(place, "tokens", train__max_steps=2, **tokens))
    result = train(recipe_of(place, "tokens-2", start="tokens", train__max_steps=1, **tokens))
    before, after = tensors(place / "tokens/adapter"), tensors(result.run / "checkpoints/step-0/adapter")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(FledgeError, match=r"rows of 2 tokens that this tokenizer has not, the first 320"):
        train(recipe_of(place, "tokens-3", start="tokens"))
    swapped = {"data__new_tokens": ["please", "plus"]}
    with pytest.raises(FledgeError, match=r"row 320 of this adapter is of the token 'plus', and here of 'please'"):
        train(recipe_of(place, "tokens-4", start="tokens", **swapped))
    with pytest.raises(FledgeError, match=r"2 tokens are new to the base, and this adapter does not train their rows"):
        train(recipe_of(place, "tokens-5", start="first", **tokens))


def test_all_linear_may_be_written_where_it_is_what_the_adapter_has(place: Path) -> None:
    result = train(recipe_of(place, "all", start="first", lora__target_modules="all-linear", train__max_steps=1))
    assert result.summary["steps"] == 1
    foreign_adapter(place / "base", place / "some", r=2, target_modules=["q_proj"])
    with pytest.raises(FledgeError, match=r"all-linear is not what the adapter of lora.init_from has"):
        train(recipe_of(place, "all-2", start="some", lora__target_modules="all-linear"))


def test_layers_that_the_start_has_may_rest_as_those_of_all_linear(place: Path) -> None:
    chosen = recipe_of(place, "x", lora__target_modules=["q_proj"])
    tokenizer = load_tokenizer(chosen.model, chosen.data)
    data = prepare_training(chosen.data, tokenizer, seed=7, progress=lambda done, total: None)
    for recipe, may_rest in ((chosen, False), (recipe_of(place, "x", start="first"), True)):
        assert make_plan(recipe, row_order(recipe, data)).may_rest == may_rest


def test_another_base_is_told_by_its_shape_or_by_its_weights(place: Path) -> None:
    tiny_folder("llama", place / "twin", seed=1)
    twin = {"model__name_or_path": str(place / "twin")}
    result = train(recipe_of(place, "on-twin", start="first", train__max_steps=1, **twin))
    assert any(
        "has other weights than the one that this adapter was trained on" in text for text in notices(result.run)
    )
    tiny_folder("gpt2", place / "gpt2")
    with pytest.raises(FledgeError, match="does not fit this model"):
        train(recipe_of(place, "on-gpt2", start="first", model__name_or_path=str(place / "gpt2")))


def test_what_was_trained_on_is_merged_as_peft_merges_it(place: Path, tmp_path: Path) -> None:
    start = foreign_adapter(
        place / "base", tmp_path / "start", r=4, target_modules=["q_proj", "v_proj"], alpha_pattern={"v_proj": 3}
    )
    settings(start, {"lora_dropout": 0.1})
    recipe = recipe_of(place, "to-merge", start=str(start), train__max_steps=1)
    assert recipe.lora.lora_dropout == 0.1
    assert recipe_of(place, "x", start=str(start), lora__lora_dropout=0.0).lora.lora_dropout == 0.0
    source = source_of(open_run(train(recipe).run), "last")
    outline, updates = outline_of(source)
    ours = merged_onto(source, "full", outline=outline, updates=updates)
    theirs = put_on(place / "base", source.adapter).merge_and_unload().state_dict()
    assert set(ours.names()) == set(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours.tensor(name), tensor, rtol=1e-6, atol=1e-7)


def test_answers_before_the_training_are_the_bases_and_every_tensor_still_trains(place: Path) -> None:
    asked = {"evaluate__exact_match": True, "evaluate__max_new_tokens": 3, "evaluate__max_rows": 4}
    rows = {"data__validation": {"path": str(place / "rows.jsonl"), "format": "completion"}, "train__max_steps": 2}

    def answers(run: Path) -> list[str]:
        return [json.loads(line)["base"] for line in (run / "evaluation/predictions.jsonl").read_text().splitlines()]

    fresh = train(recipe_of(place, "asked", **asked, **rows)).run
    further = train(recipe_of(place, "asked-2", start="first", **asked, **rows)).run
    assert answers(fresh) == answers(further) and len(answers(fresh)) == 4
    before, after = tensors(further / "checkpoints/step-0/adapter"), tensors(further / "adapter")
    assert all(not torch.equal(before[name], after[name]) for name in before)
