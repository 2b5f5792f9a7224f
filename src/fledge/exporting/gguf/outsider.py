"""Runs without Fledge: builds a plain transformers model from a GGUF file, where transformers' own reader does not.

It is what somebody without Fledge would write, so it shares no code with Fledge: names come from the gguf package's
table, layouts are undone by what llama.cpp's graphs compute (its src/models).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gguf
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
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    Starcoder2Config,
    T5Config,
)

Numbers = Callable[[str], Any]
"""What the file says under a key of its architecture; None where it says nothing."""


@dataclass(frozen=True, slots=True)
class Way:
    """How one architecture is read."""

    config: Callable[[Numbers, frozenset[str]], PreTrainedConfig]
    layout: Callable[[str, torch.Tensor, Any], torch.Tensor]


def _rotary(number: Numbers, *, width: int | None = None) -> dict[str, Any]:
    rope = {"rope_type": number("rope.scaling.type") or "default", "rope_theta": number("rope.freq_base")}
    scaled = {"factor": "factor", "original_max_position_embeddings": "original_context_length"}
    found = {name: number(f"rope.scaling.{key}") for name, key in scaled.items()}
    rope |= {name: value for name, value in found.items() if value is not None}
    if width is not None:
        rope["partial_rotary_factor"] = number("rope.dimension_count") / width
    return {
        "hidden_size": number("embedding_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": number("attention.head_count"),
        "intermediate_size": number("feed_forward_length"),
        "max_position_embeddings": number("context_length"),
        "rope_parameters": rope,
    }


def _divided(divisors: list[float], config: Any) -> dict[str, Any]:
    """What divides each frequency of a rotary embedding, as the one kind that transformers reads such numbers of."""
    either = {"short_factor": divisors, "long_factor": divisors}
    rest = {"attention_factor": 1.0, "original_max_position_embeddings": config.max_position_embeddings}
    return {"rope_type": "longrope"} | either | rest


def _grouped(number: Numbers) -> dict[str, Any]:
    return _rotary(number) | {
        "num_key_value_heads": number("attention.head_count_kv"),
        "head_dim": number("attention.key_length"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
    }


def _like_llama(kind: Callable[..., PreTrainedConfig]) -> Callable[[Numbers, frozenset[str]], PreTrainedConfig]:
    def config(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
        return kind(**_grouped(number), tie_word_embeddings="output.weight" not in tensors)

    return config


def _gemma(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    return GemmaConfig(**_grouped(number), hidden_activation="gelu_pytorch_tanh")


def _gemma2(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    is_27b = number("block_count") == 46
    per_head = number("embedding_length") // number("attention.head_count")
    return Gemma2Config(
        **_grouped(number),
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=per_head if is_27b else number("attention.key_length"),
        attn_logit_softcapping=number("attn_logit_softcapping"),
        final_logit_softcapping=number("final_logit_softcapping"),
        sliding_window=number("attention.sliding_window"),
    )


def _gemma3(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    told, is_27b = _grouped(number), number("block_count") == 62
    per_head = number("embedding_length") // number("attention.head_count")
    local = {"rope_type": "default", "rope_theta": 10000.0}
    told["rope_parameters"] = {"full_attention": told["rope_parameters"], "sliding_attention": local}
    return Gemma3TextConfig(
        **told,
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=per_head if is_27b else number("attention.key_length"),
        sliding_window=number("attention.sliding_window"),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _phi2(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    width = number("embedding_length") // number("attention.head_count")
    return PhiConfig(
        **_rotary(number, width=width),
        num_key_value_heads=number("attention.head_count_kv"),
        layer_norm_eps=number("attention.layer_norm_epsilon"),
        hidden_act="gelu_new",
        tie_word_embeddings=False,
    )


def _phi3(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    width = number("embedding_length") // number("attention.head_count")
    return Phi3Config(
        **_rotary(number, width=width),
        num_key_value_heads=number("attention.head_count_kv"),
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _granite(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    return GraniteConfig(
        **_grouped(number),
        embedding_multiplier=number("embedding_scale"),
        residual_multiplier=number("residual_scale"),
        attention_multiplier=number("attention.scale"),
        logits_scaling=number("logit_scale"),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _starcoder2(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    return Starcoder2Config(
        **_rotary(number),
        num_key_value_heads=number("attention.head_count_kv"),
        norm_epsilon=number("attention.layer_norm_epsilon"),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _gptneox(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    width = number("embedding_length") // number("attention.head_count")
    return GPTNeoXConfig(
        **_rotary(number, width=width),
        layer_norm_eps=number("attention.layer_norm_epsilon"),
        use_parallel_residual=number("use_parallel_residual"),
        tie_word_embeddings=False,
    )


def _gpt2(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    return GPT2Config(
        n_embd=number("embedding_length"),
        n_layer=number("block_count"),
        n_head=number("attention.head_count"),
        n_inner=number("feed_forward_length"),
        n_positions=number("context_length"),
        layer_norm_epsilon=number("attention.layer_norm_epsilon"),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _bloom(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    return BloomConfig(
        hidden_size=number("embedding_length"),
        n_layer=number("block_count"),
        n_head=number("attention.head_count"),
        layer_norm_epsilon=number("attention.layer_norm_epsilon"),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _falcon(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    heads, kv_heads = number("attention.head_count"), number("attention.head_count_kv")
    norms = 2 if "blk.0.attn_norm_2.weight" in tensors else 1
    is_new = norms == 2 or kv_heads not in (1, heads)
    return FalconConfig(
        hidden_size=number("embedding_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=heads,
        num_kv_heads=kv_heads,
        ffn_hidden_size=number("feed_forward_length"),
        max_position_embeddings=number("context_length"),
        layer_norm_epsilon=number("attention.layer_norm_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base")},
        multi_query=kv_heads == 1,
        new_decoder_architecture=is_new,
        num_ln_in_parallel_attn=norms if is_new else None,
        parallel_attn=True,
        alibi=False,
        bias=False,
        tie_word_embeddings="output.weight" not in tensors,
    )


def _t5(number: Numbers, tensors: frozenset[str]) -> PreTrainedConfig:
    return T5Config(
        d_model=number("embedding_length"),
        d_ff=number("feed_forward_length"),
        d_kv=number("attention.key_length"),
        num_layers=number("block_count"),
        num_decoder_layers=number("decoder_block_count"),
        num_heads=number("attention.head_count"),
        relative_attention_num_buckets=number("attention.relative_buckets_count"),
        layer_norm_epsilon=number("attention.layer_norm_rms_epsilon"),
        decoder_start_token_id=number("decoder_start_token_id"),
        feed_forward_proj="gated-gelu" if "enc.blk.0.ffn_gate.weight" in tensors else "relu",
        tie_word_embeddings="output.weight" not in tensors,
    )


def _same(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    return tensor


def _halves_again(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """Llama's pairs of neighbours back to halves of a head."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return tensor
    heads = config.num_attention_heads if name.endswith("q_proj.weight") else config.num_key_value_heads
    width, inputs = tensor.shape[0] // heads, tensor.shape[1]
    return torch.cat([tensor.view(heads, width, inputs)[:, first::2] for first in (0, 1)], dim=1).view(tensor.shape)


def _fused_again(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """Queries, keys and values back into their groups: of each key/value head its queries, its key and its value."""
    if "query_key_value" not in name:
        return tensor
    heads = config.num_attention_heads
    kv_heads = 1 if getattr(config, "multi_query", False) else getattr(config, "num_kv_heads", heads)
    width = config.hidden_size // heads
    queries, keys, values = tensor.split([heads * width, kv_heads * width, kv_heads * width])
    rows = []
    for group in range(kv_heads):
        mine, each = heads // kv_heads * width, slice(group * width, (group + 1) * width)
        rows += [queries[group * mine : (group + 1) * mine], keys[each], values[each]]
    return torch.cat(rows)


def _one_less(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    return tensor - 1 if name.endswith("norm.weight") else tensor


def _turned(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    is_turned = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
    return tensor.t().contiguous() if is_turned else tensor


WAYS: dict[str, Way] = {
    "bloom": Way(_bloom, _fused_again),
    "falcon": Way(_falcon, _fused_again),
    "gemma": Way(_gemma, _one_less),
    "gemma2": Way(_gemma2, _one_less),
    "gemma3": Way(_gemma3, _one_less),
    "gpt2": Way(_gpt2, _turned),
    "gptneox": Way(_gptneox, _fused_again),
    "granite": Way(_granite, _halves_again),
    "llama": Way(_like_llama(LlamaConfig), _halves_again),
    "olmo2": Way(_like_llama(Olmo2Config), _same),
    "phi2": Way(_phi2, _same),
    "phi3": Way(_phi3, _same),
    "qwen2": Way(_like_llama(Qwen2Config), _same),
    "qwen3": Way(_like_llama(Qwen3Config), _same),
    "smollm3": Way(_like_llama(SmolLM3Config), _halves_again),
    "starcoder2": Way(_starcoder2, _same),
    "t5": Way(_t5, _same),
}


@dataclass(frozen=True, slots=True)
class Lazy:
    """A tensor that is made when transformers asks for it, as it asks the slices of a safetensors file."""

    make: Callable[[], torch.Tensor]
    shape: list[int]

    def get_shape(self) -> list[int]:
        return self.shape

    def get_dtype(self) -> str:
        return "F32"

    def __getitem__(self, _: Any) -> torch.Tensor:
        return self.make()


def load(path: str, dtype: str = "float32") -> tuple[Any, None]:
    """The model in a GGUF file, in eval mode; no tokenizer, for the file holds only its words.

    In another `dtype` than float32 it takes no more memory than the model does: tensors are made as they are loaded.
    Raises AssertionError where the file has a tensor too many or too few.
    """
    reader = gguf.GGUFReader(path)
    arch = reader.fields["general.architecture"].contents()

    def number(key: str) -> Any:
        field = reader.fields.get(f"{arch}.{key}")
        return None if field is None else field.contents()

    stored = {tensor.name: tensor for tensor in reader.tensors}
    divisors = stored.pop("rope_freqs.weight", None)
    config = WAYS[arch].config(number, frozenset(stored))
    config.vocab_size = number("vocab_size")
    if (config.pad_token_id or 0) >= config.vocab_size:  # a default, of which the file says nothing
        config.pad_token_id = None
    if divisors is not None:
        config.rope_parameters = config.rope_parameters | _divided(_values(divisors).tolist(), config)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        empty = kind.from_config(config)
    names = _names(empty, arch, frozenset(stored))

    def made(name: str) -> torch.Tensor:
        return WAYS[arch].layout(name, _values(stored[names[name]]), config)

    shapes = {name: list(tensor.shape) for name, tensor in empty.state_dict().items()}
    state = {name: Lazy(partial(made, name), shapes[name]) for name in names}
    model, told = type(empty).from_pretrained(
        None, config=config, state_dict=state, dtype=getattr(torch, dtype), output_loading_info=True
    )
    tokens = {name: reader.fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot", "padding")}
    ids = {name: None if field is None else field.contents() for name, field in tokens.items()}
    settings = model.generation_config
    settings.bos_token_id, settings.pad_token_id = ids["bos"], ids["padding"]
    settings.eos_token_id = sorted({ids[name] for name in ("eos", "eot")} - {None})
    settings.decoder_start_token_id = number("decoder_start_token_id")
    assert not told["unexpected_keys"] and not told["mismatched_keys"], told
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    assert set(told["missing_keys"]) <= tied, told
    return model.eval(), None


def _names(empty: Any, arch: str, stored: frozenset[str]) -> dict[str, str]:
    """For each tensor of the model its name in the file."""
    which = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    table, names = gguf.get_tensor_name_map(which, empty.config.num_hidden_layers), {}
    for name in empty.state_dict():
        short = name.removeprefix(f"{empty.base_model_prefix}.")
        mine = next(filter(None, (table.get_name(one, (".weight", ".bias")) for one in (name, short))), None)
        if mine in stored:
            names[name] = mine
    assert set(names.values()) == stored, f"no place for {sorted(stored - set(names.values()))}"
    return names


def _values(tensor: Any) -> torch.Tensor:
    return torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
