"""The rows that an evaluation measures: those of the training, as they were, or others that the recipe names."""

from dataclasses import dataclass
from typing import Literal

from fledge.commands.gone_rows import check_rows
from fledge.commands.open_run import OpenRun
from fledge.commands.progress import OnPrepare, ignore_progress
from fledge.commands.results import digest_of_training
from fledge.config.data import SourceConfig
from fledge.config.recipe import Recipe, sources
from fledge.data.pipeline import prepare_sources, prepare_training
from fledge.data.store import TokenStore
from fledge.errors import RunError

Split = Literal["validation", "test", "train"]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that can be measured."""

    store: TokenStore
    source: tuple[SourceConfig, ...]
    digest: str
    """Tells them from any others."""


def check_has_rows(opened: OpenRun) -> None:
    """Raise RunError for a plain adapter without a recipe: there are no rows to measure it on."""
    if opened.plain is not None and opened.plain.recipe is None:
        cure = "give the recipe whose rows are to be measured: --recipe RECIPE"
        raise RunError("an adapter's folder has no rows", where=str(opened.adapter), cure=cure)


def rows_of(opened: OpenRun, on: Split, *, on_prepare: OnPrepare) -> Rows:
    """The rows of a part of the data.

    Raises RunError where the run has none, or where they are not those of the training any more, DataError where they
    cannot be read.
    """
    recipe = opened.recipe
    if on == "test":
        return rows_of_test(opened, on_prepare)
    if on == "validation" and recipe.data.validation is None:
        cure = f"use --on {'train' if recipe.data.test is None else 'test'}"
        raise RunError(f"{_whose(opened)} recipe has no data.validation", where=str(opened.recipe_path), cure=cure)
    check_rows(opened, "train", "validation")
    data = prepare_training(recipe.data, opened.tokenizer, seed=recipe.train.seed, progress=on_prepare)
    trained_on = opened.trained_hash("data")
    if trained_on is not None and trained_on != data.digest:
        # a row more in the training data, and another part of them is held out: rows that were trained on
        what = "the training and validation rows are not those of the training any more"
        cure = (
            f"put back the files as they were, or name new rows as data.test in {opened.run.recipe} and use --on test"
        )
        raise RunError(f"data changed since this run began: {what}", where=str(opened.run.root), cure=cure)
    store = data.train if on == "train" else data.validation
    assert store is not None, "asked before"
    return Rows(store, source_of(recipe, on), digest_of_training(data.digest, on))


def rows_of_test(opened: OpenRun, on_prepare: OnPrepare = ignore_progress) -> Rows:
    """The rows of data.test as they are now. Raises RunError where there is none, DataError where it cannot be read."""
    recipe = opened.recipe
    check_rows(opened, "test")
    if recipe.data.test is None:
        cure = f"use --on {'train' if recipe.data.validation is None else 'validation'}"
        raise RunError(f"{_whose(opened)} recipe has no data.test", where=str(opened.recipe_path), cure=cure)
    chosen = sources(recipe.data.test)
    split = prepare_sources(chosen, recipe.data, tokenizer=opened.tokenizer, progress=on_prepare)
    return Rows(split.store, chosen, split.digest)


def source_of(recipe: Recipe, on: Split) -> tuple[SourceConfig, ...]:
    """Where rows come from: for validation rows that are held out, from where the training rows do."""
    return sources(getattr(recipe.data, on)) or (() if on == "test" else sources(recipe.data.train))


def _whose(opened: OpenRun) -> str:
    return "this run's" if opened.plain is None else "this"
