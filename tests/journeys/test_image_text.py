"""A base for text and images trains its language model on text, and exports into the same kind of checkpoint."""

import json
import re
import signal

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import Gemma3nConfig

from fledge.commands.evaluate import evaluate
from fledge.commands.export import export
from fledge.commands.generate import generate
from fledge.commands.open_run import load_tuned, open_run
from fledge.commands.train import train
from fledge.errors import ModelError, StoppedBySignal
from fledge.evaluation.generate import Sampling
from fledge.events import Notice, Prepared, StepDone
from fledge.rundir import RunDir, read_events, read_steps
from tests.journeys.image_text import (
    IMAGES,
    KINDS,
    PROCESSOR,
    content_for,
    lies_in,
    opened,
    published,
    published_in_fp8,
    with_image,
)
from tests.runs import load

IDS = torch.arange(3, 23)[None]


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base = published(request.param, folder / "base")
    train(load(folder, content_for(base, folder)))
    for to in ("adapter", "hf"):
        export(folder / "run", folder / to, to=to)
    return request.param, folder


def logits(model, **given) -> torch.Tensor:
    with torch.no_grad():
        return model(**given, use_cache=False).logits


def merged_by_peft(folder):
    return PeftModel.from_pretrained(opened(folder / "base"), folder / "adapter").merge_and_unload(safe_merge=True)


def test_the_image_part_is_not_held_and_takes_no_adapter(trained):
    kind, folder = trained
    run = RunDir(folder / "run")
    told = [event["text"] for event in read_events(run.events) if event["event"] == "notice"]
    assert any(all(part in text for part in IMAGES[kind]) and "not held" in text for text in told)
    base = load_tuned(open_run(folder / "run")).model.get_base_model()
    held = {name: p.numel() for name, p in base.named_parameters() if lies_in(name, IMAGES[kind])}
    assert held and set(held.values()) == {0}
    names = load_file(run.adapter / "adapter_model.safetensors").keys()
    assert names and not any(lies_in(name.removeprefix("base_model.model."), IMAGES[kind]) for name in names)
    assert len(read_steps(run.events)) == 6


def test_plain_peft_puts_the_adapter_on_the_class_for_text_and_images(trained):
    kind, folder = trained
    ours = load_tuned(open_run(folder / "run")).model
    model = PeftModel.from_pretrained(opened(folder / "base"), folder / "adapter").eval()
    assert torch.equal(logits(model, input_ids=IDS), logits(ours, input_ids=IDS))
    assert not torch.equal(logits(model, input_ids=IDS), logits(opened(folder / "base"), input_ids=IDS))
    adapted = {name for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")}
    mine = {name for name, module in ours.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert adapted == mine and not any(lies_in(name, IMAGES[kind]) for name in adapted)


def test_a_merged_export_is_the_base_but_for_the_language_models_deltas(trained):
    _, folder = trained
    before, after = (load_file(folder / name / "model.safetensors") for name in ("base", "hf"))
    assert before.keys() == after.keys()
    own, base = (json.loads((folder / name / "config.json").read_text()) for name in ("hf", "base"))
    assert own["architectures"] == base["architectures"] and own["model_type"] == base["model_type"]
    assert own["vision_config"] == base["vision_config"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("vision" in name or "visual" in name or "projector" in name for name in changed)
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert len(changed) == len(adapter) // 2
    merged, found = merged_by_peft(folder).state_dict(), opened(folder / "hf").state_dict()
    assert merged.keys() == found.keys()
    assert [name for name in merged if not torch.equal(merged[name], found[name])] == []


def test_a_merged_export_sees_an_image_as_base_and_adapter_do(trained):
    kind, folder = trained
    given = with_image(kind)
    merged, plain = opened(folder / "hf"), merged_by_peft(folder)
    theirs = plain.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in merged.state_dict().items())
    found, base = logits(merged, **given), logits(opened(folder / "base"), **given)
    # the same bits lie at other places of their files, where the CPU adds up in another order
    torch.testing.assert_close(found, logits(plain, **given), rtol=1e-5, atol=1e-5)
    assert not torch.equal(found, base)
    other = given | {"pixel_values": -given["pixel_values"]}
    assert not torch.equal(logits(opened(folder / "hf"), **other), found)


def test_a_merged_export_has_the_processors_files_and_one_chat_template(trained):
    _, folder = trained
    for name in PROCESSOR:
        assert (folder / "hf" / name).read_bytes() == (folder / "base" / name).read_bytes()
    assert (folder / "hf" / "chat_template.jinja").is_file()
    assert not (folder / "hf" / "chat_template.json").exists()
    certificate = json.loads((folder / "hf" / "certificate.json").read_text())
    assert certificate["base"]["loads_with"] == "AutoModelForImageTextToText"
    assert set(PROCESSOR) <= certificate["sha256"].keys()


def test_the_run_is_evaluated_and_answers(trained):
    _, folder = trained
    found = evaluate(folder / "run")
    assert found.tuned.loss < found.base.loss
    assert generate(folder / "run", "one plus two =", sampling=Sampling(max_new_tokens=4)).tokens <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_to_the_same_bits(kind, tmp_path):
    base = published(kind, tmp_path / "base")
    train(load(tmp_path, content_for(base, tmp_path, "straight")))
    recipe = load(tmp_path, content_for(base, tmp_path, "stopped"))

    def stop(event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(StoppedBySignal):
        train(recipe, observers=[stop])
    train(recipe)
    runs = [RunDir(tmp_path / name) for name in ("straight", "stopped")]
    weights = [load_file(run.adapter / "adapter_model.safetensors") for run in runs]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert [s["loss"] for s in read_steps(runs[0].events)] == [s["loss"] for s in read_steps(runs[1].events)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_quantised_it_exports_into_the_same_kind_of_checkpoint(kind, tmp_path):
    base = published(kind, tmp_path / "base")
    train(load(tmp_path, content_for(base, tmp_path, model__quantization="nf4")))
    export(tmp_path / "run", tmp_path / "hf", to="hf")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "hf"))
    assert before.keys() == after.keys()
    images = [name for name in before if re.search("vision|visual|projector", name)]
    assert images and all(torch.equal(before[name], after[name]) for name in images)


@pytest.mark.slow
def test_one_that_comes_in_fp8_is_exported_whole_with_the_names_of_its_files(tmp_path):
    base = published_in_fp8(tmp_path / "base")
    train(load(tmp_path, content_for(base, tmp_path)))
    export(tmp_path / "run", tmp_path / "hf", to="hf")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "hf"))
    assert {name for name in before if not name.endswith("_scale_inv")} == after.keys()
    images = [name for name in after if re.search("vision|projector", name)]
    assert images and all(torch.equal(before[name], after[name]) for name in images)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_new_tokens_and_the_bases_own_chat_template_come_along(kind, tmp_path):
    base = published(kind, tmp_path / "base")
    rows = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "one plus two"}, {"role": "assistant", "content": "three"}]
    rows.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(16)))
    content = content_for(base, tmp_path)
    content["data"] = {
        "train": {"path": str(rows), "format": "chat"},
        "new_special_tokens": ["<|user|>", "<|assistant|>"],
        "max_length": 64,
    }
    train(load(tmp_path, content))
    for to in ("adapter", "hf"):
        export(tmp_path / "run", tmp_path / to, to=to)
    assert opened(tmp_path / "hf").get_input_embeddings().weight.shape[0] == 322
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "hf"))
    assert before.keys() == after.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", [["q_proj", "fc1"], r".*\.(q_proj|qkv|fc1)", r"(?i).*\.(Q_PROJ|QKV|fc1)"])
def test_targets_are_the_language_models_alone_in_plain_peft_too(kind, targets, tmp_path):
    base = published(kind, tmp_path / "base")
    targets = [each for each in targets if each != "fc1"] if isinstance(targets, list) else targets
    train(load(tmp_path, content_for(base, tmp_path, lora__target_modules=targets, train__max_steps=1)))
    model = PeftModel.from_pretrained(opened(base), tmp_path / "run" / "adapter").get_base_model()
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert adapted and all(name.endswith("q_proj") and "language_model" in name for name in adapted)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"lora__target_modules": ["fc1"]}, "no module is named fc1"),
        ({"lora__modules_to_save": ["multi_modal_projector"]}, "which reads images"),
        ({"lora__modules_to_save": ["layers"]}, "write the full name, as model.language_model.layers"),
    ],
)
def test_what_reads_images_is_not_trained(changes, what, tmp_path):
    base = published("gemma3", tmp_path / "base")
    with pytest.raises(ModelError) as caught:
        train(load(tmp_path, content_for(base, tmp_path, **changes)))
    assert what in str(caught.value)


def test_pairs_that_a_strangers_adapter_has_where_images_are_read_are_kept_and_told(tmp_path):
    base, told = published("gemma3", tmp_path / "base"), []
    settings = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(opened(base), settings).save_pretrained(str(tmp_path / "theirs"))
    content = content_for(base, tmp_path)
    content["lora"] = {"init_from": str(tmp_path / "theirs")}
    train(load(tmp_path, content), observers=[told.append])
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("theirs", "run/adapter"))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert same == {name for name in before if "vision_tower" in name} != set()
    assert any("have seen no token" in event.text for event in told if isinstance(event, Notice))


def test_a_base_that_is_refused_is_refused_before_its_rows_are_read(tmp_path):
    base = published("gemma3", tmp_path / "base")
    Gemma3nConfig().save_pretrained(base)
    told = []
    with pytest.raises(ModelError, match="reads sound too"):
        train(load(tmp_path, content_for(base, tmp_path)), observers=[told.append])
    assert not any(isinstance(event, Prepared) for event in told)


def test_notices_are_told_once_and_name_the_part(tmp_path):
    base, told = published("gemma3", tmp_path / "base"), []
    train(load(tmp_path, content_for(base, tmp_path, train__max_steps=1)), observers=[told.append])
    assert sum("images" in event.text for event in told if isinstance(event, Notice)) == 1
