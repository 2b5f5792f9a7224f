"""Answers before and after a training, written once each, remembered in the run folder and compared."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fledge.commands.workshop import Workshop
from fledge.evaluation.answers import Prediction, answer_rows
from fledge.evaluation.generate import Sampling
from fledge.evaluation.suite import Marks, Wanted, intervals_json, mark, means_of_several
from fledge.events import Event, Notice
from fledge.rundir import write_json, write_text

Tell = Callable[[Event], None]


def answer_before(shop: Workshop, tell: Tell) -> None:
    """Write down the answers of the base to the validation rows before any step, when a fresh adapter adds nothing; an
    adapter that training starts from is switched off for it.

    By the first rank, where the recipe asks for exact match or ROUGE and they are not written down yet.
    """
    remembered = shop.run.evaluation / "answers_before.json"
    if _wanted(shop).needs_answers and shop.mesh.rank == 0 and not remembered.exists():
        starts_fresh = shop.recipe.lora.init_from is None
        with contextlib.nullcontext() if starts_fresh else shop.adapted.model.disable_adapter():
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
        base = _remembered(folder / "answers_before.json", tell)
        assert shop.data.validation is not None
        marks = mark(base, _answers(shop, "tuned model", tell), wanted=wanted, where=shop.data.validation.where)
        for text in warnings_of(marks, max_new_tokens=shop.recipe.evaluate.max_new_tokens):
            tell(Notice(text=text))
        write_text(folder / "predictions.jsonl", marks.predictions)
        write_json(remembered, _entries(marks))
    shop.mesh.barrier()
    return dict(json.loads(remembered.read_text(encoding="utf-8")))


def warnings_of(marks: Marks, *, max_new_tokens: int | None) -> Iterator[str]:
    """What to know of the answers before their numbers are believed, in words."""
    for who, cut in zip(("base", "tuned model"), marks.cut, strict=True):
        if cut:
            yield (
                f"{cut:,} of {marks.rows:,} answers of the {who} were cut before they ended, "
                f"at {max_new_tokens} tokens or where the base has no more positions: none of them counts as exact"
            )
    if marks.lacking:
        yield (
            f"{marks.lacking:,} of {marks.rows:,} references have characters that the tokenizer cannot write: "
            "no answer to them counts as exact"
        )


def _remembered(path: Path, tell: Tell) -> list[Prediction]:
    """The base's answers. What an older Fledge did not note of them is said, and taken for the best."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if any("is_complete" not in one for one in found):
        tell(Notice(text="an older Fledge wrote the base's answers: which of them were cut is not known"))
    best = {"whole_reference": "", "whole_answer": "", "is_complete": True, "reference_lacks": False}
    return [Prediction(**(best | one | {"others": tuple(one.get("others", ()))})) for one in found]


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
    with shop.phases.during("answers"):
        return answer_rows(
            shop.adapted.model,
            shop.tokenizer,
            store=store,
            sampling=Sampling(settings.max_new_tokens, num_beams=settings.num_beams),
            max_rows=settings.max_rows,
            max_positions=shop.facts.max_positions,
        )


def _entries(marks: Marks) -> dict[str, Any]:
    entries: dict[str, Any] = {"answered": marks.rows, "references_lacking_characters": marks.lacking}
    entries |= {"cut_answers_before": marks.cut[0], "cut_answers_after": marks.cut[1]}
    if marks.exact_match is not None:
        entries |= {"exact_match_before": marks.exact_match[0], "exact_match_after": marks.exact_match[1]}
    if marks.rouge is not None:
        entries |= {"rouge_before": marks.rouge.base.means, "rouge_after": marks.rouge.tuned.means}
        between = intervals_json(marks.rouge)
        names = {"before": between["base"], "after": between["tuned"], "difference": between["difference"]}
        entries["rouge_intervals"] = names
    means = means_of_several(marks)
    for name in ("exact_match_mean", "rouge_mean"):
        if name in means:
            both = means.pop(name)
            means |= {f"{name}_before": both["base"], f"{name}_after": both["tuned"]}
    means.pop("rouge_mean_intervals", None)
    return entries | means
