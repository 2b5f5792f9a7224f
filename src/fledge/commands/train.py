"""`fledge train`: a recipe in, a run folder out; resumes where the folder stopped."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fledge.adapters.attach import Adapted
from fledge.adapters.read import Start
from fledge.adapters.save import adapter_digest
from fledge.adapters.skeleton import check_saved_taken, check_taken
from fledge.commands.answers import answer_before, marks_after
from fledge.commands.base_path import check_run_exists
from fledge.commands.beginnings import settle_machine, use_threads, write_beginnings
from fledge.commands.engine import Probe, can_be_fast, kernels_of, text_of
from fledge.commands.finished import Standing, adapter_step, finished, settings_digest, standing
from fledge.commands.known_ids import check_known
from fledge.commands.layout import Chosen, choose_layout
from fledge.commands.manifest import hardware_of
from fledge.commands.measure import fastest_size
from fledge.commands.moved import placed, unproven
from fledge.commands.ownership import settled_recipe
from fledge.commands.progress import OnPrepare, ignore_progress
from fledge.commands.settle import GPU_TOKENS, activation_bytes, settle
from fledge.commands.start import check_words, start_of, tell_start
from fledge.commands.steps import check_steps, row_order
from fledge.commands.trials import Ids, Trials, make_trials
from fledge.commands.workshop import MEMORY_SHARE, Workshop, at_work, attach_adapter
from fledge.config.recipe import Recipe
from fledge.data.pipeline import PreparedData, prepare_training, samples_of
from fledge.errors import RunError
from fledge.events import Event, Finished, Notice, Prepared, Resumed, TrainStarted
from fledge.facts import ModelFacts
from fledge.models.attention import named
from fledge.models.load import Base, load_base
from fledge.models.load_tokenizer import load_tokenizer
from fledge.models.saved_words import prove_saved
from fledge.models.tokenizer import Tokenizer
from fledge.observe.observer import Relay
from fledge.observe.trackers import check_trackers, open_trackers
from fledge.ops.choice import kernels_named, must_compile, runs_on, why_not
from fledge.rundir import EventLog, RunDir, locked, new_place, remove_leftovers, whole_folder, write_json
from fledge.runtime.device import choose_device, make_deterministic
from fledge.runtime.memory import available_bytes, peak_bytes
from fledge.runtime.mesh import Mesh, is_first_rank, joined_mesh, local_rank
from fledge.runtime.phases import Phases
from fledge.training.checkpoint import load_best, load_newest
from fledge.training.loop import Parts, Plan, run_loop
from fledge.training.state import Progress
from fledge.training.stop import StopRequest, catching_signals

Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training came to. `was_finished` says that the run was complete before this call."""

    run: Path
    summary: dict[str, Any]
    was_finished: bool
    note: str = ""
    """What of a finished run could not be compared with what it was trained on."""


def train(
    recipe: Recipe,
    *,
    base_path: Path | str | None = None,
    observers: Sequence[Tell] = (),
    on_prepare: OnPrepare = ignore_progress,
) -> TrainResult:
    """Train what `recipe` says, or go on where its run folder stopped.

    Observers, and the trackers that the recipe names, are told every event, on the first rank only; one that fails is
    muted. The run folder's events.jsonl has the events too. `base_path` is where the base of a run that has begun lies
    now: its hash is compared with the one that the run noted, the recipe's name for it is not, and the run folder's
    recipe keeps the name that it has.

    Raises FledgeError: ExtraError where a tracker is not installed, RunError where the folder is locked, belongs to
    another recipe, is finished with other rows than the recipe means now, or was begun on another base than lies in
    `base_path`, DataError, ModelError, TrainingError where going on would be wrong, StoppedBySignal after SIGINT or
    SIGTERM.
    """
    check_trackers(recipe.output.trackers)
    run = RunDir(Path(recipe.output.dir))
    check_run_exists(run, base_path)
    with _held(run):
        recipe = settled_recipe(placed(recipe, run, base_path=base_path), run, is_moved=base_path is not None)
        unsure = unproven(run, base_path)
        stands = standing(recipe, run)
        if stands.is_whole and stands.summary is not None:
            done = finished(recipe, run, summary=stands.summary, on_prepare=on_prepare)
            note = "; ".join((*filter(None, [done.note]), *unsure))
            return TrainResult(run.root, done.summary, was_finished=True, note=note)
        with _telling(run, observers, recipe.output.trackers) as tell:
            for text in unsure:
                tell(Notice(text=text))
            summary = _train(recipe, run, tell, stands=stands, on_prepare=on_prepare)
    return TrainResult(run.root, summary, was_finished=False)


@contextlib.contextmanager
def _held(run: RunDir) -> Iterator[None]:
    """The run folder, locked by the first rank."""
    with locked(run.root) if is_first_rank() else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _telling(run: RunDir, observers: Sequence[Tell], trackers: Sequence[str]) -> Iterator[Tell]:
    """One function that tells the log and every observer; silent on all ranks but the first."""
    if not is_first_rank():
        yield lambda event: None
        return
    log = EventLog(run.events)
    relay = Relay(log, [*observers, *open_trackers(trackers, run)])
    try:
        yield relay
    finally:
        relay.close()
        log.close()


def _train(recipe: Recipe, run: RunDir, tell: Tell, *, stands: Standing, on_prepare: OnPrepare) -> dict[str, Any]:
    if stands.damage:
        what = f"the adapter or the summary of this finished run is damaged ({stands.damage})"
        tell(Notice(text=f"{what}: written anew from the last checkpoint, and nothing is trained"))
    device = choose_device(recipe.model.placement, local_rank=local_rank())
    phases = Phases(device)
    with phases.during("rows"):
        rows = _rows(recipe, tell, on_prepare)
    make_deterministic(device)
    with kernels_of(recipe), joined_mesh(device) as mesh:
        use_threads(run, tell)  # before the base, whose scales in nf4 hang on it too
        with phases.during("loading"):
            base = load_base(recipe.model, device=device, tell=lambda text: tell(Notice(text=text)))
        shop = _open(recipe, run, rows, base=base, mesh=mesh, phases=phases, tell=tell)
        answer_before(shop, tell)
        stop = StopRequest()
        with phases.during("steps"), at_work(shop, tell, stop=stop) as (parts, plan):
            _tell_start(shop, plan.total_steps, tell)
            found = load_newest(run, parts.trained)
            mesh.barrier()
            if found is not None:
                tell(Resumed(from_step=found.step))
            if stands.was_finished:
                _check_end(run, plan, found)
            with catching_signals(stop):
                progress = run_loop(parts, plan, progress=found or Progress())
            progress = _choose_weights(shop, parts, plan, progress)
            _check_same_adapter(shop, stands)
        return _finish(shop, progress, tell, marks_after(shop, tell))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Prepared rows, and what made their tokens."""

    tokenizer: Tokenizer
    data: PreparedData


def _rows(recipe: Recipe, tell: Tell, on_prepare: OnPrepare) -> _Rows:
    """The rows as they are trained. Raises FledgeError where a saved tokenizer would read them otherwise."""
    tokenizer = load_tokenizer(recipe.model, recipe.data)
    data = prepare_training(recipe.data, tokenizer, seed=recipe.train.seed, progress=on_prepare)
    if is_first_rank():
        prove_saved(tokenizer, samples_of(data), base=recipe.model.name_or_path)
    _tell_prepared(data, tell)
    check_steps(recipe, data, tell=tell)
    for text in tokenizer.notes:
        tell(Notice(text=text))
    return _Rows(tokenizer, data)


def _open(recipe: Recipe, run: RunDir, rows: _Rows, *, base: Base, mesh: Mesh, phases: Phases, tell: Tell) -> Workshop:
    """Settle what `auto` left open, write down what the run stands on, and put the adapter on the base."""
    device, start = base.model.device, start_of(recipe, run)
    tokenizer, data = rows.tokenizer, rows.data
    with phases.during("loading"):
        adapted = _attached(recipe, run, tokenizer, data, base=base, start=start, tell=tell)
    for store in (data.train, data.validation):
        if store is not None:
            check_known(store, adapted.model, tokenizer=tokenizer, base=recipe.model.name_or_path)
    if recipe.train.engine != "plain" and must_compile(device):
        tell(Notice(text="compiling kernels for this CPU, once"))
    with phases.during("check"):
        trials = _trials(adapted.model, base.facts, data, tokenizer)
        why_plain = can_be_fast(recipe, Probe(adapted.model, base.facts, device, text_of(data.train), trials))
        chosen = Chosen("packed")
        if why_plain is not None:
            chosen = choose_layout(recipe, adapted.model, facts=base.facts, trials=trials)
    computes = kernels_named(device) if why_plain is None else "the library's own modules"
    hardware = hardware_of(device, world_size=mesh.world_size, computes=computes)
    if mesh.rank == 0:
        remove_leftovers(run)
        attention = named(str(base.model.config._attn_implementation))
        with phases.during("sizes"):
            fast_tokens = _fast_tokens(recipe, data, base, tell=tell) if why_plain is None else None
        settled = settle(
            recipe, base.facts, attention=attention, device=device, fast_tokens=fast_tokens, layout=chosen.layout
        )
        write_beginnings(settled, run, tokenizer=tokenizer, data=data, hardware=hardware, start=start)
    mesh.barrier()
    settled = settled_recipe(recipe, run, is_moved=True)  # where it is not, its name was compared at the start
    settle_machine(run, hardware, tell=tell)
    is_padded = base.facts.is_encoder_decoder and recipe.data.packing is not False
    if why_plain is not None and (recipe.train.engine == "auto" or is_padded):
        padded = ", on padded rows" if is_padded and not chosen.notice else ""
        tell(Notice(text=f"the library's own modules compute each step{padded}: {why_plain}"))
    elif why_plain is None and recipe.train.kernels == "auto" and not runs_on(device):
        tell(Notice(text=f"no fused kernels, so each step takes longer: {why_not(device)}"))
    if chosen.notice:
        tell(Notice(text=chosen.notice))
    return Workshop(settled, run, tokenizer, data, base.facts, adapted, device, mesh, phases)


def _attached(
    recipe: Recipe,
    run: RunDir,
    tokenizer: Tokenizer,
    data: PreparedData,
    *,
    base: Base,
    start: Start | None,
    tell: Tell,
) -> Adapted:
    """The adapter on the base, one that plain peft takes; a person is told what it starts from and what it leaves out.

    Raises ModelError where rows or the adapter do not fit the base.
    """
    words = () if start is None else check_words(start, tokenizer)
    adapted = attach_adapter(recipe, base, tokenizer=tokenizer, start=start)
    check_taken(adapted.model, start=None if start is None else start.folder)
    if start is not None and not run.checkpoint_steps():
        steps = row_order(recipe, data).total_steps(recipe.train.num_epochs, recipe.train.max_steps)
        tell_start(recipe, start, steps=steps, words=words, tell=tell)
    if adapted.left_out:
        text = f"all-linear leaves out {', '.join(adapted.left_out)}: an adapter would break this model there"
        tell(Notice(text=text))
    if adapted.lost:
        tell(
            Notice(text=f"all-linear leaves out {', '.join(adapted.lost)}: plain peft could not load an adapter there")
        )
    return adapted


def _trials(model: Any, facts: ModelFacts, data: PreparedData, tokenizer: Tokenizer) -> Trials:
    """The rows on which it is proven that rows computed together give what each gives alone."""
    stores = [store for store in (data.train, data.validation) if store is not None]
    return make_trials(model, facts, stores=stores, ids=Ids(tokenizer.pad_token_id, tokenizer.decoder_start_id))


def _fast_tokens(recipe: Recipe, data: PreparedData, base: Base, *, tell: Tell) -> int:
    """A micro-batch of the fast engine, within the memory at hand."""
    device, train = base.model.device, recipe.train
    most = MEMORY_SHARE * available_bytes(device) / activation_bytes(base.facts, tokens=1)
    if device.type != "cpu" or train.micro_batch_tokens != "auto" or train.micro_batch_rows is not None:
        return min(GPU_TOKENS, int(most))
    rows = [data.train.row(index) for index in row_order(recipe, data).rows_of_step(1)]
    return fastest_size(recipe, base.facts, rows=rows, most=most, tell=tell)


def _tell_prepared(data: PreparedData, tell: Tell) -> None:
    ledger = data.ledger
    tell(
        Prepared(
            rows=ledger.rows_kept,
            dropped_rows=ledger.rows_dropped,
            tokens=ledger.tokens,
            supervised_tokens=ledger.supervised_tokens,
            seconds=data.seconds,
            from_cache=data.from_cache,
        )
    )
    for text in ledger.notices():
        tell(Notice(text=text))


def _tell_start(shop: Workshop, total_steps: int, tell: Tell) -> None:
    tell(
        TrainStarted(
            run=str(shop.run.root),
            total_steps=total_steps,
            world_size=shop.mesh.world_size,
            trainable_parameters=shop.num_trainable,
            base_parameters=shop.facts.num_parameters,
            device=str(shop.device),
        )
    )


def _check_end(run: RunDir, plan: Plan, found: Progress | None) -> None:
    """Raises RunError where a finished run would train again because its last checkpoint is not of its end."""
    if found is None or (found.step < plan.total_steps and not found.stopped_early):
        what = f"this run was trained to its end, and its last checkpoint is of step {found.step if found else 0:,}"
        cure = f"put {run.adapter} and {run.summary} back, or add {new_place(run.root)} to train anew"
        raise RunError(f"{what}: nothing is trained again", where=str(run.root), cure=cure)


def _check_same_adapter(shop: Workshop, stands: Standing) -> None:
    """Raises RunError where the checkpoints of a finished run give another adapter than it was trained to."""
    noted = (stands.summary or {}).get("adapter_sha256")
    if noted is not None and noted != adapter_digest(shop.adapted.model):
        what = "this run was trained to its end, and its checkpoints give another adapter than was noted then"
        cure = f"put {shop.run.adapter} back from a copy, or add {new_place(shop.run.root)} to train anew"
        raise RunError(f"{what}: nothing was written", where=str(shop.run.checkpoints), cure=cure)


def _choose_weights(shop: Workshop, parts: Parts, plan: Plan, progress: Progress) -> Progress:
    """Put back the weights that the run comes to, where these are not the last ones."""
    chosen = adapter_step(shop.recipe, progress)
    if progress.stopped_early:
        text = (
            f"stopped early after step {progress.step:,} of {plan.total_steps:,}: no better validation loss in "
            f"{plan.patience:,} validations; adapter/ is the one of step {chosen:,}"
        )
        parts.tell(Notice(text=text))
    if chosen == progress.step:
        return progress
    shop.mesh.barrier()  # the first rank writes the best one
    load_best(shop.run, parts.trained)
    return replace(progress, validation_loss=progress.best_loss)


def _peak(shop: Workshop, progress: Progress) -> int:
    """This rank's, over all starts of the run."""
    return max(progress.peak_memory_bytes, peak_bytes(shop.device))


def _finish(shop: Workshop, progress: Progress, tell: Tell, marks: dict[str, Any]) -> dict[str, Any]:
    """Write adapter/ and, last of all, summary.json, which says that the run is complete."""
    digest, chosen = adapter_digest(shop.adapted.model), adapter_step(shop.recipe, progress)
    with shop.phases.during("saving"):
        saved = _save_adapter(shop) if shop.mesh.rank == 0 else {}
    summary = {
        "steps": progress.step,
        "rows": progress.rows,
        "tokens": progress.tokens,
        "supervised_tokens": progress.supervised_tokens,
        "first_loss": progress.first_loss,
        "last_loss": progress.last_loss,
        "validation_loss": progress.validation_loss,
        "best_validation_loss": progress.best_loss,
        "best_step": progress.best_step,
        "adapter_step": chosen,
        "stopped_early": progress.stopped_early,
        "tokens_per_second": progress.tokens / progress.seconds if progress.seconds else None,
        "prepare_seconds": shop.data.seconds,
        "peak_memory_bytes": max(int(peak) for peak in shop.mesh.gather([str(_peak(shop, progress))])),
        "phases": shop.phases.told(),
        "wall_seconds": progress.seconds,
        "adapter_sha256": digest,
        **marks,
        **saved,
    }
    if shop.mesh.rank == 0:
        tell(
            Finished(
                step=progress.step,
                adapter_sha256=digest,
                seconds=progress.seconds,
                adapter_step=chosen,
                stopped_early=progress.stopped_early,
            )
        )
        write_json(shop.run.summary, summary)
    shop.mesh.barrier()
    return summary


def _save_adapter(shop: Workshop) -> dict[str, str | None]:
    """Write adapter/, which plain peft takes. Returns the summary's entries on its files."""
    with whole_folder(shop.run.adapter) as folder:
        weights = shop.save_adapter(folder)
        check_saved_taken(shop.adapted.model.get_base_model(), folder)
        return {"adapter_file_sha256": weights, "settings_sha256": settings_digest(folder)}
