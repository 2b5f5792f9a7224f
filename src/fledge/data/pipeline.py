"""From the recipe's data section to token stores: cached by content, divided by seed, accounted in the ledger."""

import hashlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from fledge.cache import content_digest
from fledge.config.data import DataConfig, SourceConfig, ValidationFraction
from fledge.config.recipe import sources as listed
from fledge.data.build import Progress, build_store
from fledge.data.cache import fetch, key_of
from fledge.data.duplicates import count_repeated
from fledge.data.ledger import Ledger, Role, Share, as_json, from_json, skipped_by_reason
from fledge.data.none_left import refuse_nothing
from fledge.data.pairs import check_fits
from fledge.data.readers.rows import OpenSource, open_source
from fledge.data.references import files_in
from fledge.data.split import hold_out
from fledge.data.store import FILES, TokenStore
from fledge.data.tokenize import TextTokenizer

_META = "meta.json"


@dataclass(frozen=True, slots=True)
class PreparedSplit:
    """The rows of some sources, tokenised."""

    store: TokenStore
    ledger: Ledger
    seconds: float
    from_cache: bool
    digest: str
    """Digest of the rows themselves, ids and masks: the same rows give the same, whatever made them."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What a run trains and validates on."""

    train: TokenStore
    validation: TokenStore | None
    ledger: Ledger
    weights: tuple[float, ...]
    """Weight of each training source, in the order of the store's source_sizes."""
    seconds: float
    from_cache: bool
    digest: str
    """Tells these rows, and how they are divided, from any others."""


def prepare_training(data: DataConfig, tokenizer: TextTokenizer, *, seed: int, progress: Progress) -> PreparedData:
    """The training rows and the validation rows, if any, with the ledger of both.

    `progress` is called with rows done and rows in all (None where that is not known). Raises DataError for what is
    wrong with a source or a row, for an option that the kind of the base leaves no sense (before anything is read), and
    where nothing is left to train on.
    """
    check_fits(data, tokenizer)
    started = time.perf_counter()
    train = _prepare(listed(data.train), data, tokenizer, role="train", progress=progress)
    ledgers = dict(train.ledger.sources)
    store, validation = train.store, None
    digest, from_cache = train.digest, train.from_cache
    if isinstance(data.validation, ValidationFraction):
        trained, held = hold_out(store.parents, fraction=data.validation.fraction, seed=seed)
        store, validation = store.select(trained), store.select(held)
        digest = _joined(digest, data.validation.fraction, seed)
    elif data.validation is not None:
        apart = _prepare(listed(data.validation), data, tokenizer, role="validation", progress=progress)
        ledgers |= apart.ledger.sources
        validation = apart.store
        digest = _joined(digest, apart.digest)
        from_cache = from_cache and apart.from_cache
    shares: dict[Role, Share] = {"train": _share(store)}
    if validation is not None:
        shares["validation"] = _share(validation)
    repeated = count_repeated(validation, store) if validation is not None else 0
    return PreparedData(
        train=store,
        validation=validation,
        ledger=Ledger(ledgers, shares, repeated),
        weights=tuple(source.weight for source in listed(data.train)),
        seconds=time.perf_counter() - started,
        from_cache=from_cache,
        digest=digest,
    )


def samples_of(data: PreparedData) -> list[tuple[str, list[int]]]:
    """Some of the rows' own texts, training and validation, each with its ids."""
    stores = [data.train] if data.validation is None else [data.train, data.validation]
    return [pair for sample in {store.folder: store.sample() for store in stores}.values() for pair in sample]


def prepare_sources(
    sources: tuple[SourceConfig, ...], data: DataConfig, *, tokenizer: TextTokenizer, progress: Progress
) -> PreparedSplit:
    """The rows of some sources alone, under the recipe's other data options: for evaluation on a test source."""
    check_fits(data, tokenizer)
    return _prepare(sources, data, tokenizer, role="test", progress=progress)


def _prepare(
    chosen: tuple[SourceConfig, ...], data: DataConfig, tokenizer: TextTokenizer, *, role: Role, progress: Progress
) -> PreparedSplit:
    started = time.perf_counter()
    opened = [open_source(source) for source in chosen]
    key = _key(opened, data, tokenizer)

    def build(folder: Path) -> None:
        built = build_store(opened, data, tokenizer=tokenizer, folder=folder, progress=progress)
        entries = [one.ledger for one in built]
        if not any(entry.rows_kept for entry in entries):
            raise refuse_nothing(built, role, data=data)
        parts = [part for source in opened for part in source.part_names()]
        noted = [replace(e, file_notes=skipped_by_reason(s.noted)) for e, s in zip(entries, opened, strict=True)]
        meta = {"parts": parts, "ledgers": [as_json(entry) for entry in noted]}
        (folder / _META).write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")

    folder, from_cache = fetch(key, build)
    meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    parts = [(str(name), str(between)) for name, between in meta["parts"]]
    store = TokenStore(folder, parts=parts, num_sources=len(chosen))
    if from_cache:
        done = sum(entry["rows_read"] for entry in meta["ledgers"])
        progress(done, done)
    entries = tuple(
        replace(from_json(entry), files_skipped=skipped_by_reason(source.skipped))
        for entry, source in zip(meta["ledgers"], opened, strict=True)
    )
    return PreparedSplit(
        store=store,
        ledger=Ledger({role: entries}, {role: _share(store)}),
        seconds=time.perf_counter() - started,
        from_cache=from_cache,
        digest=content_digest(folder, (*FILES, *files_in(folder))),
    )


def _key(opened: list[OpenSource], data: DataConfig, tokenizer: TextTokenizer) -> str:
    """Everything that decides a store's content. The weight and the seed do not: they come after."""
    described = [
        {
            **source.config.model_dump(exclude={"path", "weight"}),
            "name": source.name,
            "parts": source.part_names(),
            "content": source.content_digests(),
        }
        for source in opened
    ]
    names = {"max_length", "max_target_length", "overlong", "invalid_rows", "train_on", "sanitize_control_tokens"}
    options = data.model_dump(include=names)
    special = [tokenizer.prefix_ids, tokenizer.bos_token, tokenizer.eos_token, tokenizer.eos_token_id]
    pair = [tokenizer.suffix_ids, tokenizer.decoder_start_id]
    chat = [sorted(tokenizer.stop_ids), tokenizer.template_notes]
    parts = {"sources": described, "options": options, "special": special, "pair": pair, "chat": chat}
    return key_of({**parts, "tokenizer": tokenizer.identity})


def _joined(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _share(store: TokenStore) -> Share:
    return Share(
        rows=len(store),
        tokens=int(store.lengths.sum(dtype=int)),
        supervised_tokens=int(store.supervised.sum(dtype=int)),
    )
