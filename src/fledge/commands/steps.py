"""How many steps a training has, which rows each takes, and what cannot be within them."""

from collections.abc import Callable

from fledge.config.recipe import Recipe
from fledge.data.pipeline import PreparedData
from fledge.data.sampler import RowOrder
from fledge.errors import FledgeError
from fledge.events import Event, Notice
from fledge.training.loop import Plan
from fledge.training.schedule import learning_rate_of


def row_order(recipe: Recipe, data: PreparedData) -> RowOrder:
    """Which rows each step takes."""
    train, sizes = recipe.train, data.train.source_sizes
    is_shuffled = recipe.data.shuffle
    return RowOrder(sizes, data.weights, seed=train.seed, rows_per_step=train.global_batch_size, shuffle=is_shuffled)


def make_plan(recipe: Recipe, order: RowOrder) -> Plan:
    """When things happen."""
    train = recipe.train
    total = order.total_steps(train.num_epochs, train.max_steps)
    return Plan(
        total_steps=total,
        learning_rate=learning_rate_of(train, total),
        max_grad_norm=train.max_grad_norm,
        validate_every=recipe.evaluate.every_steps,
        save_every=train.save_every_steps,
        keep_checkpoints=train.keep_checkpoints,
        may_rest=recipe.lora.target_modules == "all-linear" or recipe.lora.init_from is not None,
        patience=recipe.evaluate.early_stopping_patience,
    )


def check_steps(recipe: Recipe, data: PreparedData, *, tell: Callable[[Event], None]) -> None:
    """Hold what the recipe asks for against the number of steps, which is known once the rows are.

    Raises FledgeError where warm-up is longer than the training. An end that validation can never ask for is told.
    """
    train, evaluation = recipe.train, recipe.evaluate
    total = row_order(recipe, data).total_steps(train.num_epochs, train.max_steps)
    if train.warmup_steps is not None and train.warmup_steps > total:
        raise FledgeError(
            f"{train.warmup_steps:,} steps of warm-up in a training of {total:,}: the learning rate would never peak",
            where="train.warmup_steps",
            cure=f"write train.warmup_steps: {total // 10}, or more epochs (train.num_epochs)",
        )
    patience, every = evaluation.early_stopping_patience, evaluation.every_steps
    num_validations = (total - 1) // every
    if patience is not None and num_validations <= patience:
        text = (
            f"this training of {total:,} steps cannot stop early: it is validated {num_validations:,} times before its "
            f"last step (evaluate.every_steps: {every:,}), and evaluate.early_stopping_patience is {patience:,}; "
            "adapter/ will be the best one"
        )
        tell(Notice(text=text))
