"""Small random bodies of every kind, made by hand, and the loss of each in plain differentiable torch, row by row."""

import functools
import itertools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from fledge.engine.packed import Packed, Side
from fledge.engine.parts import Attention, Block, Body, CrossAttention, Encoder, Mlp, Split
from fledge.ops.activation import ACTIVATIONS
from fledge.ops.attention import reference_attend
from fledge.ops.cross_entropy import Head
from fledge.ops.lora_linear import Linear, Lora, reference_linear
from fledge.ops.norm import Norm, reference_norm
from fledge.ops.plan import Document, Shape
from fledge.ops.rotary import reference_rotate

HIDDEN, INNER, VOCABULARY, RANK, HEAD_DIM = 24, 40, 50, 3, 8
ACTIVATION = {activation.name: activation for activation in ACTIVATIONS}


@dataclass
class Dice:
    """Random numbers, one after the other, the same each time."""

    generator: torch.Generator

    def draw(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=self.generator)

    def linear(self, inputs: int, outputs: int, *, is_adapted: bool = True, bias: bool = True) -> Linear:
        a = nn.Parameter(self.draw(RANK, inputs, scale=inputs**-0.5))
        b = nn.Parameter(self.draw(outputs, RANK, scale=0.3))
        return Linear(
            weight=self.draw(outputs, inputs, scale=inputs**-0.5),
            bias=self.draw(outputs, scale=0.2) if bias else None,
            lora=Lora(a, b, 1.5) if is_adapted else None,
        )

    def norm(self, kind: str) -> Norm:
        bias = self.draw(HIDDEN, scale=0.2) if kind == "layer" else None
        return Norm(kind, 1 + self.draw(HIDDEN, scale=0.2), bias, 1e-5)


@dataclass(frozen=True)
class Kind:
    """What a body is made of."""

    norm: str
    kv_heads: int
    groups: int
    is_rotary: bool = False
    has_gate: bool = False
    has_norms_after: bool = False
    is_parallel: bool = False
    has_one_norm: bool = False
    softcap: float | None = None
    window: int | None = None
    has_alibi: bool = False
    is_fused: bool = False
    activation: str = "silu"


KINDS = {
    "llama": Kind("rms", 2, 2, is_rotary=True, has_gate=True),
    "gemma2": Kind("rms", 1, 3, is_rotary=True, has_gate=True, has_norms_after=True, softcap=2.0, window=7),
    "gpt2": Kind("layer", 3, 1, is_fused=True, activation="gelu_tanh"),
    "bloom": Kind("layer", 3, 1, is_fused=True, has_alibi=True, activation="gelu_tanh"),
    "phi": Kind("layer", 3, 1, is_rotary=True, is_parallel=True, has_one_norm=True, activation="gelu_tanh"),
    "neox": Kind("layer", 3, 1, is_rotary=True, is_parallel=True, is_fused=True, activation="gelu_none"),
    "relu": Kind("rms", 3, 1, has_norms_after=True, activation="relu"),
}
"""Named after what they resemble."""


def split_of(kind: Kind) -> Split:
    heads = kind.kv_heads, kind.groups, HEAD_DIM

    def separate(parts):
        q, k, v = parts
        return q.unflatten(1, heads), k.unflatten(1, heads[::2]), v.unflatten(1, heads[::2])

    def fused(parts):
        whole = parts[0].unflatten(1, (kind.kv_heads, kind.groups + 2, HEAD_DIM))
        return whole[:, :, : kind.groups], whole[:, :, -2], whole[:, :, -1]

    return fused if kind.is_fused else separate


def alibi(length: int, device: torch.device) -> torch.Tensor:
    return 0.5 ** torch.arange(1, 4)[:, None] * torch.arange(length)


def block_of(kind: Kind, dice: Dice, *, is_adapted: bool = True) -> Block:
    q, kv = kind.kv_heads * kind.groups * HEAD_DIM, kind.kv_heads * HEAD_DIM
    widths = (q + 2 * kv,) if kind.is_fused else (q, kv, kv)
    return Block(
        before_attention=dice.norm(kind.norm),
        attention=Attention(
            projections=tuple(dice.linear(HIDDEN, width, is_adapted=is_adapted) for width in widths),
            split=split_of(kind),
            shape=Shape(
                kind.kv_heads,
                kind.groups,
                HEAD_DIM,
                HEAD_DIM**-0.5,
                softcap=kind.softcap,
                window=kind.window,
                alibi=alibi if kind.has_alibi else None,
            ),
            out=dice.linear(q, HIDDEN, is_adapted=is_adapted),
            is_rotary=kind.is_rotary,
        ),
        after_attention=dice.norm(kind.norm) if kind.has_norms_after else None,
        before_mlp=None if kind.has_one_norm else dice.norm(kind.norm),
        mlp=Mlp(
            gate=dice.linear(HIDDEN, INNER, is_adapted=is_adapted) if kind.has_gate else None,
            up=dice.linear(HIDDEN, INNER, is_adapted=is_adapted, bias=not kind.has_gate),
            down=dice.linear(INNER, HIDDEN, is_adapted=is_adapted),
            activation=ACTIVATION[kind.activation],
        ),
        after_mlp=dice.norm(kind.norm) if kind.has_norms_after else None,
        is_parallel=kind.is_parallel,
    )


def cross_of(dice: Dice, *, is_adapted: bool) -> CrossAttention:
    """Attention to an encoder, by as many heads as the kind `relu` has."""
    width = 3 * HEAD_DIM
    query, key, value = (dice.linear(HIDDEN, width, is_adapted=is_adapted, bias=False) for _ in range(3))
    shape = Shape(3, 1, HEAD_DIM, 0.7)
    return CrossAttention(dice.norm("rms"), query, key, value, shape, dice.linear(width, HIDDEN, is_adapted=is_adapted))


def relative(is_after: bool, distance: torch.Tensor) -> torch.Tensor:
    """A bias of the scores of three heads by how far keys lie after queries."""
    far = distance if is_after else distance.clamp(max=0)
    return torch.stack([torch.sin(far / (head + 2.0)) for head in range(3)])


def pair_of(*, encoder: tuple[bool, ...] = (True, True), decoder: tuple[bool, ...] = (True, True)) -> Body:
    """An encoder-decoder like T5's; which of the blocks of each side have adapters."""
    dice = Dice(torch.Generator().manual_seed(4))
    tokens, kind = dice.draw(VOCABULARY, HIDDEN), Kind("rms", 3, 1, has_gate=True, activation="gelu_tanh")
    head = Head(dice.draw(VOCABULARY, HIDDEN, scale=0.4))

    def blocks(adapted: tuple[bool, ...], *, is_decoder: bool) -> tuple[Block, ...]:
        made = [block_of(kind, dice, is_adapted=is_adapted) for is_adapted in adapted]
        bias = functools.partial(relative, not is_decoder)
        shaped = [
            replace(b, attention=replace(b.attention, shape=replace(b.attention.shape, relative=bias))) for b in made
        ]
        if not is_decoder:
            return tuple(shaped)
        crosses = [cross_of(dice, is_adapted=is_adapted) for is_adapted in adapted]
        return tuple(replace(block, cross=cross) for block, cross in zip(shaped, crosses, strict=True))

    def embed(input_ids: torch.Tensor, *, position_ids: torch.Tensor) -> torch.Tensor:
        return tokens[input_ids]

    return Body(
        embed=embed,
        rotary=None,
        blocks=blocks(decoder, is_decoder=True),
        norm=dice.norm("rms"),
        head=head,
        logits=lambda hidden: F.linear(hidden, head.weight),
        encoder=Encoder(embed, blocks(encoder, is_decoder=False), dice.norm("rms")),
    )


def rotary(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    angles = position_ids[..., None] * 0.1 ** torch.arange(HEAD_DIM // 4)
    whole = torch.cat((angles, angles), dim=-1)
    return whole.cos().to(x), whole.sin().to(x)


def body_of(name: str, *, adapted: tuple[bool, ...] = (True, True, True), head_bias: bool = False) -> Body:
    """A body of as many blocks as `adapted` is long, which says which of them have adapters."""
    kind, dice = KINDS[name], Dice(torch.Generator().manual_seed(1))
    tokens, places = dice.draw(VOCABULARY, HIDDEN), dice.draw(200, HIDDEN, scale=0.3)
    head = Head(dice.draw(VOCABULARY, HIDDEN, scale=0.4), dice.draw(VOCABULARY) if head_bias else None, kind.softcap)

    def logits(hidden):
        found = F.linear(hidden, head.weight, head.bias)
        return found if head.softcap is None else head.softcap * torch.tanh(found / head.softcap)

    return Body(
        embed=lambda input_ids, *, position_ids: tokens[input_ids] + places[position_ids],
        rotary=rotary if kind.is_rotary else None,
        blocks=tuple(block_of(kind, dice, is_adapted=is_adapted) for is_adapted in adapted),
        norm=dice.norm(kind.norm),
        head=head,
        logits=logits,
    )


def with_trained_embedding(body: Body) -> tuple[Body, nn.Parameter]:
    """The body with something trained added to its embedding."""
    extra = nn.Parameter(0.1 * torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(7)))
    embed = body.embed
    changed = lambda input_ids, *, position_ids: embed(input_ids, position_ids=position_ids) + extra[input_ids]  # noqa: E731
    return replace(body, embed=changed), extra


def reference_block(block: Block, x: torch.Tensor, turns, *, encoded=None, is_causal: bool = True) -> torch.Tensor:
    """One row [T,H] through a block."""
    attention, mlp = block.attention, block.mlp
    normal = reference_norm(x, block.before_attention)
    q, k, v = attention.split(tuple(reference_linear(normal, layer) for layer in attention.projections))
    if attention.is_rotary:
        q, k = (reference_rotate(part, turns) for part in (q, k))
    documents = (Document(0, x.shape[0]),)
    mixed = reference_attend((q, k, v), shape=attention.shape, documents=documents, is_causal=is_causal)
    added = reference_linear(mixed.flatten(1), attention.out)
    middle = x + (added if block.after_attention is None else reference_norm(added, block.after_attention))
    if block.cross is not None:
        middle = middle + reference_cross(block.cross, middle, encoded)
    source = x if block.is_parallel else middle
    normal = reference_norm(source, block.before_mlp or block.before_attention)
    inner = reference_linear(normal, mlp.up)
    gate = inner if mlp.gate is None else reference_linear(normal, mlp.gate)
    active = mlp.activation.reference(gate)
    lowered = reference_linear(active if mlp.gate is None else active * inner, mlp.down)
    return middle + (lowered if block.after_mlp is None else reference_norm(lowered, block.after_mlp))


def reference_cross(cross: CrossAttention, x: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """What attention to an encoder's [S,H] adds to one row."""
    q = reference_linear(reference_norm(x, cross.norm), cross.query).unflatten(1, (3, 1, HEAD_DIM))
    k, v = (reference_linear(encoded, layer).unflatten(1, (3, HEAD_DIM)) for layer in (cross.key, cross.value))
    documents = (Document(0, x.shape[0], ((0, encoded.shape[0]),), is_across=True),)
    mixed = reference_attend((q, k, v), shape=cross.shape, documents=documents, is_causal=False)
    return reference_linear(mixed.flatten(1), cross.out)


def reference_pair_loss(body: Body, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Sum over the pairs, each alone, of -log p of every token of the target."""
    total = torch.zeros(())
    for source, target in pairs:
        encoded = body.encoder.embed(source[None], position_ids=None)[0]
        for block in body.encoder.blocks:
            encoded = reference_block(block, encoded, None, is_causal=False)
        encoded = reference_norm(encoded, body.encoder.norm)
        x = body.embed(_shifted(target)[None], position_ids=None)[0]
        for block in body.blocks:
            x = reference_block(block, x, None, encoded=encoded)
        total = total + F.cross_entropy(body.logits(reference_norm(x, body.norm)), target, reduction="sum")
    return total


def _shifted(target: torch.Tensor) -> torch.Tensor:
    return torch.cat([target.new_zeros(1), target[:-1]])


def pairs_of(
    sources: tuple[int, ...] = (13, 34, 9), targets: tuple[int, ...] = (5, 8, 33)
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Sources with their targets."""
    dice = torch.Generator().manual_seed(5)
    draw = lambda count: torch.randint(0, VOCABULARY, (count,), generator=dice)  # noqa: E731
    return [(draw(source), draw(target)) for source, target in zip(sources, targets, strict=True)]


def packed_pairs(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Packed:
    """Both sides one after the other."""

    def side(rows: list[torch.Tensor]) -> Side:
        spans = itertools.pairwise(itertools.accumulate((len(row) for row in rows), initial=0))
        places = torch.cat([torch.arange(len(row)) for row in rows])
        return Side(torch.cat(rows), places, tuple(Document(*span) for span in spans))

    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    written = side([_shifted(target) for target in targets])
    places = torch.arange(len(written.input_ids))
    return Packed(written, places, torch.cat(targets), encoder=side(sources))


def reference_loss(body: Body, rows: list[torch.Tensor]) -> torch.Tensor:
    """Sum over the rows, each alone, of -log p of every token but the first."""
    total = torch.zeros(())
    for row in rows:
        places = torch.arange(len(row))
        x = body.embed(row[None], position_ids=places[None])[0]
        turns = None if body.rotary is None else tuple(turn[0] for turn in body.rotary(x[None], places[None]))
        for block in body.blocks:
            x = reference_block(block, x, turns)
        logits = body.logits(reference_norm(x, body.norm))
        total = total + F.cross_entropy(logits[:-1], row[1:], reduction="sum")
    return total


SHARED = 7


def rows_of(lengths: tuple[int, ...] = (13, 34, 9)) -> list[torch.Tensor]:
    """Rows that begin with the same SHARED tokens."""
    dice = torch.Generator().manual_seed(3)
    begin = torch.randint(0, VOCABULARY, (SHARED,), generator=dice)
    return [torch.cat([begin, torch.randint(0, VOCABULARY, (n - SHARED,), generator=dice)]) for n in lengths]


def packed(rows: list[torch.Tensor], *, is_shared: bool) -> Packed:
    """Rows that predict every token but the first, one after the other or with what they begin with once."""
    begin = SHARED if is_shared else 0
    documents = [Document(0, begin)] if is_shared else []
    sources, at = [], begin
    for row in rows:
        end = at + len(row) - begin
        documents.append(Document(at, end, ((0, begin),) if is_shared else ()))
        sources.append(torch.cat([torch.arange(begin), torch.arange(at, end)])[:-1])
        at = end
    source, target = torch.cat(sources), torch.cat([row[1:] for row in rows])
    order = torch.argsort(source, stable=True)
    head = [rows[0][:begin]] if is_shared else []
    places = torch.cat([torch.arange(begin), *(torch.arange(begin, len(row)) for row in rows)])
    once, which = torch.unique_consecutive(source[order], return_inverse=True)
    return Packed(
        side=Side(torch.cat([*head, *(row[begin:] for row in rows)]), places, tuple(documents)),
        sources=once,
        targets=target[order],
        which=which if is_shared else None,
    )
