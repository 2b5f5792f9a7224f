"""Random models of every family that has a GGUF form, wide enough for blocks of 32, and a reference for their files."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    MistralConfig,
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

from fledge.models.load_tokenizer import saved_tokenizer
from fledge.models.tokenizer import Tokenizer
from tests.tiny_models import VOCABULARY, tiny_folder

_COMMON = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "vocab_size": VOCABULARY, "initializer_range": 0.15}
# numbers that no reader takes for granted
_ROPE = {"rope_type": "default", "rope_theta": 500.0}
_LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}
# of 16 frequencies the first are left, the fourth to sixth are between, the last are divided
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 5.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 5.0, "original_max_position_embeddings": 64}
_EPSILON = {"layer_norm_epsilon": 3e-2}
_ROTARY = _COMMON | {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "rope_parameters": _ROPE,
    "rms_norm_eps": 3e-2,
    "layer_norm_eps": 3e-2,
}
_GROUPED = _ROTARY | {"num_key_value_heads": 2}
_GEMMA = _GROUPED | {"hidden_activation": "gelu_pytorch_tanh"}
_LOCAL = {"rope_type": "default", "rope_theta": 10000.0}
_GEMMA3 = _GEMMA | {"num_hidden_layers": 7, "sliding_window": 32}
_FALCON = _COMMON | {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_dropout": 0.0,
    "bias": False,
    "alibi": False,
    "rope_parameters": _ROPE,
}
_T5 = (
    _COMMON
    | _EPSILON
    | {
        "initializer_factor": 0.5,
        "decoder_start_token_id": 2,
        "d_model": 64,
        "d_kv": 32,
        "d_ff": 96,
        "num_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
    }
)
_NEOX = _ROTARY | {"rotary_pct": 0.5}


def _of(kind: Callable[..., PreTrainedConfig], **numbers: Any) -> PreTrainedConfig:
    """A configuration of its own numbers, for one writes into what it is given."""
    return kind(**copy.deepcopy(numbers))


CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "bloom": lambda: _of(BloomConfig, **_COMMON, **_EPSILON, hidden_size=128, n_layer=2, n_head=4),
    "bloom of 6 heads": lambda: _of(BloomConfig, **_COMMON, **_EPSILON, hidden_size=192, n_layer=2, n_head=6),
    "bloom of its own head": lambda: _of(
        BloomConfig, **_COMMON, **_EPSILON, hidden_size=128, n_layer=1, n_head=4, tie_word_embeddings=False
    ),
    "llama": lambda: _of(LlamaConfig, **_GROUPED, tie_word_embeddings=False),
    "llama, tied, of wide heads": lambda: _of(LlamaConfig, **_GROUPED, head_dim=64, tie_word_embeddings=True),
    "llama 3": lambda: _of(LlamaConfig, **_GROUPED | {"rope_parameters": _LLAMA3}, tie_word_embeddings=True),
    "llama, linear": lambda: _of(LlamaConfig, **_GROUPED | {"rope_parameters": _LINEAR}, tie_word_embeddings=False),
    "llama, yarn": lambda: _of(LlamaConfig, **_GROUPED | {"rope_parameters": _YARN}, tie_word_embeddings=False),
    "mistral": lambda: _of(MistralConfig, **_GROUPED, sliding_window=256, tie_word_embeddings=False),
    "qwen2": lambda: _of(Qwen2Config, **_GROUPED, tie_word_embeddings=True),
    "qwen2, yarn": lambda: _of(Qwen2Config, **_GROUPED | {"rope_parameters": _YARN}, tie_word_embeddings=True),
    "qwen3": lambda: _of(Qwen3Config, **_GROUPED, head_dim=64, tie_word_embeddings=True),
    "qwen3 of usual heads": lambda: _of(Qwen3Config, **_GROUPED, head_dim=128, tie_word_embeddings=False),
    "qwen3, yarn": lambda: _of(Qwen3Config, **_GROUPED | {"rope_parameters": _YARN}, head_dim=64),
    "smollm3": lambda: _of(SmolLM3Config, **_GROUPED | {"num_hidden_layers": 4}, tie_word_embeddings=True),
    "granite": lambda: _of(
        GraniteConfig,
        **_GROUPED,
        embedding_multiplier=3.0,
        residual_multiplier=0.3,
        attention_multiplier=0.1,
        logits_scaling=7.0,
        tie_word_embeddings=True,
    ),
    "olmo2": lambda: _of(Olmo2Config, **_GROUPED, tie_word_embeddings=False),
    "olmo2, tied": lambda: _of(Olmo2Config, **_ROTARY, tie_word_embeddings=True),
    "starcoder2": lambda: _of(Starcoder2Config, **_GROUPED, norm_epsilon=3e-2, tie_word_embeddings=True),
    "falcon-7b": lambda: _of(FalconConfig, **_FALCON, multi_query=True, parallel_attn=True),
    "falcon of its own head": lambda: _of(
        FalconConfig, **_FALCON, multi_query=True, parallel_attn=True, tie_word_embeddings=False
    ),
    "falcon-40b": lambda: _of(FalconConfig, **_FALCON, **_EPSILON, num_kv_heads=2, new_decoder_architecture=True),
    "falcon2": lambda: FalconConfig(
        **_FALCON, num_kv_heads=2, new_decoder_architecture=True, num_ln_in_parallel_attn=1
    ),
    "falcon of many heads": lambda: _of(FalconConfig, **_FALCON, multi_query=False, parallel_attn=True),
    "phi": lambda: _of(PhiConfig, **_GROUPED, partial_rotary_factor=0.5, tie_word_embeddings=False),
    "phi3": lambda: _of(Phi3Config, **_GROUPED | {"rms_norm_eps": 1e-5}, tie_word_embeddings=False),
    "phi3 rotated in part": lambda: _of(
        Phi3Config, **_GROUPED | {"rope_parameters": _ROPE | {"partial_rotary_factor": 0.75}}, tie_word_embeddings=True
    ),
    "gemma": lambda: _of(GemmaConfig, **_GEMMA, head_dim=64),
    "gemma2": lambda: _of(Gemma2Config, **_GEMMA, head_dim=256, sliding_window=32),
    "gemma2 of narrow heads": lambda: _of(
        Gemma2Config, **_GEMMA, head_dim=64, sliding_window=32, query_pre_attn_scalar=64
    ),
    "gemma3": lambda: _of(
        Gemma3TextConfig,
        **_GEMMA3 | {"rope_parameters": {"full_attention": _LINEAR, "sliding_attention": _LOCAL}},
        head_dim=64,
        query_pre_attn_scalar=64,
    ),
    "gemma3 of wide heads": lambda: _of(
        Gemma3TextConfig,
        **_GEMMA3 | {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _LOCAL}},
        head_dim=256,
        tie_word_embeddings=False,
    ),
    "gpt2": lambda: _of(GPT2Config, **_COMMON, **_EPSILON, n_embd=128, n_layer=2, n_head=4, n_positions=1024),
    "gpt-neox": lambda: _of(GPTNeoXConfig, **_NEOX, use_parallel_residual=True, tie_word_embeddings=False),
    "gpt-neox, tied": lambda: _of(GPTNeoXConfig, **_NEOX, use_parallel_residual=False, tie_word_embeddings=True),
    "flan-t5": lambda: _of(T5Config, **_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5": lambda: _of(T5Config, **_T5, feed_forward_proj="relu", num_decoder_layers=1),
}
NAMES = tuple(CONFIGS)
ROWS = [[5], [7, 300, 12, 40, 99, 3], [*range(20, 120)]]
WRITTEN = [[2], [2, 9, 30, 30], [2, *range(200, 230)]]
"""What the decoder of an encoder-decoder has written."""


@functools.cache
def model_of(name: str, dtype: torch.dtype) -> Any:
    """A random model in float32 whose weights are numbers of `dtype`, so that a file in it loses nothing."""
    config = CONFIGS[name]()
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind.from_config(config, dtype=torch.float32)
        if name == "flan-t5":  # its head is its own, which random initialisation does not know
            model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn_like(model.lm_head.weight))
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases and norms start at 0 and 1, where a mistake with them would not show
                parameter.data += 0.1 * torch.randn_like(parameter)
            parameter.data = parameter.data.to(dtype).float()
    return model.eval()


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer of the tiny models."""
    return saved_tokenizer(tiny_folder("llama", folder / "tokenizer"))


def logits_of(model: Any) -> list[torch.Tensor]:
    """Logits [T,V] of each of ROWS, of an encoder-decoder those of WRITTEN."""
    found = []
    for row, written in zip(ROWS, WRITTEN, strict=True):
        inputs = {"input_ids": torch.tensor([row])}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.tensor([written])
        with torch.no_grad():
            found.append(model(**inputs, use_cache=False).logits[0].float())
    return found


def apart(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    """The largest difference of a logit, as a share of the largest logit."""
    largest = max(float(one.abs().max()) for one in first)
    return max(float((one - other).abs().max()) for one, other in zip(first, second, strict=True)) / largest
