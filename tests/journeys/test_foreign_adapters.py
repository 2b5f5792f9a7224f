"""Adapters that others made: every verb that opens a run opens them too, and agrees with plain peft."""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from fledge import Opening, chat, evaluate, export, generate, load_recipe, train, verify
from fledge.cli.main import run as run_here
from fledge.commands import evaluate as evaluation
from fledge.commands.evaluate import Question
from fledge.commands.generate import Generated, Prompt, Sampling
from fledge.commands.open_run import OpenRun, Tuned
from fledge.commands.progress import Say
from fledge.commands.steps import row_order
from fledge.config.recipe import Recipe
from fledge.data.pipeline import PreparedData, prepare_training
from fledge.errors import FledgeError
from fledge.models.load_tokenizer import load_tokenizer
from fledge.rundir import RunDir, read_events, read_steps
from tests.foreign import BASES, KINDS, UNKNOWN, classifier, foreign_adapter, losses_of, put_on, settings
from tests.runs import fledge, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder

STEPS, RATE = 4, 1e-3
PLAIN_LOOP = {
    "train__lr_scheduler": "constant",
    "train__warmup_steps": 0,
    "train__max_steps": STEPS,
    "train__learning_rate": RATE,
}


@dataclass(frozen=True)
class Place:
    """A base, somebody's adapter for it, and a recipe with rows."""

    folder: Path
    base: Path
    adapter: Path
    recipe: Path
    kind: Mapping[str, Any] = field(default_factory=dict)


def prepared(recipe: Recipe) -> PreparedData:
    tokenizer = load_tokenizer(recipe.model, recipe.data)
    return prepare_training(recipe.data, tokenizer, seed=recipe.train.seed, progress=lambda done, total: None)


@pytest.fixture(scope="module", params=BASES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp(request.param)
    base = BASES[request.param](folder / "base")
    kind = KINDS[request.param]
    changes = {name: value for name, value in UNKNOWN.items() if name not in kind}
    adapter = foreign_adapter(base, folder / "adapter", changes=changes, **kind)
    rows = write_rows(folder / "rows.jsonl", count=24)
    content = recipe_dict(base, rows, folder / "run", lora__init_from="adapter", **PLAIN_LOOP)
    content["data"]["validation"] = {"path": str(rows), "format": "completion"}
    for name in ("r", "lora_alpha"):
        del content["lora"][name]
    return Place(folder, base, adapter, write_recipe(folder / "recipe.yaml", content), kind)


def test_training_on_has_the_losses_of_a_plain_peft_loop(place: Place) -> None:
    recipe = load_recipe(place.recipe)
    result = train(recipe)
    data = prepared(recipe)
    order = row_order(recipe, data)
    steps = [
        [(row.input_ids.tolist(), row.trained.tolist()) for row in map(data.train.row, order.rows_of_step(step))]
        for step in range(1, STEPS + 1)
    ]
    expected = losses_of(put_on(place.base, place.adapter, is_trainable=True), steps, learning_rate=RATE)
    ours = [step["loss"] for step in read_steps(RunDir(result.run).events)]
    assert ours == pytest.approx(expected, abs=1e-5)
    said = [event["text"] for event in read_events(RunDir(result.run).events) if event["event"] == "notice"]
    assert any("a_key_of_a_newer_peft, which is not known here and is off" in text for text in said)
    assert any("rank_pattern, which is null" in text for text in said) == ("rank_pattern" not in place.kind)
    assert load_recipe(place.recipe).lora == load_recipe(result.run / "recipe.yaml").lora


def test_evaluate_has_the_loss_that_plain_peft_has(place: Place) -> None:
    found = evaluate(place.adapter, opening=Opening(recipe=place.recipe), question=Question(max_rows=6))
    data = prepared(load_recipe(place.recipe))
    rows = [data.validation.row(index) for index in range(6)]
    tuned = put_on(place.base, place.adapter)
    as_row = [(row.input_ids.tolist(), row.trained.tolist()) for row in rows]
    tuned.requires_grad_(True)
    [expected] = losses_of(tuned, [as_row], learning_rate=0.0)
    assert found.tuned.loss == pytest.approx(expected, abs=1e-5)
    with tuned.disable_adapter():
        tuned.requires_grad_(True)
        [untuned] = losses_of(tuned, [as_row], learning_rate=0.0)
    assert found.base.loss == pytest.approx(untuned, abs=1e-5)
    assert abs(found.base.loss - found.tuned.loss) > 1e-2
    assert found.folder == place.adapter / "evaluation" and (found.folder / "result.json").is_file()
    assert any("compared with no training" in text for text in found.notices)


def test_generate_answers_as_plain_peft_does_with_a_recipe_and_without(place: Place) -> None:
    tokenizer = AutoTokenizer.from_pretrained(place.base)
    dtype = AutoModelForCausalLM.from_pretrained(place.base).dtype
    for opening, in_dtype in ((None, dtype), (Opening(recipe=place.recipe), torch.float32)):
        prompt = Prompt("two plus three =", is_raw=True)
        found = generate(place.adapter, prompt, sampling=Sampling(12), opening=opening)
        ids = tokenizer("two plus three =", return_tensors="pt")
        with torch.no_grad():
            made = put_on(place.base, place.adapter, dtype=in_dtype).generate(
                **ids, max_new_tokens=12, do_sample=False, eos_token_id=1, pad_token_id=2
            )
        answer = [token for token in made[0].tolist()[ids["input_ids"].shape[1] :] if token != 1]
        assert found.text == tokenizer.decode(answer, skip_special_tokens=True)


def test_what_is_exported_is_what_peft_merges(place: Place) -> None:
    opening = Opening(recipe=place.recipe)
    done = export(place.adapter, place.folder / "merged", dtype="float32", opening=opening)
    ours = AutoModelForCausalLM.from_pretrained(place.folder / "merged", dtype=torch.float32).state_dict()
    theirs = put_on(place.base, place.adapter).merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-7)
    assert any("was opened by itself and not as a run's" in text for text in done.findings())
    assert not (place.adapter / "certificate.json").exists()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("llama")
    base = BASES["llama"](folder / "base")
    adapter = foreign_adapter(base, folder / "adapter", r=2, target_modules=["q_proj"])
    content = recipe_dict(base, write_rows(folder / "rows.jsonl", count=8), folder / "run")
    return Place(folder, base, adapter, write_recipe(folder / "recipe.yaml", content))


def test_without_a_recipe_an_adapter_is_exported_and_talks_and_there_is_nothing_to_evaluate(llama: Place) -> None:
    done = export(llama.adapter, llama.folder / "alone")
    assert done.certificate["probe"]["from"] == "set texts" and done.certificate["dtype"] == "float32"
    answer = chat(llama.adapter, sampling=Sampling(4)).say("two plus", on_text=lambda piece: None)
    assert answer.ids
    with pytest.raises(FledgeError, match=r"no rows(.|\n)*--recipe RECIPE"):
        evaluate(llama.adapter)


def test_an_adapters_weights_are_copied_as_they_are_and_its_settings_without_what_says_nothing(llama: Place) -> None:
    export(llama.adapter, llama.folder / "copy", to="adapter")
    folders = (llama.folder / "copy", llama.adapter)
    one, other = ((folder / "adapter_model.safetensors").read_bytes() for folder in folders)
    assert one == other
    copied, own = (LoraConfig.from_pretrained(str(folder)) for folder in folders)
    own.base_model_name_or_path = own.revision = None
    assert asdict(copied) == asdict(own)
    assert verify(llama.folder / "copy", llama.adapter).checks["logits"]["positions"] > 0


def test_a_classification_adapter_is_refused_by_each_verb_and_as_a_start(llama: Place) -> None:
    wrong = classifier(llama.base, llama.folder / "classifier")
    for verb in (
        lambda: evaluate(wrong, opening=Opening(recipe=llama.recipe)),
        lambda: generate(wrong, "two"),
        lambda: chat(wrong),
        lambda: export(wrong, llama.folder / "never"),
        lambda: load_recipe(llama.recipe, ["lora.init_from=classifier"]),
    ):
        with pytest.raises(FledgeError) as caught:
            verb()
        assert "its task_type is" in str(caught.value) and "it classifies whole texts" in str(caught.value)


def test_options_without_effect_are_refused(llama: Place, trained_run_of_llama: Path) -> None:
    with pytest.raises(FledgeError, match=r"--which(.|\n)*leave --which away"):
        generate(llama.adapter, "two", opening=Opening("best"))
    with pytest.raises(FledgeError, match=r"--recipe(.|\n)*leave --recipe away"):
        generate(trained_run_of_llama, "two", opening=Opening(recipe=llama.recipe))


@pytest.fixture(scope="module")
def trained_run_of_llama(llama: Place) -> Path:
    return train(load_recipe(llama.recipe, ["train.max_steps=1"])).run


def test_the_base_is_the_adapters_or_the_recipes_and_what_was_used_is_said(llama: Place, tmp_path: Path) -> None:
    path = llama.adapter / "adapter_config.json"
    before = path.read_text()

    def named(base: str | None, opening: Opening | None = None) -> tuple[str, ...]:
        path.write_text(json.dumps(json.loads(before) | {"base_model_name_or_path": base}))
        try:
            return generate(llama.adapter, Prompt("two", is_raw=True), sampling=Sampling(2), opening=opening).notices
        finally:
            path.write_text(before)

    gone, with_recipe = str(tmp_path / "gone"), Opening(recipe=llama.recipe)
    assert any(f"the base is {llama.base}, as the adapter names it" == text for text in named(str(llama.base)))
    assert any("which is not there: the recipe's is used" in text for text in named(gone, with_recipe))
    assert any("names no base: the recipe's is used" in text for text in named(None, with_recipe))
    assert any("only shapes are compared" in text for text in named("somebody/something", with_recipe))
    copy = tiny_folder("llama", tmp_path / "copy")
    assert any(f"the base is {llama.base}" == text for text in named(str(copy), with_recipe))
    for lost in (gone, None):
        with pytest.raises(FledgeError, match=r"cannot be opened(.|\n)*--recipe RECIPE"):
            named(lost)
    other = tiny_folder("llama", tmp_path / "other", seed=1)
    with pytest.raises(FledgeError, match=r"names the base .*other, and the recipe .*base(.|\n)*model.name_or_path: "):
        named(str(other), with_recipe)


def test_an_adapter_of_another_shape_or_with_tensors_too_many_or_too_few_is_refused(
    llama: Place, tmp_path: Path
) -> None:
    def changed(name: str, **more: torch.Tensor) -> Path:
        made = foreign_adapter(llama.base, tmp_path / name, r=2, target_modules=["q_proj"])
        path = made / "adapter_model.safetensors"
        tensors = load_file(path)
        first = next(iter(tensors))
        if name == "less":
            del tensors[first]
        if name == "wide":
            tensors[first] = torch.zeros(2, 64)
        save_file(tensors | more, path)
        return made

    cases = {
        "less": "asks? for tensors that its weights file has not",
        "wide": r"of a base of another shape: .* is \[2, 64\] in the adapter and would be \[2, 32\]",
        "more": "has tensors that its settings do not ask for on this base: base_model.model.lm_head.weight",
    }
    for name, words in cases.items():
        more = {"base_model.model.lm_head.weight": torch.zeros(320, 32)} if name == "more" else {}
        adapter = changed(name, **more)
        with pytest.raises(FledgeError, match=words):
            generate(adapter, Prompt("two", is_raw=True))
        recipe = load_recipe(llama.recipe, [f"lora.init_from={adapter}", "lora.r=2", f"output.dir={tmp_path / 'run'}"])
        with pytest.raises(FledgeError, match=words):
            train(recipe)


def test_the_command_line_takes_an_adapter_and_its_recipe(llama: Place) -> None:
    done = fledge("evaluate", str(llama.adapter), "--recipe", str(llama.recipe), "--on", "train", "--json")
    assert json.loads(done.stdout)["rows"] == 8
    assert "note: this adapter is opened by itself and not as a run's" in done.stderr


def short(adapter: Path, opening: Opening) -> Generated:
    return generate(adapter, Prompt("two plus", is_raw=True), sampling=Sampling(4), opening=opening)


def copy_naming(llama: Place, folder: Path, base: str | None) -> Path:
    """The adapter again, as it names another base, or none."""
    shutil.copytree(llama.adapter, folder, ignore=shutil.ignore_patterns("evaluation"))
    return settings(folder, {"base_model_name_or_path": base})


def test_base_path_is_where_an_adapters_base_lies_and_what_was_compared_is_said(llama: Place, tmp_path: Path) -> None:
    copy, gone = shutil.copytree(llama.base, tmp_path / "copy"), str(tmp_path / "gone")
    expected = short(llama.adapter, Opening()).text
    cases = {
        str(llama.base): f"the base is {copy}, with the weights of {llama.base}",
        gone: f"the adapter names the base {gone}, which is not there: the one in {copy} is used, and only shapes are "
        "compared",
        "somebody/something": f"the adapter names the base somebody/something: the one in {copy} is used, and only "
        "shapes are compared",
        None: f"the adapter names no base: the one in {copy} is used, and only shapes are compared",
    }
    for number, (base, said) in enumerate(cases.items()):
        adapter = copy_naming(llama, tmp_path / f"adapter-{number}", base)
        found = short(adapter, Opening(base_path=copy))
        assert found.text == expected and said in found.notices
        moved = write_recipe(tmp_path / "moved.yaml", recipe_dict(gone, llama.folder / "rows.jsonl", tmp_path / "run"))
        found = short(adapter, Opening(base_path=copy, recipe=moved))
        assert found.text == expected
        assert f"{said}; model.name_or_path of the recipe is not used" in found.notices


def test_base_path_with_another_base_or_none_is_refused(llama: Place, tmp_path: Path) -> None:
    other = tiny_folder("llama", tmp_path / "other", seed=1)
    gone = copy_naming(llama, tmp_path / "of-gone", str(tmp_path / "gone"))
    refused = [
        (llama.adapter, other, f"--base-path {other}: the adapter names the base .*, and this one has other weights"),
        (llama.adapter, tmp_path / "nowhere", "there is no such folder"),
        (llama.adapter, llama.adapter, "this is an adapter, not a base"),
        (gone, tiny_folder("gpt2", tmp_path / "gpt2"), "does not fit"),
        (gone, None, r"cannot be opened(.|\n)*--base-path FOLDER"),
    ]
    for adapter, folder, words in refused:
        with pytest.raises(FledgeError, match=words):
            short(adapter, Opening(base_path=folder))


def test_an_export_calls_the_base_by_its_hub_id_and_by_no_folder_of_this_machine(llama: Place, tmp_path: Path) -> None:
    for number, (named, called) in enumerate({"some/thing": "some/thing", "/gone": None}.items()):
        adapter = copy_naming(llama, tmp_path / f"adapter-{number}", named)
        done = export(adapter, tmp_path / f"out-{number}", to="adapter", opening=Opening(base_path=llama.base))
        before, after = (json.loads((each / "adapter_config.json").read_text()) for each in (adapter, done.out))
        assert after["base_model_name_or_path"] == called
        assert {name: before[name] for name in after.keys() & before.keys() - {"base_model_name_or_path"}} == {
            name: after[name] for name in after.keys() & before.keys() - {"base_model_name_or_path"}
        }
        assert done.certificate["base"]["name"] == (called or str(llama.base))


def test_each_verb_takes_base_path_beside_an_adapter(
    llama: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("two\n"))
    adapter = str(copy_naming(llama, tmp_path / "adapter", str(tmp_path / "gone")))
    moved = recipe_dict(tmp_path / "gone", llama.folder / "rows.jsonl", tmp_path / "run")
    place = ["--base-path", str(llama.base)]
    recipe = ["--recipe", str(write_recipe(tmp_path / "recipe.yaml", moved))]
    for command in (
        ["evaluate", adapter, "--on", "train", *recipe],
        ["generate", adapter, "--prompt", "two", "--max-new-tokens", "2"],
        ["chat", adapter, "--max-new-tokens", "2"],
        ["export", adapter, str(tmp_path / "out")],
    ):
        status, said = run_here([*command, *place]), capsys.readouterr().err
        assert status == 0 and f"the one in {llama.base} is used" in said, said


def test_files_of_a_runs_names_in_an_adapters_folder_are_somebodys_own(llama: Place, tmp_path: Path) -> None:
    adapter = copy_naming(llama, tmp_path / "adapter", str(llama.base))
    (adapter / "manifest.json").write_text('{"version": 3}')
    (adapter / "recipe.yaml").write_text("base_model: some/thing\n")
    opening = Opening(recipe=llama.recipe)
    assert evaluate(adapter, question=Question(on="train"), opening=opening).rows == 8
    assert export(adapter, tmp_path / "out", to="adapter", opening=opening).certificate["base"]["name"]


def test_rows_are_computed_alone_where_rows_together_change_each_other(
    llama: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Question(on="train", max_rows=6)
    opening = Opening(recipe=llama.recipe)
    expected = evaluate(llama.adapter, question=asked, opening=opening)
    right = evaluation.load_tuned

    def loaded(opened: OpenRun, *, say: Say) -> Tuned:
        """A base whose first block gives the more the more rows there are."""
        tuned = right(opened, say=say)
        block = tuned.model.get_base_model().model.layers[0]
        block.register_forward_hook(lambda _module, _given, out: out * out.shape[0])
        return tuned

    monkeypatch.setattr(evaluation, "load_tuned", loaded)
    found = evaluate(llama.adapter, question=asked, opening=opening)
    assert found.tuned.loss == pytest.approx(expected.tuned.loss, abs=1e-5)
    assert any(text.startswith("each row is computed alone: rows padded into one") for text in found.notices)
    assert not any("computed alone" in text for text in expected.notices)
