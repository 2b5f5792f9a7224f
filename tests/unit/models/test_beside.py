"""An adapter in a base's own folder is named and never loaded: what is trained and exported is the base's alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fledge.commands.export import export, source_of
from fledge.commands.manifest import base_digest
from fledge.commands.open_run import open_run
from fledge.commands.train import train
from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.exporting.merged import merged_onto, outline_of
from fledge.models.beside import ALONE, FILES, check_alone
from fledge.models.load import load_base
from fledge.models.locate import locate
from fledge.rundir import read_events
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder

CPU = torch.device("cpu")
KINDS = ("none", "nf4", "int8")


def with_adapter(folder: Path, architecture: str = "llama") -> Path:
    """A base with an adapter of somebody's in its folder, which changes what the base computes."""
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder(architecture, folder))
    model = get_peft_model(plain, LoraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    assert (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file()
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base with an adapter in it, the same without, and runs on both: `base/`, `alone/`, `base-nf4/`, ..."""
    folder = tmp_path_factory.mktemp("inside")
    shutil.copytree(with_adapter(folder / "base"), folder / "alone")
    for name in FILES:
        (folder / "alone" / name).unlink(missing_ok=True)
    rows = write_rows(folder / "rows.jsonl", count=16)
    for base in ("base", "alone"):
        for kind in KINDS:
            run = folder / f"{base}-{kind}"
            content = recipe_dict(folder / base, rows, run, model__quantization=kind, train__max_steps=2)
            train(load(folder / "recipes", content))
    return folder


def merged_tensors(run: Path) -> dict[str, torch.Tensor]:
    """What a merged export of a run is written from: each tensor in float32."""
    source = source_of(open_run(run), "last")
    outline, updates = outline_of(source)
    onto = "dequantized" if source.is_quantized else "full"
    merged = merged_onto(source, onto, outline=outline, updates=updates)
    return {name: merged.tensor(name) for name in merged.names()}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_trained_and_merged_as_if_the_adapter_were_not_there(kind, place):
    inside, alone = (json.loads((place / f"{base}-{kind}/summary.json").read_text()) for base in ("base", "alone"))
    for name in ("adapter_sha256", "adapter_file_sha256", "first_loss", "last_loss"):
        assert inside[name] == alone[name], name
    found, wanted = (merged_tensors(place / f"{base}-{kind}") for base in ("base", "alone"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_says_so_and_names_the_key_that_would_use_it(kind, place):
    def notices(base: str) -> list[str]:
        events = read_events(place / f"{base}-{kind}" / "events.jsonl")
        return [event["text"] for event in events if event["event"] == "notice" and "adapter lies" in event["text"]]

    [text] = notices("base")
    assert f"in {place / 'base'} (adapter_config.json): it is not loaded" in text
    assert text.endswith(f"lora.init_from: {place / 'base'} would start from it")
    assert not notices("alone")


def test_what_is_exported_is_the_same_and_has_none_of_its_files(place, tmp_path):
    certificate = export(place / "base-none", tmp_path / "merged", to="hf").certificate
    assert not any((tmp_path / "merged" / name).exists() for name in FILES)
    found, wanted = load_file(tmp_path / "merged" / "model.safetensors"), merged_tensors(place / "alone-none")
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert certificate["base"]["sha256"] == base_digest(str(place / "alone"))
    told = export(place / "base-none", tmp_path / "adapter", to="adapter")
    assert told.certificate["checks"]["logits"]["mean_kl"] < 1e-6, "the process without Fledge loaded the base alone"
    [note] = told.notices
    assert note.startswith(f"an adapter lies beside the base's weights in {place / 'base'}, and transformers loads it")


def test_the_adapter_is_no_part_of_what_is_noted_of_the_base(place):
    assert base_digest(str(place / "base")) == base_digest(str(place / "alone"))
    assert list(base_digest(str(place / "base"))) == ["model.safetensors"]


def test_the_library_would_have_loaded_it(place):
    """Why all this is needed; where this fails, the library has changed and `ALONE` may go."""
    along = AutoModelForCausalLM.from_pretrained(place / "base")
    alone = AutoModelForCausalLM.from_pretrained(place / "base", **ALONE)
    assert any("lora_A" in name for name, _ in along.named_parameters())
    assert not any("lora_A" in name for name, _ in alone.named_parameters())
    check_alone(alone, where="base")
    with pytest.raises(ModelError, match=r"(?s)has loaded the adapter.*move adapter_config\.json out"):
        check_alone(along, where="base")


@pytest.mark.parametrize("text", ["{", "[]", '{"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing"}', ""])
def test_one_that_cannot_be_read_or_names_another_base_does_no_harm(text, place, tmp_path):
    base = shutil.copytree(place / "alone", tmp_path / "base")
    (base / "adapter_config.json").write_text(text)
    (base / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    loaded = load_base(ModelConfig(name_or_path=str(base), dtype="float32"), device=CPU).model
    wanted = load_file(place / "alone" / "model.safetensors")
    own = loaded.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in wanted.items())


def test_a_base_whose_own_weights_are_pickled_is_not_taken_for_one_with_safetensors(place, tmp_path):
    base = shutil.copytree(place / "base", tmp_path / "base")
    (base / "model.safetensors").unlink()
    torch.save({}, base / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"its weights are pickled \(pytorch_model\.bin\)"):
        locate(str(base))
