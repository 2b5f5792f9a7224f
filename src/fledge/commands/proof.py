"""Proves the engine on a model before a training: loss and gradients of a few rows, beside the library's own."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fledge.commands.rounding import off_by_rounding
from fledge.engine.packed import Packed, Side
from fledge.engine.run import Engine
from fledge.ops.plan import Document
from fledge.ops.wide_linear import wide_linears


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the rows that the proof computes."""

    shared: int
    """All begin alike, and"""
    own: tuple[int, ...]
    """each goes on by itself."""
    read: tuple[int, ...]
    """Of the sources and targets of an encoder-decoder."""
    written: tuple[int, ...]


FEW = Lengths(6, (5, 9, 3), (7, 4, 11), (3, 6, 4))
TILES = Lengths(70, (5, 150, 3), (7, 150, 11), (3, 140, 4))
"""More than two tiles of a fused kernel."""
FAR = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""How far, relative to their size, gradients may lie apart. On TinyLlama's shape bfloat16 alone takes the library's and
the engine's each up to 0.04 from float32's."""
MOST = 0.5
"""As FAR, on a base where rounding alone moves the library's gradients as far. Beyond it nothing would be proven."""
TRIES = 3
"""Sets of rows that are tried until one agrees: rounding leads some sets astray, a mistake leads each of them."""


def disagreement(
    engine: Engine,
    model: Any,
    *,
    takes_positions: bool,
    lengths: Lengths = FEW,
    has_trunk: bool = True,
    text: torch.Tensor | None = None,
) -> str | None:
    """How the engine's loss or gradients differ from the library's on a few rows of this model; None where they agree.

    The rows are made of `text` [tokens], ids that the model will see in training, and of drawn ids where these are too
    few. On text a trained base in bfloat16 is calm; on drawn ids rounding alone moves its gradients by up to a quarter.
    The rows share their beginning, so sharing is proven too; with `has_trunk` they are computed once more, each a
    micro-batch on one trunk, from which nothing is predicted. The library computes each row alone. Costs a forward and
    a backward pass over a few tokens each way; up to three times that where the first rows disagree.
    """

    def attempt(number: int) -> str | None:
        begin, *rest = _draw(model, (lengths.shared, *lengths.own), text, number=number)
        return _row_disagreement(
            engine, model, begin, rest, takes_positions=takes_positions, lengths=lengths, has_trunk=has_trunk
        )

    return _decided(attempt)


def _decided(attempt: Callable[[int], str | None]) -> str | None:
    """What the first attempt says; None where any of them agrees."""
    why = attempt(0)
    if why is None or any(attempt(number) is None for number in range(1, TRIES)):
        return None
    return why


def _row_disagreement(
    engine: Engine,
    model: Any,
    begin: torch.Tensor,
    rest: Sequence[torch.Tensor],
    *,
    takes_positions: bool,
    lengths: Lengths,
    has_trunk: bool,
) -> str | None:
    rows = [torch.cat([begin, own]) for own in rest]

    def library_loss(number: int) -> torch.Tensor:
        row = rows[number]
        inputs = {"position_ids": torch.arange(len(row), device=row.device)[None]} if takes_positions else {}
        logits = model(input_ids=row[None], use_cache=False, **inputs).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits.float(), row[1:], reduction="none")
        return losses.sum() + (losses[lengths.shared :].sum() if has_trunk else 0)

    on_trunk = _on_trunk(begin, rest) if has_trunk else []
    return _difference(engine, [_shared(rows, lengths), *on_trunk], library_loss, model, count=len(rows))


def pair_disagreement(
    engine: Engine, model: Any, *, lengths: Lengths = FEW, text: torch.Tensor | None = None
) -> str | None:
    """The same for an encoder-decoder: as many sources, each with its target."""

    def attempt(number: int) -> str | None:
        drawn = _draw(model, (*lengths.read, *lengths.written), text, number=number)
        count = len(lengths.read)
        return _pairs_disagreement(engine, model, drawn[:count], drawn[count:], lengths=lengths)

    return _decided(attempt)


def _pairs_disagreement(
    engine: Engine, model: Any, sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], *, lengths: Lengths
) -> str | None:
    inputs = [torch.cat([target.new_zeros(1), target[:-1]]) for target in targets]

    def library_loss(number: int) -> torch.Tensor:
        source, target = sources[number], targets[number]
        logits = model(input_ids=source[None], decoder_input_ids=inputs[number][None], use_cache=False).logits[0]
        return torch.nn.functional.cross_entropy(logits.float(), target, reduction="sum")

    places = torch.arange(sum(lengths.written), device=targets[0].device)
    batch = Packed(_side(inputs), places, torch.cat(targets), encoder=_side(sources))
    return _difference(engine, [batch], library_loss, model, count=len(sources))


def _side(rows: Sequence[torch.Tensor]) -> Side:
    """Rows one after the other, each a document."""
    spans = itertools.pairwise(itertools.accumulate((len(row) for row in rows), initial=0))
    positions = torch.cat([torch.arange(len(row), device=row.device) for row in rows])
    return Side(torch.cat(list(rows)), positions, tuple(Document(*span) for span in spans))


def _on_trunk(begin: torch.Tensor, rest: Sequence[torch.Tensor]) -> list[Packed]:
    """The rows as micro-batches on one trunk; of each its own tokens but the first are predicted."""
    shared, batches = len(begin), []
    for number, own in enumerate(rest):
        row = torch.cat([begin, own])
        end = len(row)
        documents = (Document(0, shared), Document(shared, end, ((0, shared),)))
        batches.append(
            Packed(
                side=Side(row, torch.arange(end, device=row.device), documents),
                sources=torch.arange(shared, end - 1, device=row.device),
                targets=own[1:],
                trunk=shared,
                opens=number == 0,
                closes=number == len(rest) - 1,
            )
        )
    return batches


Gradients = list[torch.Tensor | None]
"""Of each trained tensor; None of those that take no part, as in a block that is left out."""


def _difference(
    engine: Engine,
    batches: Sequence[Packed],
    library_loss: Callable[[int], torch.Tensor],
    model: Any,
    *,
    count: int,
) -> str | None:
    """How the engine's loss and gradients differ from the sums over the library's of rows 0 to count.

    The library's gradients are taken off the engine's row by row, so that two of each are held and no more. On a base
    where rounding alone moves the library's by more than FAR, they may lie as far apart as it does.
    """
    found_loss, apart = _by_engine(engine, batches, model)
    size, wanted_loss = _norm(apart), 0.0
    for number in range(count):
        wanted, parts = _by_library(library_loss, model, row=number)
        wanted_loss += wanted
        _add(apart, parts, times=-1)
    far, loss_apart = FAR[model.dtype], abs(found_loss - wanted_loss) / max(abs(wanted_loss), 1.0)
    if not math.isfinite(wanted_loss):
        return f"the library's own loss is {wanted_loss} on this base"
    if not loss_apart <= far:
        return f"its loss differs from the library's by {loss_apart:.1%}"
    distance = _norm(apart)
    if distance <= far * size:
        return None
    if distance <= MOST * size and distance <= _moved_by_rounding(library_loss, model, count=count):
        return None
    return f"its gradients differ from the library's by {distance / max(size, 1e-30):.1%}"


def _by_engine(engine: Engine, batches: Sequence[Packed], model: Any) -> tuple[float, Gradients]:
    """The engine's loss over the batches, and its gradients."""
    trained = _trained(model)
    total, sums = 0.0, _nothing(model)
    for batch in batches:
        loss = engine.loss(batch)
        total += loss.item()
        _add(sums, _gradients(loss, trained))
    return total, sums


def _by_library(library_loss: Callable[[int], torch.Tensor], model: Any, *, row: int) -> tuple[float, Gradients]:
    """The library's loss of one row, and its gradients."""
    with wide_linears(model.dtype, model.device.type):
        loss = library_loss(row)
    return loss.item(), _gradients(loss, _trained(model))


def _trained(model: Any) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def _nothing(model: Any) -> Gradients:
    return [None] * len(_trained(model))


def _gradients(loss: torch.Tensor, trained: Sequence[torch.Tensor]) -> Gradients:
    return list(torch.autograd.grad(loss, trained, allow_unused=True))


def _add(sums: Gradients, parts: Gradients, *, times: int = 1) -> None:
    """Add the parts to the sums in float32, and give them up one by one."""
    while parts:
        part, place = parts.pop(), len(parts)
        before = sums[place]
        if part is not None and before is None:
            sums[place] = part.float() * times
        elif part is not None and before is not None:
            before.add_(part, alpha=times)


def _moved_by_rounding(library_loss: Callable[[int], torch.Tensor], model: Any, *, count: int) -> float:
    """How far the library's own gradients move when what each layer gives is off by the number format's precision."""
    moved = _nothing(model)
    for number in range(count):
        _add(moved, _by_library(library_loss, model, row=number)[1])
        with off_by_rounding(model, seed=number):
            _add(moved, _by_library(library_loss, model, row=number)[1], times=-1)
    return _norm(moved)


def _norm(tensors: Gradients) -> float:
    norms = [tensor.float().norm() for tensor in tensors if tensor is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


def _draw(model: Any, lengths: Sequence[int], text: torch.Tensor | None, *, number: int) -> list[torch.Tensor]:
    """Rows of token ids, as many as `lengths` say: part `number` of `text`, then drawn ones; the same each time."""
    weight, total = model.get_base_model().get_input_embeddings().weight, sum(lengths)
    generator = torch.Generator().manual_seed(total + number)
    ids = torch.randint(0, weight.shape[0], (total,), generator=generator)
    if text is not None:
        own = text[number * total : (number + 1) * total]
        ids[: len(own)] = own
    return list(ids.to(weight.device).split(list(lengths)))


def _shared(rows: Sequence[torch.Tensor], lengths: Lengths) -> Packed:
    """The rows with their beginning once; every token but a row's first is predicted."""
    shared = lengths.shared
    ends = list(itertools.accumulate(lengths.own, initial=shared))
    documents = (Document(0, shared), *(Document(a, b, ((0, shared),)) for a, b in itertools.pairwise(ends)))
    device = rows[0].device
    places = [torch.cat([torch.arange(shared), torch.arange(a, b)]) for a, b in itertools.pairwise(ends)]
    sources = torch.cat([place[:-1] for place in places])
    targets = torch.cat([row[1:] for row in rows])
    order = torch.argsort(sources, stable=True)
    continued = [torch.arange(shared, shared + count) for count in lengths.own]
    side = Side(
        input_ids=torch.cat([rows[0][:shared], *(row[shared:] for row in rows)]),
        position_ids=torch.cat([torch.arange(shared), *continued]).to(device),
        documents=documents,
    )
    once, which = torch.unique_consecutive(sources[order], return_inverse=True)
    return Packed(side=side, sources=once.to(device), targets=targets[order.to(device)], which=which.to(device))
