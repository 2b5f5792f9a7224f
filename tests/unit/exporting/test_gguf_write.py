"""A GGUF file is written whole or not at all, each weight rounded once, and what has no form is refused in words."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    Starcoder2Config,
    T5Config,
)

from fledge.errors import FledgeError, ModelError, RunError
from fledge.exporting.gguf.rounding import FILE_TYPES, FileType, rounded
from fledge.exporting.gguf.table import FAMILIES
from fledge.exporting.gguf.write import read_by, supports, write_gguf
from fledge.models.load_tokenizer import saved_tokenizer
from fledge.models.tokenizer import Tokenizer
from tests.tiny_models import VOCABULARY, tiny_folder

_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
_SIZES |= {"num_attention_heads": 2}
_FALCON = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
_GEMMA3 = _SIZES | {"head_dim": 32, "query_pre_attn_scalar": 32, "num_key_value_heads": 2, "pad_token_id": 0}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 1, "n_head": 2}
_T5 = {"vocab_size": VOCABULARY, "d_model": 64, "d_kv": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
_LLAMA3 = _YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LONG = _YARN | {"rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
_PART = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return saved_tokenizer(tiny_folder("llama", tmp_path / "tiny"))


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**_SIZES | changes), dtype=torch.float32)


def written(model: Any, tokenizer: Tokenizer, folder: Path, file_type: FileType) -> gguf.GGUFReader:
    path = folder / f"{file_type}.gguf"
    write_gguf(model, tokenizer, path=path, file_type=file_type, about={"name": "tiny", "license": "mit"})
    return gguf.GGUFReader(path)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and "gguf" in path.name)


def refused(model: Any, tokenizer: Tokenizer, folder: Path, *, file_type: FileType = "f16") -> FledgeError:
    with pytest.raises(FledgeError) as told:
        write_gguf(model, tokenizer, path=folder / "model.gguf", file_type=file_type, about={})
    assert not left_in(folder)
    (problem,) = told.value.problems
    assert problem.what
    assert problem.where
    assert problem.cure
    return told.value


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_matrices_are_in_the_format_and_vectors_in_float32(
    tokenizer: Tokenizer, tmp_path: Path, file_type: FileType
) -> None:
    reader = written(llama(), tokenizer, tmp_path, file_type)
    kinds = {tensor.name: tensor.tensor_type.name.lower() for tensor in reader.tensors}
    assert {kind for name, kind in kinds.items() if "norm" not in name} == {file_type}
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"f32"}
    fields = {name: reader.fields[name].contents() for name in reader.fields if name.startswith("general.")}
    assert fields.pop("general.file_type") == FILE_TYPES[file_type]
    told = {"architecture": "llama", "type": "model", "name": "tiny", "license": "mit", "quantization_version": 2}
    assert fields == {f"general.{name}": value for name, value in told.items()}


def test_a_matrix_whose_rows_fill_no_blocks_is_float16_in_a_q8_0_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reader = written(llama(intermediate_size=80), tokenizer, tmp_path, "q8_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"


@pytest.mark.parametrize(("file_type", "dtype"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_each_weight_is_rounded_once_to_the_nearest(
    tokenizer: Tokenizer, tmp_path: Path, file_type: FileType, dtype: torch.dtype
) -> None:
    model = llama()
    reader = written(model, tokenizer, tmp_path, file_type)
    found = next(tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_up.weight")
    again = torch.from_numpy(gguf.quants.dequantize(found.data, found.tensor_type).copy())
    assert torch.equal(again, model.model.layers[1].mlp.up_proj.weight.to(dtype).float())


def test_a_model_in_bfloat16_is_written_without_loss(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = llama().to(torch.bfloat16)
    reader = written(model, tokenizer, tmp_path, "bf16")
    found = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    assert np.array_equal(found["output.weight"], model.lm_head.weight.detach().float().numpy())
    assert np.array_equal(found["output_norm.weight"], model.model.norm.weight.detach().float().numpy())


def test_two_writings_are_the_same_bytes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = llama()
    for name in ("first", "second"):
        write_gguf(model, tokenizer, path=tmp_path / name, file_type="q8_0", about={"name": "tiny"})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_a_weight_that_is_no_number_leaves_nothing_behind(
    tokenizer: Tokenizer, tmp_path: Path, file_type: FileType, value: float
) -> None:
    model = llama()
    model.model.layers[1].mlp.down_proj.weight.data[3, 5] = value
    error = refused(model, tokenizer, tmp_path, file_type=file_type)
    assert "not finite" in str(error)
    assert "model.layers.1.mlp.down_proj.weight" in str(error)


@pytest.mark.parametrize(("file_type", "value"), [("f16", 7e4), ("q8_0", 1e7), ("bf16", 3.4e38)])
def test_a_weight_beyond_the_format_leaves_nothing_behind(
    tokenizer: Tokenizer, tmp_path: Path, file_type: FileType, value: float
) -> None:
    model = llama()
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = value
    assert f"too large for {file_type}" in str(refused(model, tokenizer, tmp_path, file_type=file_type))


def test_the_largest_weights_that_fit_are_kept() -> None:
    for kind, value in ((gguf.GGMLQuantizationType.F16, 65504.0), (gguf.GGMLQuantizationType.Q8_0, 65504.0 * 127)):
        stored = rounded(torch.full((1, 32), value), kind, where="here")
        assert np.allclose(gguf.quants.dequantize(stored, kind), value)


def test_what_is_there_already_is_not_touched(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("mine")
    with pytest.raises(RunError, match="something here already"):
        write_gguf(llama(), tokenizer, path=path, file_type="f16", about={})
    assert path.read_text() == "mine"
    assert left_in(tmp_path) == ["model.gguf"]


def test_a_folder_that_is_not_there_is_an_error_in_words(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written: No such file"):
        write_gguf(llama(), tokenizer, path=tmp_path / "no" / "model.gguf", file_type="f16", about={})


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from fledge.errors import RunError
from fledge.exporting.gguf.write import write_gguf
from fledge.models.load_tokenizer import saved_tokenizer
model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=320, hidden_size=64, intermediate_size=96,
                                                     num_hidden_layers=2, num_attention_heads=2))
tokenizer = saved_tokenizer(Path(sys.argv[1]) / "tiny")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for room in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        write_gguf(model, tokenizer, path=Path(sys.argv[1]) / "model.gguf", file_type="f16", about={})
    except RunError as error:
        print(error)
"""


def test_a_full_disk_leaves_nothing_behind(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rooms = ["10", "5000", "100000"]  # the header, the words and the weights do not fit
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), *rooms], capture_output=True, text=True, check=True
    )
    reasons = [line.partition("the export cannot be written: ")[2] for line in done.stdout.splitlines()[::2]]
    assert reasons == ["File too large", "File too large", "the disk took only a part of it"]
    assert not left_in(tmp_path)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another architecture": (
        lambda: OPTConfig(vocab_size=VOCABULARY, hidden_size=64, ffn_dim=64, num_attention_heads=2),
        "known are Bloom",
    ),
    "phi of yarn": (lambda: PhiConfig(**_SIZES, rope_parameters=_YARN), "scaled by yarn"),
    "llama of longrope": (lambda: LlamaConfig(**_SIZES, rope_parameters=_LONG), "scaled by longrope"),
    "llama of another yarn": (
        lambda: LlamaConfig(**_SIZES, rope_parameters=_YARN | {"beta_fast": 16}),
        "yarn with a beta_fast of their own",
    ),
    "qwen2 of llama3": (lambda: Qwen2Config(**_SIZES, num_key_value_heads=2, rope_parameters=_LLAMA3), "by llama3"),
    "llama rotated in part": (lambda: LlamaConfig(**_SIZES, rope_parameters=_PART), "rotated in part"),
    "llama with biases": (lambda: LlamaConfig(**_SIZES, attention_bias=True), "biases"),
    "llama with relu": (lambda: LlamaConfig(**_SIZES, hidden_act="relu"), "the activation relu"),
    "wide qwen2": (lambda: Qwen2Config(**_SIZES, num_key_value_heads=2, head_dim=64), "not as wide"),
    "qwen3 with biases": (lambda: Qwen3Config(**_SIZES, attention_bias=True), "biases"),
    "smollm3 with positions everywhere": (
        lambda: SmolLM3Config(**_SIZES | {"num_hidden_layers": 4}, pad_token_id=0, no_rope_layers=[1, 1, 1, 1]),
        "another order of blocks without positions",
    ),
    "granite of no residuals": (lambda: GraniteConfig(**_SIZES, residual_multiplier=0.0), "a scale of 0"),
    "wide olmo2": (lambda: Olmo2Config(**_SIZES, head_dim=64), "not as wide"),
    "starcoder2 without biases": (lambda: Starcoder2Config(**_SIZES, use_bias=False), "without biases"),
    "starcoder2 with an exact gelu": (lambda: Starcoder2Config(**_SIZES, hidden_act="gelu"), "the activation gelu"),
    "falcon with alibi": (lambda: FalconConfig(**_FALCON, alibi=True), "ALiBi"),
    "falcon with biases": (lambda: FalconConfig(**_FALCON, bias=True), "biases"),
    "falcon in sequence": (lambda: FalconConfig(**_FALCON, parallel_attn=False), "instead of beside it"),
    "phi with norms": (lambda: PhiConfig(**_SIZES, qk_layernorm=True), "norms of queries"),
    "phi3 of longrope": (
        lambda: Phi3Config(**_SIZES, pad_token_id=0, rope_parameters=_LONG | {"partial_rotary_factor": 1.0}),
        "scaled by longrope",
    ),
    "gemma of its own head": (lambda: GemmaConfig(**_SIZES, head_dim=32, tie_word_embeddings=False), "no head but"),
    "gemma2 of another scale": (lambda: Gemma2Config(**_SIZES, head_dim=32), "query_pre_attn_scalar"),
    "gemma3 of another scale": (lambda: Gemma3TextConfig(**_GEMMA3 | {"head_dim": 64}), "query_pre_attn_scalar"),
    "gemma3 of other windows": (
        lambda: Gemma3TextConfig(**_GEMMA3, layer_types=["full_attention"] * 2),
        "another order of windows",
    ),
    "gemma3 of another base": (
        lambda: Gemma3TextConfig(**_GEMMA3, rope_parameters={"sliding_attention": _PART | {"rope_theta": 5e4}}),
        "another base where",
    ),
    "gemma3 of yarn": (lambda: Gemma3TextConfig(**_GEMMA3, rope_parameters={"full_attention": _YARN}), "by yarn"),
    "gemma3 with soft caps": (lambda: Gemma3TextConfig(**_GEMMA3, final_logit_softcapping=30.0), "soft caps"),
    "gemma3 of both ways": (
        lambda: Gemma3TextConfig(**_GEMMA3, use_bidirectional_attention=True),
        "attention to what follows",
    ),
    "gpt2 with relu": (lambda: GPT2Config(**_GPT2, activation_function="relu"), "the activation relu"),
    "gpt2 scaled": (lambda: GPT2Config(**_GPT2, scale_attn_by_inverse_layer_idx=True), "scaled in another way"),
    "neox without biases": (lambda: GPTNeoXConfig(**_SIZES, attention_bias=False), "without biases"),
    "bloom with late residuals": (
        lambda: BloomConfig(
            vocab_size=VOCABULARY, hidden_size=64, n_layer=1, n_head=2, apply_residual_connection_post_layernorm=True
        ),
        "residuals after the norm",
    ),
    "t5 of far positions": (lambda: T5Config(**_T5, relative_attention_max_distance=256), "up to 256"),
    "t5 of another gate": (lambda: T5Config(**_T5, feed_forward_proj="gated-silu"), "silu with a gate"),
    "t5 of a deep decoder": (lambda: T5Config(**_T5, num_decoder_layers=2), "more blocks in the decoder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_has_not_is_refused_before_anything_is_written(
    name: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = REFUSED[name][0]()
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config)
    reason = REFUSED[name][1]
    assert reason in str(supports(model))
    error = refused(model, tokenizer, tmp_path)
    assert isinstance(error, ModelError)
    assert reason in str(error)


def test_a_tensor_without_a_place_in_the_file_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = llama()
    model.model.layers[0].mlp.extra = torch.nn.Linear(4, 4)
    assert "2 tensors have no place in a GGUF file, the first model.layers.0.mlp.extra.weight" in str(
        refused(model, tokenizer, tmp_path)
    )
    model = llama()
    model.register_buffer("memory", torch.zeros(3))
    assert "the first memory" in str(refused(model, tokenizer, tmp_path))


def test_a_vocabulary_that_does_not_fit_is_refused_before_anything_is_written(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    assert "rows in the embedding" in str(refused(llama(vocab_size=VOCABULARY - 1), tokenizer, tmp_path))


def test_the_frequencies_of_llama_3_are_divided_as_transformers_divides_them(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = llama(rope_parameters=_LLAMA3)
    (found,) = (
        tensor for tensor in written(model, tokenizer, tmp_path, "q8_0").tensors if tensor.name == "rope_freqs.weight"
    )
    assert found.tensor_type.name == "F32"
    divisors = torch.from_numpy(found.data.copy())
    plain = 1e4 ** -(torch.arange(16) / 16)
    assert torch.allclose(plain / divisors, model.model.rotary_emb.inv_freq, rtol=1e-6)
    assert divisors[0] == 1
    assert divisors[-1] == pytest.approx(4, rel=1e-6)
    assert read_by(model) == "gguf"


def test_every_family_is_supported_and_says_who_reads_it(tmp_path: Path) -> None:
    names = ("bloom", "llama", "mistral", "falcon-7b", "phi", "gemma", "gpt2", "gpt-neox", "qwen2", "t5")
    found = {}
    for name in names:
        folder = tiny_folder(name, tmp_path / name)
        kind = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
        model = kind.from_pretrained(folder)
        assert type(model) in FAMILIES
        assert supports(model) is True
        found[name] = read_by(model)
    assert {name for name, reader in found.items() if reader == "gguf"} == {"phi", "gemma", "gpt2", "gpt-neox", "t5"}
