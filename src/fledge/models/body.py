"""Reads a loaded model into the engine's values, where it knows every part of it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomBlock
from transformers.models.falcon.modeling_falcon import FalconDecoderLayer
from transformers.models.gemma.modeling_gemma import GemmaDecoderLayer
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer
from transformers.models.gpt2.modeling_gpt2 import GPT2Block
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.mt5.modeling_mt5 import MT5Block
from transformers.models.phi.modeling_phi import PhiDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.t5.modeling_t5 import T5Block

from fledge.engine.parts import Block, Body
from fledge.errors import NotReadable
from fledge.models.bodies import bloom, falcon, gpt2, gpt_neox, llama, phi, t5
from fledge.models.bodies.reading import AsLinear, all_alike, read_norm
from fledge.ops.cross_entropy import Head


@dataclass(frozen=True, slots=True)
class _Reader:
    """How one type of block is read, and where its model keeps the rest."""

    read_block: Callable[[Any, AsLinear], Block]
    embed: Callable[..., torch.Tensor]
    blocks: str
    norm: str


_LLAMA = _Reader(llama.read_block, llama.embed, "layers", "norm")
READERS: dict[type[nn.Module], _Reader] = {
    BloomBlock: _Reader(bloom.read_block, bloom.embed, "h", "ln_f"),
    FalconDecoderLayer: _Reader(falcon.read_block, falcon.embed, "h", "ln_f"),
    GPT2Block: _Reader(gpt2.read_block, gpt2.embed, "h", "ln_f"),
    GPTNeoXLayer: _Reader(gpt_neox.read_block, gpt_neox.embed, "layers", "final_layer_norm"),
    PhiDecoderLayer: _Reader(phi.read_block, llama.embed, "layers", "final_layernorm"),
    LlamaDecoderLayer: _LLAMA,
    MistralDecoderLayer: _LLAMA,
    Qwen2DecoderLayer: _LLAMA,
    GemmaDecoderLayer: _LLAMA,
    Gemma2DecoderLayer: _LLAMA,
}
PAIRS: frozenset[type[nn.Module]] = frozenset({T5Block, MT5Block})
"""Blocks of encoder-decoders that are read as T5's."""


def read_body(model: PreTrainedModel, as_linear: AsLinear) -> Body:
    """The model's parts as values. `as_linear` reads a linear, with its adapter where it has one.

    Raises NotReadable where a part is none that the engine knows.
    """
    if model.config.is_encoder_decoder:
        return _read_pair(model, as_linear)
    inner: Any = model.base_model
    reader, blocks = _find_blocks(inner)
    head = model.get_output_embeddings()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    has_rotary = isinstance(getattr(inner, "rotary_emb", None), nn.Module)
    read = tuple(reader.read_block(block, as_linear) for block in blocks)
    is_rotary = any(block.attention.is_rotary for block in read)
    if is_rotary and not has_rotary:
        raise NotReadable("rotary positions from elsewhere")
    return Body(
        embed=functools.partial(reader.embed, inner),
        rotary=inner.rotary_emb if is_rotary else None,
        blocks=read,
        norm=read_norm(getattr(inner, reader.norm)),
        head=_read_head(head, softcap),
        logits=functools.partial(_logits, head, softcap),
    )


def _read_pair(model: Any, as_linear: AsLinear) -> Body:
    """An encoder-decoder's parts."""
    stacks = (model.get_encoder(), model.get_decoder())
    if not all(hasattr(stack, "block") and all_alike(stack.block) in PAIRS for stack in stacks):
        raise NotReadable(f"{type(model).__name__} has no blocks that the engine knows")
    head, decoder = model.get_output_embeddings(), stacks[1]
    return Body(
        embed=functools.partial(t5.embed, decoder),
        rotary=None,
        blocks=t5.read_blocks(decoder, as_linear),
        norm=t5.read_last_norm(model),
        head=_read_head(head, None),
        logits=functools.partial(_logits, head, None),
        encoder=t5.read_encoder(model, as_linear),
    )


def _find_blocks(inner: nn.Module) -> tuple[_Reader, nn.ModuleList]:
    for name, child in inner.named_children():
        if isinstance(child, nn.ModuleList) and len(child) > 0:
            reader = READERS.get(all_alike(child))
            if reader is not None and reader.blocks == name:
                return reader, child
    raise NotReadable(f"{type(inner).__name__} has no blocks that the engine knows")


def _read_head(head: Any, softcap: float | None) -> Head | None:
    """The head where it is a plain frozen linear."""
    if type(head) is not nn.Linear or any(p.requires_grad for p in head.parameters()):
        return None
    return Head(head.weight.detach(), None if head.bias is None else head.bias.detach(), softcap)


def _logits(head: Any, softcap: float | None, hidden: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = head(hidden)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
