"""Tiny random models of every architecture that is tested, as Hugging Face folders with a tokenizer of their own."""

import functools
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)

VOCABULARY = 320
WINDOW = 6
"""Sliding windows are shorter than the rows of the tests, so that a window which is forgotten shows."""
_BOS, _EOS, _PAD = "<s>", "</s>", "<|endoftext|>"  # the last one because Qwen2's tokenizer class adds it where it lacks
_COMMON = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "vocab_size": VOCABULARY, "initializer_range": 0.15}
_ROTARY = _COMMON | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
_GROUPED = _ROTARY | {"num_key_value_heads": 2}
_GEMMA = _GROUPED | {"head_dim": 16, "hidden_activation": "gelu_pytorch_tanh"}
_FALCON = _COMMON | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_dropout": 0.0}

_CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "bloom": lambda: BloomConfig(**_COMMON, hidden_size=32, n_layer=2, n_head=4),
    "llama": lambda: LlamaConfig(**_GROUPED, tie_word_embeddings=False),
    "mistral": lambda: MistralConfig(**_GROUPED, sliding_window=WINDOW, tie_word_embeddings=False),
    "gemma": lambda: GemmaConfig(**_GEMMA),
    "gemma2": lambda: Gemma2Config(**_GEMMA, sliding_window=WINDOW, query_pre_attn_scalar=16),
    "falcon-7b": lambda: FalconConfig(
        **_FALCON, multi_query=True, parallel_attn=True, bias=False, alibi=False, new_decoder_architecture=False
    ),
    "falcon-rw": lambda: FalconConfig(
        **_FALCON, multi_query=False, parallel_attn=False, bias=True, alibi=True, new_decoder_architecture=False
    ),
    "phi": lambda: PhiConfig(**_ROTARY, partial_rotary_factor=0.5, tie_word_embeddings=False),
    "gpt2": lambda: GPT2Config(
        **_COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=512, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    ),
    "gpt-neox": lambda: GPTNeoXConfig(**_ROTARY, rotary_pct=0.5, use_parallel_residual=True, tie_word_embeddings=False),
    "qwen2": lambda: Qwen2Config(**_GROUPED, tie_word_embeddings=True),
}
ARCHITECTURES = tuple(_CONFIGS)
_PAIRS: dict[str, Callable[[], PreTrainedConfig]] = {
    "t5": lambda: T5Config(
        **_COMMON | {"initializer_factor": 0.5, "decoder_start_token_id": 2, "feed_forward_proj": "gated-gelu"},
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        tie_word_embeddings=False,
    ),
    "bart": lambda: BartConfig(
        **_COMMON | {"init_std": 0.15, "decoder_start_token_id": 1, "forced_eos_token_id": None},
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=512,
    ),
}
PAIRS = tuple(_PAIRS)
"""Encoder-decoders."""


def tiny_folder(architecture: str, folder: Path, *, seed: int = 0, tie: bool | None = None) -> Path:
    """Write a random two-layer model with its tokenizer into `folder` and return it.

    `tie` says whether the head shares the embedding's weight; None leaves it as the architecture is known for.
    """
    shutil.copytree(_cached(architecture, seed, tie), folder, dirs_exist_ok=True)
    return folder


@functools.cache
def _cached(architecture: str, seed: int, tie: bool | None) -> Path:
    """The model's folder, made once in a test session."""
    folder = Path(_scratch().name) / f"{architecture}-{seed}-{tie}"
    config = (_CONFIGS | _PAIRS)[architecture]()
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if tie is not None:
        config.tie_word_embeddings = tie
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases and norms start at 0 and 1, where a mistake with them would not show
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fledge-tiny-")


@functools.cache
def _tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 320 ids, trained on made-up words."""
    dice = random.Random(0)
    syllables = "ka lo mi ren tas vu do esh pir on".split()
    words = ["".join(dice.choices(syllables, k=dice.randint(1, 3))) for _ in range(400)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[_BOS, _EOS, _PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(words)], trainer)
    assert backend.get_vocab_size() == VOCABULARY
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=_BOS, eos_token=_EOS, pad_token=_PAD)
