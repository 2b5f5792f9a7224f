"""Makes the tiny random bases of bench/families.py: config.json, safetensors and a tokenizer, and rows to train on."""

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from bench.families_config import VOCABULARY, small_config, small_values
from bench.families_flags import FAMILIES, IMAGE_IDS, IMAGE_TEXT, NOT_TEXT, ROTATED_BY_PLACE, VARIANTS
from bench.families_quantized import QUANTIZED

PAIR, IMAGES = "+pair", "+images"
"""Endings of names: the encoder-decoder of a family that has a decoder alone too, and a checkpoint with images."""
MOST_PARAMETERS = 4_000_000
SYLLABLES = "ka lo mi ren tas vu do esh pir on".split()


class NotBuilt(Exception):
    """Why a base is left out."""


def all_names() -> list[str]:
    """Every base, in a fixed order: the families, their variants, those with images, those that come quantised."""
    causal, pairs = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), list(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    named = [f"{name}{PAIR}" if name in causal else name for name in pairs]
    return [*causal, *named, *VARIANTS, *(f"{name}{IMAGES}" for name in IMAGE_TEXT), *QUANTIZED]


def family_of(name: str) -> str:
    """The model_type of a base."""
    return name.partition("+")[0]


def is_pair(name: str) -> bool:
    """Whether a base is an encoder-decoder."""
    family, _, flag = name.partition("+")
    if family not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES or f"+{flag}" == IMAGES:
        return False
    return f"+{flag}" == PAIR or family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or name.startswith("bart+")


def build(name: str, folder: Path) -> int:
    """Write the base and return its number of parameters. Raises NotBuilt, or whatever transformers raises."""
    if name in QUANTIZED:
        size = sum(tensor.numel() for tensor in QUANTIZED[name](folder).values())
        tokenizer().save_pretrained(folder)
        return size
    family = family_of(name)
    if family in NOT_TEXT and not name.endswith(IMAGES):
        raise NotBuilt("not a text model")
    config = _config(name)
    auto = AutoModelForSeq2SeqLM if is_pair(name) else AutoModelForCausalLM
    if name.endswith(IMAGES):
        auto = AutoModelForImageTextToText
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.device("meta"):
            size = sum(p.numel() for p in auto.from_config(config).parameters())
        if size > MOST_PARAMETERS:
            raise NotBuilt(f"not small: {size:,} parameters")
        model = auto.from_config(_config(name), dtype=torch.float32)
        _move(model)
    if not name.endswith(IMAGES):
        _check(model, is_pair=is_pair(name))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return size


def _config(name: str) -> PreTrainedConfig:
    family = family_of(name)
    changes = FAMILIES.get(family, {}) | VARIANTS.get(name, {})
    config = with_images(family) if name.endswith(IMAGES) else _composed(family) or small_config(family, changes)
    if not config.is_encoder_decoder and hasattr(config, "is_decoder"):
        config.is_decoder = True  # an encoder's class reads both ways otherwise
    return config


def _composed(family: str) -> PreTrainedConfig | None:
    """The configurations that are two others."""
    cls = CONFIG_MAPPING[family]
    if family == "encoder-decoder":
        parts = [small_config("bert", {}), small_config("bert", {"is_decoder": True, "add_cross_attention": True})]
        return cls.from_encoder_decoder_configs(*parts, decoder_start_token_id=0, pad_token_id=2, eos_token_id=1)
    if family in ("t5gemma", "t5gemma2"):
        default = cls()
        encoder, decoder = type(default.encoder), type(default.decoder)
        return cls(encoder=_side(encoder), decoder=_side(decoder), vocab_size=VOCABULARY, pad_token_id=2)
    return None


def _side(cls: type[PreTrainedConfig]) -> dict:
    """One side of a T5Gemma."""
    return small_values(cls)


def with_images(family: str) -> PreTrainedConfig:
    """Text as small as that of the text family, beside a small vision part. Ids from 310 on stand for images."""
    text = f"{family}_text"
    values = small_config(text, FAMILIES.get(text, {})).to_dict()
    rope = values.get("rope_parameters") or {}
    if family in ROTATED_BY_PLACE:  # a share of the pairs for time, height and width
        values["rope_parameters"] = {**rope, "mrope_section": ROTATED_BY_PLACE[family]}
    return CONFIG_MAPPING[family](text_config=values, vision_config=IMAGE_TEXT[family], **IMAGE_IDS)


def _check(model: PreTrainedModel, *, is_pair: bool) -> None:
    """Raises NotBuilt where the library itself cannot compute a row and its gradient: the configuration is at fault."""
    ids = torch.arange(3, 23)[None]
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if is_pair else {})
    caches = getattr(model.config, "use_cache", None)
    model.config.use_cache = False
    try:
        model.eval()(**inputs).logits.sum().backward()
    except Exception as error:
        raise NotBuilt(f"transformers cannot compute it: {type(error).__name__}: {error}") from error
    model.config.use_cache = caches
    model.zero_grad(set_to_none=True)


def _move(model: PreTrainedModel) -> None:
    """Norms and biases start at 1 and 0, where a mistake with them would not show."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("correction_bias"):
            buffer += 0.1 * torch.randn_like(buffer)


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 320 ids, trained on made-up words."""
    dice = random.Random(0)
    words = [_word(dice) for _ in range(400)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<s>", "</s>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([" ".join(words)], trainer)
    named = dict(zip(("bos_token", "eos_token", "pad_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def _word(dice: random.Random) -> str:
    return "".join(dice.choices(SYLLABLES, k=dice.randint(1, 3)))


def write_rows(path: Path, *, count: int, seed: int) -> Path:
    """Completion rows of 5 to about 60 tokens."""
    path.write_text("".join(json.dumps(row) + "\n" for row in _rows(count, seed)), encoding="utf-8")
    return path


def _rows(count: int, seed: int) -> Iterator[dict[str, str]]:
    dice = random.Random(seed)
    for number in range(count):
        asked, answered = 1 + (number * 5) % 14, 1 + (number * 7) % 11
        prompt, completion = (" ".join(_word(dice) for _ in range(size)) for size in (asked, answered))
        yield {"prompt": prompt, "completion": f" {completion}"}
