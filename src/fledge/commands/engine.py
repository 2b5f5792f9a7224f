"""The engine of a model, where every part of it can be read, proven on it against the library's own modules."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from fledge.adapters.fast import as_linear
from fledge.config.recipe import Recipe
from fledge.engine.keeping import keeps_within
from fledge.engine.run import Engine, Packed
from fledge.errors import ModelError, NotReadable
from fledge.facts import ModelFacts
from fledge.models.body import read_body
from fledge.ops.attention import Document
from fledge.ops.buffers import Buffers
from fledge.ops.grain import grain_of, rounded

SHARED, OWN = 6, (5, 9, 3)
"""Tokens of the rows that the proof computes: all begin alike, and each goes on by itself."""
FAR = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""How far, relative to their size, gradients may lie apart. On TinyLlama's shape bfloat16 alone takes the library's and
the engine's each up to 0.04 from float32's."""


def build_engine(
    model: Any, *, device: torch.device, rows: int, longest: int = 0, budget: float = float("inf")
) -> Engine:
    """The engine of an adapted model, with room from the start for micro-batches of `rows` positions, and for a single
    row of `longest`, which may be more.

    The saved activations of a micro-batch take at most `budget` bytes where that can be; a negative budget saves as
    little as can be. Raises NotReadable where a part of the model is none that the engine knows.
    """
    body = read_body(model.get_base_model(), as_linear)
    grain = grain_of(rows)
    room = rounded(max(rows, longest), grain) if rows else 0
    return Engine(body, Buffers(device, rows=room), keeps_within(body, budget), grain)


def can_be_fast(recipe: Recipe, model: Any, *, facts: ModelFacts, device: torch.device) -> str | None:
    """None where the engine computes what the library does on this model; else why it is not used.

    Raises ModelError where the recipe asks for the engine and it cannot be used.
    """
    why = _reason(recipe, model, facts=facts, device=device)
    if why is not None and recipe.train.engine == "fast":
        raise ModelError(f"the engine cannot run this model: {why}", where="train.engine", cure="use auto or plain")
    return why


def _reason(recipe: Recipe, model: Any, *, facts: ModelFacts, device: torch.device) -> str | None:
    train = recipe.train
    if train.engine == "plain":
        return "the recipe says plain"
    if not recipe.data.packing or recipe.model.attention != "auto":
        return "the recipe chooses how the library's own modules compute"
    try:
        engine = build_engine(model, device=device, rows=0)
    except NotReadable as error:
        return str(error)
    return disagreement(engine, model, takes_positions=facts.takes_positions)


def disagreement(engine: Engine, model: Any, *, takes_positions: bool) -> str | None:
    """How the engine's loss or gradients differ from the library's on a few rows of this model; None where they agree.

    The rows share their beginning, so sharing is proven too. The library computes each row alone. Costs a forward
    and a backward pass over a few tokens each way.
    """
    rows = _probe(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    loss = engine.loss(_shared(rows))
    found = torch.autograd.grad(loss, trained)
    wanted_loss, wanted = _by_library(model, rows, trained, takes_positions=takes_positions)
    far = FAR[model.dtype]
    apart = abs(loss.item() - wanted_loss) / max(abs(wanted_loss), 1.0)
    if not apart <= far:
        return f"its loss differs from the library's by {apart:.1%}"
    distance, size = (_norm(parts) for parts in ([a - b for a, b in zip(found, wanted, strict=True)], wanted))
    if not distance <= far * size:
        return f"its gradients differ from the library's by {distance / max(size, 1e-30):.1%}"
    return None


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return float(torch.stack([tensor.float().norm() for tensor in tensors]).norm())


def _probe(model: Any) -> list[torch.Tensor]:
    weight = model.get_base_model().get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    begin, *rest = (torch.randint(0, weight.shape[0], (n,), generator=generator) for n in (SHARED, *OWN))
    return [torch.cat([begin, own]).to(weight.device) for own in rest]


def _shared(rows: Sequence[torch.Tensor]) -> Packed:
    """The rows with their beginning once; every token but a row's first is predicted."""
    ends = list(itertools.accumulate(OWN, initial=SHARED))
    documents = (Document(0, SHARED), *(Document(a, b, ((0, SHARED),)) for a, b in itertools.pairwise(ends)))
    device = rows[0].device
    places = [torch.cat([torch.arange(SHARED), torch.arange(a, b)]) for a, b in itertools.pairwise(ends)]
    sources = torch.cat([place[:-1] for place in places])
    targets = torch.cat([row[1:] for row in rows])
    order = torch.argsort(sources, stable=True)
    return Packed(
        input_ids=torch.cat([rows[0][:SHARED], *(row[SHARED:] for row in rows)]),
        position_ids=torch.cat([torch.arange(SHARED), *(torch.arange(SHARED, SHARED + n) for n in OWN)]).to(device),
        documents=documents,
        sources=sources[order].to(device),
        targets=targets[order.to(device)],
        are_sources_unique=False,
    )


def _by_library(
    model: Any, rows: Sequence[torch.Tensor], trained: Sequence[torch.Tensor], *, takes_positions: bool
) -> tuple[float, list[torch.Tensor]]:
    """Sum of token losses and gradients, each row alone through the library's own modules."""
    total, gradients = 0.0, [torch.zeros_like(p) for p in trained]
    for row in rows:
        inputs = {"position_ids": torch.arange(len(row), device=row.device)[None]} if takes_positions else {}
        logits = model(input_ids=row[None], use_cache=False, **inputs).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits.float(), row[1:], reduction="sum")
        total += loss.item()
        for sum_, part in zip(gradients, torch.autograd.grad(loss, trained), strict=True):
            sum_.add_(part)
    return total, gradients
