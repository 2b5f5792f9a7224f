"""Exact answers before and after a training, counted once each and remembered in the run folder."""

import json
from typing import Literal

from fledge.commands.workshop import Workshop
from fledge.evaluation.exact_match import exact_match
from fledge.rundir import write_json

Moment = Literal["before", "after"]


def count_exact(shop: Workshop, moment: Moment) -> float | None:
    """Share of validation rows whose greedy answer is exactly the reference; None where the recipe does not ask.

    Counted by the first rank. `before` is counted before any step, when the adapter adds nothing: the base's own share.
    """
    store = shop.data.validation
    if not shop.recipe.evaluate.exact_match or store is None:
        return None
    remembered = shop.run.evaluation / f"exact_match_{moment}.json"
    if shop.mesh.rank == 0 and not remembered.exists():
        settings = shop.recipe.evaluate
        model = shop.adapted.model
        result = exact_match(
            model,
            shop.tokenizer,
            store=store,
            max_new_tokens=settings.max_new_tokens,
            max_rows=settings.max_rows,
            max_positions=shop.facts.max_positions,
        )
        write_json(remembered, {"exact_match": result.share, "rows": result.rows})
    shop.mesh.barrier()
    return float(json.loads(remembered.read_text())["exact_match"])
