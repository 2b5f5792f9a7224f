"""GGUF files hold the model: proven by transformers' own reader, by the script beside the writer, and by llama.cpp."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.activations import ACT2FN

from fledge.exporting.gguf import write
from fledge.exporting.gguf.rounding import FileType
from fledge.exporting.gguf.write import read_by, remarks, write_gguf
from fledge.models.load_tokenizer import saved_tokenizer
from fledge.models.locate import locate
from tests.numbers.gguf_models import NAMES, apart, logits_of, model_of, tokenizer_in
from tests.numbers.llama_cpp_process import interpreter, llama_logits

EXACT: dict[FileType, torch.dtype] = {"f16": torch.float16, "bf16": torch.bfloat16}
TOLERANCES: dict[FileType, float] = {"f16": 5e-3, "bf16": 4e-2, "q8_0": 1.5e-1}
"""Of llama.cpp, which rounds what goes through a matrix to the matrix's own format."""
BY_TRANSFORMERS = ("bloom", "bloom of 6 heads", "bloom of its own head", "llama", "llama, tied, of wide heads")
BY_TRANSFORMERS += ("mistral", "qwen2", "falcon-7b", "qwen3 of usual heads", "falcon of its own head", "gemma2", "gpt2")
BY_TRANSFORMERS += ("gemma3 of wide heads", "phi3")
Model = Any


def written(name: str, folder: Path, file_type: FileType) -> tuple[Path, Model]:
    """A file, and the model that it holds."""
    path = folder / f"{name}.{file_type}.gguf"
    model = model_of(name, EXACT.get(file_type, torch.float32))
    write_gguf(model, tokenizer_in(folder), path=path, file_type=file_type, about={"name": "tiny"})
    return path, model


def by_transformers(path: Path) -> Model:
    kind = AutoModelForSeq2SeqLM if "t5" in path.name else AutoModelForCausalLM
    return kind.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def outsider() -> ModuleType:
    """The script, loaded by its path as the process that proves an export loads it."""
    script = Path(write.__file__).with_name("outsider.py")
    described = importlib.util.spec_from_file_location("reader", script)
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


def bits_lost(model: Model, again: Model) -> dict[str, float]:
    """For each tensor that came back with other bits, by how much."""
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    return {
        name: float((after[name] - tensor).abs().max())
        for name, tensor in before.items()
        if not torch.equal(after[name], tensor)
    }


def without_last_bits(lost: dict[str, float]) -> dict[str, float]:
    """A norm's weight plus one minus one may lose the last bit of a float32, and that is all."""
    return {key: size for key, size in lost.items() if "norm" not in key or size > 2**-24}


def test_the_script_shares_no_code_with_fledge(outsider: ModuleType) -> None:
    assert outsider.__file__ is not None
    assert "fledge" not in Path(outsider.__file__).read_text("utf-8").split('"""', 2)[2]
    assert "reader" not in sys.modules


@pytest.mark.parametrize("file_type", EXACT)
@pytest.mark.parametrize("name", BY_TRANSFORMERS)
def test_transformers_reads_back_every_bit_of_a_file_in_the_models_own_format(
    name: str, file_type: FileType, tmp_path: Path
) -> None:
    path, model = written(name, tmp_path, file_type)
    assert read_by(model) == "transformers"
    again = by_transformers(path)
    lost = bits_lost(model, again)
    assert not (without_last_bits(lost) if "gemma" in name else lost)
    # GPT-2's projections come back transposed, and a product of transposed matrices is summed in another order
    assert apart(logits_of(model), logits_of(again)) < 1e-6


@pytest.mark.parametrize("name", BY_TRANSFORMERS)
def test_transformers_reads_q8_0_within_its_rounding(name: str, tmp_path: Path) -> None:
    path, model = written(name, tmp_path, "q8_0")
    again = by_transformers(path)
    for one, (key, tensor) in zip(again.state_dict().values(), model.state_dict().items(), strict=True):
        # half a step of 1/127 of the largest, and the scale is a float16 itself
        assert (one - tensor).abs().max() <= tensor.abs().max() * (0.5 / 127 + 2**-11) * 1.01, key
    assert 0 < apart(logits_of(model), logits_of(again)) < TOLERANCES["q8_0"]


@pytest.mark.parametrize("file_type", EXACT)
@pytest.mark.parametrize("name", NAMES)
def test_the_script_reads_back_every_family(
    name: str, file_type: FileType, tmp_path: Path, outsider: ModuleType
) -> None:
    path, model = written(name, tmp_path, file_type)
    again, tokenizer = outsider.load(str(path))
    assert tokenizer is None
    assert again.generation_config.eos_token_id == [1]
    lost = bits_lost(model, again)
    if name == "t5":  # its head is written with the scale in it, which is no power of two
        assert set(lost) == {"lm_head.weight"} or not lost
    else:
        assert not without_last_bits(lost)
    # Llama 3's frequencies are divided anew, which rounds them once more
    assert apart(logits_of(model), logits_of(again)) < {"t5": 2**-8, "llama 3": 1e-5}.get(name, 1e-6)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(BY_TRANSFORMERS)))
def test_what_transformers_cannot_read_or_reads_wrongly_is_read_by_the_script(name: str, tmp_path: Path) -> None:
    path, model = written(name, tmp_path, "f16")
    assert read_by(model) == "gguf"
    try:
        again = by_transformers(path)
    except (ValueError, RuntimeError, NotImplementedError):
        return
    assert apart(logits_of(model), logits_of(again)) > 1e-3, "transformers reads it now; let read_by say so"


def test_transformers_reader_gives_flan_t5_another_activation_and_nothing_else(tmp_path: Path) -> None:
    path, model = written("flan-t5", tmp_path, "f16")
    again = by_transformers(path)
    assert (model.config.dense_act_fn, again.config.dense_act_fn) == ("gelu_new", "relu")
    for module in again.modules():
        if hasattr(module, "wi_0"):
            module.act = ACT2FN["gelu_new"]
    assert not bits_lost(model, again)
    assert apart(logits_of(model), logits_of(again)) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_computes_what_the_model_does(name: str, tmp_path: Path) -> None:
    interpreter()
    models = {file_type: written(name, tmp_path, file_type) for file_type in TOLERANCES}
    found = llama_logits([path for path, _ in models.values()])
    for (file_type, (_, model)), logits in zip(models.items(), found, strict=True):
        distance = apart(logits_of(model), logits)
        print(f"{name:28} {file_type:5} {distance:.1e}")
        assert distance < TOLERANCES[file_type], file_type


def test_llama_cpp_writes_what_trained_models_write(shared: Path, tmp_path: Path) -> None:
    interpreter()
    folders = {"nestling": Path(locate("builtin:nestling")), "stories": shared / "data/weights/stories260K/hf"}
    for name, folder in folders.items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        path = tmp_path / f"{name}.gguf"
        write_gguf(model, saved_tokenizer(folder), path=path, file_type="bf16", about={"name": name})
        expected, (found,) = logits_of(model), llama_logits([path])
        assert apart(expected, found) < TOLERANCES["bf16"]
        likeliest = [one.argmax(dim=-1) == other.argmax(dim=-1) for one, other in zip(expected, found, strict=True)]
        assert torch.cat(likeliest).float().mean() > 0.95


def test_a_window_that_llama_cpp_has_not_ends_the_context(tmp_path: Path) -> None:
    model, tokenizer = model_of("mistral", torch.float32), tokenizer_in(tmp_path)
    assert write.longest(model) == 256 < model.config.max_position_embeddings
    assert "up to 256 tokens" in " ".join(remarks(model, tokenizer))
    assert not remarks(model_of("llama", torch.float32), tokenizer)
    assert "tanh" in " ".join(remarks(model_of("falcon-7b", torch.float32), tokenizer))
    values = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
    exact, other = torch.nn.functional.gelu(values), torch.nn.functional.gelu(values, approximate="tanh")
    assert math.isclose(float((exact - other).abs().max()), 4.73e-4, rel_tol=1e-2)
