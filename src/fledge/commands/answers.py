"""Answers before and after a training, written once each, remembered in the run folder and compared."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fledge.commands.workshop import Workshop
from fledge.evaluation.answers import Prediction, answer_rows
from fledge.evaluation.generate import Sampling
from fledge.evaluation.suite import Marks, Wanted, intervals_json, mark
from fledge.events import Event, Notice
from fledge.rundir import write_json, write_text

Tell = Callable[[Event], None]


def answer_before(shop: Workshop, tell: Tell) -> None:
    """Write down the answers to the validation rows before any step, when the adapter adds nothing: the base's own.

    By the first rank, where the recipe asks for exact match or ROUGE and they are not written down yet.
    """
    remembered = shop.run.evaluation / "answers_before.json"
    if _wanted(shop).needs_answers and shop.mesh.rank == 0 and not remembered.exists():
        write_json(remembered, [asdict(one) for one in _answers(shop, "base", tell)])
    shop.mesh.barrier()


def marks_after(shop: Workshop, tell: Tell) -> dict[str, Any]:
    """The summary's entries on the answers before and after training; nothing where the recipe does not ask for any.

    The first rank writes predictions.jsonl, base beside tuned, and the entries, once; every rank returns them.
    """
    folder, wanted = shop.run.evaluation, _wanted(shop)
    if not wanted.needs_answers:
        return {}
    remembered = folder / "marks.json"
    if shop.mesh.rank == 0 and not remembered.exists():
        base = [Prediction(**one) for one in json.loads((folder / "answers_before.json").read_text(encoding="utf-8"))]
        assert shop.data.validation is not None
        marks = mark(base, _answers(shop, "tuned model", tell), wanted=wanted, where=shop.data.validation.where)
        write_text(folder / "predictions.jsonl", marks.predictions)
        write_json(remembered, _entries(marks))
    shop.mesh.barrier()
    return dict(json.loads(remembered.read_text(encoding="utf-8")))


def _wanted(shop: Workshop) -> Wanted:
    settings = shop.recipe.evaluate
    if shop.data.validation is None:
        return Wanted()
    return Wanted(exact_match=settings.exact_match, rouge=settings.rouge)


def _answers(shop: Workshop, who: str, tell: Tell) -> tuple[Prediction, ...]:
    settings, store = shop.recipe.evaluate, shop.data.validation
    assert store is not None
    count = len(store) if settings.max_rows is None else min(settings.max_rows, len(store))
    tell(Notice(text=f"the {who} answers {count:,} validation rows"))
    return answer_rows(
        shop.adapted.model,
        shop.tokenizer,
        store=store,
        sampling=Sampling(settings.max_new_tokens, num_beams=settings.num_beams),
        max_rows=settings.max_rows,
        max_positions=shop.facts.max_positions,
    )


def _entries(marks: Marks) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    if marks.exact_match is not None:
        entries |= {"exact_match_before": marks.exact_match[0], "exact_match_after": marks.exact_match[1]}
    if marks.rouge is not None:
        entries |= {"rouge_before": marks.rouge.base.means, "rouge_after": marks.rouge.tuned.means}
        between = intervals_json(marks.rouge)
        names = {"before": between["base"], "after": between["tuned"], "difference": between["difference"]}
        entries["rouge_intervals"] = names
    return entries
