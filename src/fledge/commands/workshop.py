"""The rooms of a training, joined: base, adapter, data and mesh made into the loop's parts."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fledge.adapters.attach import Adapted, attach
from fledge.adapters.dropout import KeyedDropout
from fledge.adapters.read import Start, file_digest
from fledge.adapters.save import save_adapter
from fledge.commands.engine import build_engine, kernels_of
from fledge.commands.library_loss import announce, plain_loss
from fledge.commands.moved import name_of_base
from fledge.commands.settle import longest_row
from fledge.commands.steps import make_plan, row_order
from fledge.config.recipe import Recipe
from fledge.data.batches import BatchSource, Shape
from fledge.data.pipeline import PreparedData
from fledge.data.rows import Batch
from fledge.data.sampler import RowOrder
from fledge.engine.trunk import has_trunk_on
from fledge.errors import ModelError
from fledge.evaluation.perplexity import mean_loss
from fledge.events import Event, Notice
from fledge.facts import ModelFacts
from fledge.models.checkpointing import checkpointed_blocks
from fledge.models.companions import save_companions
from fledge.models.compiling import compiled_blocks
from fledge.models.documents import documents_apart
from fledge.models.load import Base
from fledge.models.tokenizer import Tokenizer
from fledge.ops.grain import grain_of
from fledge.rundir import RunDir
from fledge.runtime.memory import available_bytes
from fledge.runtime.mesh import Mesh
from fledge.runtime.phases import Phases
from fledge.runtime.precision import TORCH_DTYPES, scaler_for
from fledge.training.checkpoint import Trained
from fledge.training.fast_loss import FastLoss
from fledge.training.loop import Parts, Plan, ValidationLoss
from fledge.training.loss import find_guilty, to_device
from fledge.training.optimizer import build_optimizer
from fledge.training.step import LossOf
from fledge.training.stop import StopRequest

MEMORY_SHARE = 0.6
"""Of the memory at hand, what activations may take before some are computed again."""
OPTIMIZER_BYTES = 12
"""What a trained weight will take besides itself: its gradient and two moments, which are not there yet."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Everything a training is made of, before the first step."""

    recipe: Recipe
    run: RunDir
    tokenizer: Tokenizer
    data: PreparedData
    facts: ModelFacts
    adapted: Adapted
    device: torch.device
    mesh: Mesh
    phases: Phases

    @property
    def num_trainable(self) -> int:
        return sum(p.numel() for p in self.adapted.model.parameters() if p.requires_grad)

    def save_adapter(self, folder: Path) -> str:
        """The adapter in peft's format with the tokenizer beside it; returns the sha256 of its weights file."""
        base = name_of_base(self.recipe, self.run)
        save_adapter(self.adapted, folder, base=base, revision=self.recipe.model.revision)
        save_companions(self.tokenizer, folder)
        return file_digest(folder)


def attach_adapter(recipe: Recipe, base: Base, *, tokenizer: Tokenizer, start: Start | None = None) -> Adapted:
    """An adapter on the base: a fresh one as the recipe describes it, or the one that training starts from.

    Raises ModelError where rows are too long for the base, and where that adapter does not fit it.
    """
    check_lengths(recipe, base.facts)
    seed, new_tokens = recipe.train.seed, tokenizer.new_tokens
    return attach(base.model, recipe.lora, facts=base.facts, seed=seed, new_tokens=new_tokens, start=start)


def check_lengths(recipe: Recipe, facts: ModelFacts) -> None:
    """Raise ModelError where rows may be longer than the base has positions for."""
    limit, sides = facts.max_positions, {"data.max_length": recipe.data.max_length}
    if facts.is_encoder_decoder:
        sides["data.max_target_length"] = recipe.data.max_target_length
    for where, asked in sides.items():
        if limit is not None and asked > limit:
            what = f"this base has positions for {limit} tokens"
            raise ModelError(what, where=where, cure=f"write {where}: {limit}, or less")


@contextlib.contextmanager
def at_work(shop: Workshop, tell: Callable[[Event], None], *, stop: StopRequest) -> Iterator[tuple[Parts, Plan]]:
    """The loop's parts and plan, with attention and activation checkpointing set up as the recipe says."""
    recipe, model = shop.recipe, shop.adapted.model
    with contextlib.ExitStack() as stack:
        stack.enter_context(kernels_of(recipe))
        if recipe.train.engine == "fast":
            loss_of: LossOf = _fast_loss(shop)
        else:
            is_packed = shape_of(recipe, shop.tokenizer).is_packed
            documents = stack.enter_context(documents_apart(model.get_base_model())) if is_packed else None
            is_checkpointing = recipe.train.gradient_checkpointing is True
            is_compiled = recipe.train.kernels == "compiled"
            if is_compiled:
                tell(Notice(text="each block is compiled as it is first computed, which takes a while"))
            stack.enter_context(compiled_blocks(model, is_on=is_compiled))
            stack.enter_context(checkpointed_blocks(model, is_on=is_checkpointing))
            loss_of = plain_loss(shop.facts, documents, keys=shop.adapted.dropout)
        _set_dropout_training(model)
        order = row_order(recipe, shop.data)
        plan = make_plan(recipe, order)
        yield _parts(shop, order, loss_of, tell, stop), plan


def shape_of(recipe: Recipe, tokenizer: Tokenizer) -> Shape:
    """How much is computed at once. The library's modules keep no encoder-decoder's packed rows apart: it is padded."""
    train = recipe.train
    limit_tokens = train.micro_batch_tokens if train.micro_batch_rows is None else None
    assert limit_tokens != "auto", "settled before"
    start, share = tokenizer.decoder_start_id, train.share_prefixes is True
    packing = recipe.data.packing is not False and (start is None or train.engine == "fast")
    grain = grain_of(limit_tokens) if limit_tokens is not None and train.engine == "fast" else 1
    has_trunk = share and has_trunk_on(recipe.model.placement)
    rows, pad_id = train.micro_batch_rows, tokenizer.pad_token_id
    return Shape(limit_tokens, rows, packing, pad_id, share, grain, start, has_trunk)


def room_of(recipe: Recipe) -> int:
    """Positions that a micro-batch can have at most; 0 where the recipe counts rows instead."""
    tokens = recipe.train.micro_batch_tokens if recipe.train.micro_batch_rows is None else 0
    assert tokens != "auto", "settled before"
    return tokens


def _fast_loss(shop: Workshop) -> FastLoss:
    """The loss that the engine computes, within the memory at hand."""
    train, keys, rows = shop.recipe.train, shop.adapted.dropout, room_of(shop.recipe)
    room = available_bytes(shop.device) - OPTIMIZER_BYTES * shop.num_trainable
    budgets = {True: -1.0, False: float("inf"), "auto": MEMORY_SHARE * max(0, room)}
    budget = budgets[train.gradient_checkpointing]

    longest = longest_row(shop.recipe, shop.facts)
    engine = build_engine(shop.adapted.model, device=shop.device, rows=rows, longest=longest, budget=budget)
    return FastLoss(functools.partial(announce, keys), engine)


def _parts(shop: Workshop, order: RowOrder, loss_of: LossOf, tell: Callable[[Event], None], stop: StopRequest) -> Parts:
    recipe, model, mesh, device = shop.recipe, shop.adapted.model, shop.mesh, shop.device
    shape = shape_of(recipe, shop.tokenizer)
    source = BatchSource(shop.data.train, order, shape, mesh.rank, mesh.world_size)

    def batches_of(step: int) -> list[Batch]:
        shop.adapted.dropout.step = step
        return [to_device(batch, device) for batch in source.micro_batches(step)]

    def blame(batches: Sequence[Batch]) -> list[str]:
        single = lambda row: to_device(source.single(row), device)  # noqa: E731
        return find_guilty(model, batches, loss_of=loss_of, single=single, where=shop.data.train.where)

    ratio = recipe.lora.loraplus_lr_ratio
    trained = Trained(
        model=model,
        optimizer=build_optimizer(model.named_parameters(), recipe.train, b_lr_ratio=ratio),
        scaler=scaler_for(TORCH_DTYPES[recipe.model.dtype]),
        save_adapter=shop.save_adapter,
    )
    return Parts(
        trained=trained,
        batches_of=batches_of,
        rows_in=source.rows_in,
        loss_of=loss_of,
        blame=blame,
        validate=_validator(shop, order, shape, loss_of),
        mesh=mesh,
        run=shop.run,
        tell=tell,
        stop=stop,
        during=shop.phases.during,
    )


def _validator(shop: Workshop, order: RowOrder, shape: Shape, loss_of: LossOf) -> Callable[[], ValidationLoss] | None:
    store = shop.data.validation
    if store is None:
        return None
    source = BatchSource(store, order, shape, shop.mesh.rank, shop.mesh.world_size)

    def validate() -> ValidationLoss:
        batches = (to_device(batch, shop.device) for batch in source.everything(shop.recipe.evaluate.max_rows))
        return ValidationLoss(*mean_loss(shop.adapted.model, batches, loss_of=loss_of, mesh=shop.mesh))

    return validate


def _set_dropout_training(model: nn.Module) -> None:
    """The frozen base stays in eval mode, so that its own dropout adds no noise; the adapter's dropout trains."""
    model.eval()
    for module in model.modules():
        if isinstance(module, KeyedDropout):
            module.train()
