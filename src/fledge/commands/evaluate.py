"""`fledge evaluate`: what a run learnt, base beside tuned, from one loaded model."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from fledge.commands.answers import warnings_of
from fledge.commands.engine import build_engine, kernels_of
from fledge.commands.known_ids import check_known
from fledge.commands.library_loss import plain_loss
from fledge.commands.measured_rows import Split, check_has_rows, rows_of
from fledge.commands.open_adapter import open_tuned, with_layout
from fledge.commands.open_run import OpenRun, Tuned, check_base, load_tuned
from fledge.commands.opening import Opening, Which
from fledge.commands.progress import OnPrepare, Say, ignore_progress, say_nothing
from fledge.commands.results import (
    DIGEST,
    PREDICTIONS,
    RESULT,
    SOURCE,
    Extent,
    Place,
    named,
    place_of,
    put_aside,
)
from fledge.commands.settle import longest_row
from fledge.commands.workshop import check_lengths, room_of, shape_of
from fledge.commands.writable import check_writable
from fledge.config.data import SourceConfig
from fledge.data.batches import BatchSource
from fledge.data.store import TokenStore
from fledge.errors import FledgeError
from fledge.evaluation.answers import Prediction, answer_rows
from fledge.evaluation.generate import OnAnswers, Sampling, ignore_answers
from fledge.evaluation.perplexity import mean_loss, perplexity_of
from fledge.evaluation.rouge import Comparison
from fledge.evaluation.suite import Marks, Wanted, intervals_json, mark, means_json, means_of_several
from fledge.models.documents import documents_apart
from fledge.rundir import write_json, write_text
from fledge.runtime.mesh import OneRank
from fledge.training.fast_loss import FastLoss
from fledge.training.loss import to_device
from fledge.training.step import LossOf


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be measured. None stands for what the recipe's `evaluate` section says."""

    on: Split = "validation"
    max_rows: int | None = None
    exact_match: bool | None = None
    max_new_tokens: int | None = None
    rouge: bool | None = None
    num_beams: int | None = None
    show: int | None = None
    """How many answers the asker wants to look at, where this is asked for at all."""

    @property
    def measures(self) -> tuple[str, ...]:
        """What answers are wanted for."""
        asked = {"exact_match": self.exact_match, "rouge": self.rouge}
        return tuple(name for name, is_asked in asked.items() if is_asked)


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on the rows: loss is the mean over supervised tokens; exact_match is a share, 0 to 1, where asked."""

    loss: float
    perplexity: float
    exact_match: float | None = None

    def as_json(self) -> dict[str, float]:
        """The numbers that were measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Base beside tuned on `rows` rows with `tokens` supervised tokens; `folder` holds it all, predictions too.

    `answered` of the rows have a prompt and a whole answer; None where no answers were asked for. `marks` is what these
    came to, `extent` how much was measured. `source` names where the rows came from, `rows_sha256` is their digest.
    `fuller` is the folder of a fuller result of the same rows, which was left alone.
    """

    run: Path
    on: Split
    which: Which
    rows: int
    tokens: int
    base: Measured
    tuned: Measured
    folder: Path
    extent: Extent
    source: tuple[SourceConfig, ...]
    rows_sha256: str
    marks: Marks | None = None
    fuller: Path | None = None
    notices: tuple[str, ...] = ()
    """What a person should know of the run that was opened."""

    @property
    def answered(self) -> int | None:
        """How many rows were answered; None where no answers were asked for."""
        return None if self.marks is None else self.marks.rows

    @property
    def rouge(self) -> Comparison | None:
        """ROUGE of the answers, where it was asked for."""
        return None if self.marks is None else self.marks.rouge

    def rouge_tables(self) -> list[tuple[str, Comparison]]:
        """ROUGE to be shown, each with its title: by the best reference, and by the mean where rows have several."""
        if self.marks is None or self.marks.rouge is None:
            return []
        if self.marks.rouge_mean is None:
            return [("ROUGE x 100", self.marks.rouge)]
        return [("best x 100", self.marks.rouge), ("mean x 100", self.marks.rouge_mean)]

    def warnings(self) -> list[str]:
        """What to know of the answers before their numbers are believed."""
        return [] if self.marks is None else list(warnings_of(self.marks, max_new_tokens=self.extent.max_new_tokens))

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        about: dict[str, Any] = {"run": str(self.run), "on": self.on, "which": self.which}
        about |= {SOURCE: named(self.source), DIGEST: self.rows_sha256, "rows": self.rows, "tokens": self.tokens}
        if self.marks is not None:
            about |= {"answered": self.marks.rows, "max_new_tokens": self.extent.max_new_tokens}
            about |= {"num_beams": self.extent.num_beams}
            about |= {"cut_answers": dict(zip(("base", "tuned"), self.marks.cut, strict=True))}
            about |= {"references_lacking_characters": self.marks.lacking}
        beside: dict[str, Any] = {
            "loss": {"base": self.base.loss, "tuned": self.tuned.loss},
            "perplexity": {"base": self.base.perplexity, "tuned": self.tuned.perplexity},
        }
        if self.marks is not None and self.rouge is not None:
            beside |= {"rouge": means_json(self.rouge), "rouge_intervals": intervals_json(self.rouge)}
            beside |= {"rouge_wordless": self.marks.wordless}
        if self.marks is not None:
            beside |= means_of_several(self.marks)
        models = {"base": self.base.as_json(), "tuned": self.tuned.as_json()}
        places = {"folder": str(self.folder), "fuller": None if self.fuller is None else str(self.fuller)}
        noted = {"notices": list(self.notices)} if self.notices else {}
        return about | beside | models | places | noted


_COPY = "make it writable, or evaluate a copy of the run folder, made by `cp -r {} COPY`"


def evaluate(
    run: Path | str,
    *,
    question: Question | None = None,
    opening: Opening | None = None,
    on_prepare: OnPrepare = ignore_progress,
    on_answers: OnAnswers = ignore_answers,
    say: Say = say_nothing,
) -> Evaluation:
    """Loss, perplexity and, where asked, exact match and ROUGE of a run's adapter and of its base on the same rows.

    `run` may be a plain adapter's folder too, with a recipe that has the rows: its results lie in that folder then.

    Both are measured on the same answers; `on_answers` is told how many are written, those of both models together.
    `say` gets a line for each part of the work. `opening` says how the run is opened.

    Each file whole or not at all, result.json and, where answers were generated, predictions.jsonl are written into
    the run's evaluation/ folder; for other rows than the validation's, or the best adapter, into a folder inside it;
    and into one inside that where a fuller result of the same rows is there already, which is left alone. A result of
    other rows is put into a folder beside it, and a notice says so. Raises RunError where the run
    has no such rows, where they are not those of the training any more, or where the run folder cannot be written;
    DataError where rows cannot be read; FledgeError where a setting of answers is given and none are generated.
    """
    opening = opening or Opening()
    opened, which = open_tuned(run, opening), opening.chosen
    check_base(opened)
    check_has_rows(opened)
    asked = _settled(question or Question(), opened)
    _check_effects(question or Question(), asked)
    usual = _folder(opened, asked.on, which)
    check_writable(usual, cure=_COPY.format(quote(str(opened.run.root))))
    rows = rows_of(opened, asked.on, on_prepare=on_prepare)
    store = rows.store
    extent = _extent(asked, len(store))
    trained = _extent(_settled(Question(), opened), len(store))
    place = place_of(extent, usual, trained=trained, rows=rows.digest)
    opened, tuned = _loaded(opened, store, say=say)
    say(f"measuring the loss on {extent.rows:,} rows, with the adapter and without")
    (untaught, learnt), tokens = _losses(opened, tuned, store, asked)
    marks = _marks(opened, tuned, store, asked, on_answers)
    base_share, tuned_share = (marks.exact_match if marks else None) or (None, None)
    evaluation = Evaluation(
        run=opened.run.root,
        on=asked.on,
        which=which,
        rows=extent.rows,
        tokens=tokens,
        base=Measured(untaught, perplexity_of(untaught), base_share),
        tuned=Measured(learnt, perplexity_of(learnt), tuned_share),
        folder=place.folder,
        extent=extent,
        source=rows.source,
        rows_sha256=rows.digest,
        marks=marks,
        fuller=place.fuller,
        notices=(*opened.notices, *_said_of(place)),
    )
    put_aside(place)
    _write(evaluation, marks.predictions if marks else None)
    return evaluation


def _folder(opened: OpenRun, on: Split, which: Which) -> Path:
    if on == "validation" and which == "last":
        return opened.run.evaluation
    return opened.run.evaluation / (on if which == "last" else f"{on}-{which}")


def _said_of(place: Place) -> Iterator[str]:
    """What a person should know of a result that had to make room."""
    if place.aside is not None:
        yield f"the result that lay in {place.folder} is of other rows or does not say of which: it is in {place.aside}"


def _write(evaluation: Evaluation, predictions: str | None) -> None:
    """The files of an evaluation. Those of the one before go first, so that what lies together belongs together."""
    result, answers = evaluation.folder / RESULT, evaluation.folder / PREDICTIONS
    result.unlink(missing_ok=True)
    answers.unlink(missing_ok=True)
    if predictions is not None:
        write_text(answers, predictions)
    write_json(result, evaluation.as_json())


def _settled(question: Question, opened: OpenRun) -> Question:
    """The question with the recipe's own settings where it leaves something open."""
    settings = opened.recipe.evaluate
    return Question(
        on=question.on,
        max_rows=settings.max_rows if question.max_rows is None else question.max_rows,
        exact_match=settings.exact_match if question.exact_match is None else question.exact_match,
        rouge=settings.rouge if question.rouge is None else question.rouge,
        max_new_tokens=question.max_new_tokens or settings.max_new_tokens,
        num_beams=question.num_beams or settings.num_beams,
        show=question.show,
    )


def _check_effects(question: Question, asked: Question) -> None:
    """Raise FledgeError where something is given that has an effect on answers alone, and none are generated."""
    if asked.measures:
        return
    for name in ("show", "max_new_tokens", "num_beams"):
        if getattr(question, name) is not None:
            option = f"--{name.replace('_', '-')}"
            what = "has no effect where no answers are generated, and nothing asks for them"
            raise FledgeError(what, where=option, cure=f"add --exact-match or --rouge, or leave {option} out")


def _extent(asked: Question, num_rows: int) -> Extent:
    rows = num_rows if asked.max_rows is None else min(asked.max_rows, num_rows)
    has_answers = bool(asked.measures)
    lengths = (asked.max_new_tokens, asked.num_beams) if has_answers else (None, None)
    return Extent(rows, asked.measures, *lengths)


def _loaded(opened: OpenRun, store: TokenStore, *, say: Say) -> tuple[OpenRun, Tuned]:
    """The model, and for a plain adapter how its rows are computed together.

    Raises FledgeError where rows are of tokens, or may be of a length, that the base has not.
    """
    tuned = load_tuned(opened, say=say)
    if opened.plain is not None:
        check_lengths(opened.recipe, tuned.facts)
    check_known(store, tuned.model, tokenizer=opened.tokenizer, base=opened.recipe.model.name_or_path)
    return (opened if opened.plain is None else with_layout(opened, tuned, store=store)), tuned


@contextlib.contextmanager
def _loss_of(opened: OpenRun, tuned: Tuned) -> Iterator[LossOf]:
    """The training loss of the model as it is now, computed as in training."""
    recipe = opened.recipe
    if recipe.train.engine == "fast":
        rows, longest = room_of(recipe), longest_row(recipe, tuned.facts)
        with kernels_of(recipe):
            engine = build_engine(tuned.model, device=tuned.device, rows=rows, longest=longest)
            yield FastLoss(lambda batch: None, engine)
        return
    base = tuned.model.get_base_model()
    is_packed = shape_of(recipe, opened.tokenizer).is_packed
    with documents_apart(base) if is_packed else contextlib.nullcontext() as documents:
        yield plain_loss(tuned.facts, documents)


class _AsTheyLie:
    """Rows in their own order: an evaluation has no steps."""

    def rows_of_step(self, step: int) -> tuple[int, ...]:
        return ()


def _losses(opened: OpenRun, tuned: Tuned, store: TokenStore, asked: Question) -> tuple[tuple[float, float], int]:
    """The mean loss of base and tuned, and the supervised tokens that it is taken over."""
    learnt, tokens = _mean_loss(opened, tuned, store, asked)
    with tuned.as_base():
        untaught, _ = _mean_loss(opened, tuned, store, asked)
    return (untaught, learnt), tokens


def _mean_loss(opened: OpenRun, tuned: Tuned, store: TokenStore, asked: Question) -> tuple[float, int]:
    source = BatchSource(store, _AsTheyLie(), shape_of(opened.recipe, opened.tokenizer), rank=0, world_size=1)
    batches = (to_device(batch, tuned.device) for batch in source.everything(asked.max_rows))
    with _loss_of(opened, tuned) as loss_of:
        return mean_loss(tuned.model, batches, loss_of=loss_of, mesh=OneRank())


def _marks(opened: OpenRun, tuned: Tuned, store: TokenStore, asked: Question, on_answers: OnAnswers) -> Marks | None:
    """What the answers of base and tuned are worth; None where nothing asks for answers."""
    wanted = Wanted(exact_match=bool(asked.exact_match), rouge=bool(asked.rouge))
    if not wanted.needs_answers:
        return None
    assert asked.max_new_tokens is not None
    assert asked.num_beams is not None
    sampling = Sampling(asked.max_new_tokens, num_beams=asked.num_beams)

    def ask(models_before: int) -> tuple[Prediction, ...]:
        return answer_rows(
            tuned.model,
            opened.tokenizer,
            store=store,
            sampling=sampling,
            max_rows=asked.max_rows,
            max_positions=tuned.facts.max_positions,
            on_answers=lambda done, total: on_answers(models_before * total + done, 2 * total),
        )

    with tuned.as_base():
        base = ask(0)
    return mark(base, ask(1), wanted=wanted, where=store.where)
