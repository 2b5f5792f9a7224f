"""`fledge init`: write a recipe, the commented one or one made for a file of rows."""

import os
from dataclasses import dataclass
from pathlib import Path

from fledge.commands.import_recipe import write_new
from fledge.commands.init_cures import in_terms_of_data
from fledge.commands.init_lengths import lengths_for
from fledge.config.data import DataConfig, SourceConfig
from fledge.config.model import ModelConfig
from fledge.config.paths import is_local
from fledge.config.starter import Starter, starter_recipe
from fledge.config.template import commented_recipe
from fledge.data.formats.render import renderer
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.survey import Guess, Survey, guess_format, survey
from fledge.errors import DataError, FledgeError
from fledge.models.load_tokenizer import declared_by, load_tokenizer
from fledge.models.tokenizer import Tokenizer
from fledge.places import expanded

SHOWN = 3


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as text; `spans` are the trained parts, as character ranges."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Initialised:
    """A recipe that was written, what was found out about its rows, and the first of them."""

    recipe: Path
    remarks: tuple[str, ...] = ()
    rows: tuple[ShownRow, ...] = ()


def init(path: Path, *, model: str | None = None, data: str | None = None) -> Initialised:
    """Write a recipe to `path`: with `data` one for these rows, without it the commented one with every option.

    The rows are read and the base's tokenizer is loaded; the base is not. Local paths are those of the working folder,
    and are written so that they start from the recipe's. Raises FledgeError where a file is at `path`, where `data` has
    no `model`, where the rows cannot be read, and where their columns do not say what is asked and what is answered.
    """
    if data is None:
        write_new(path, commented_recipe(None if model is None else _placed(model, path.parent)))
        return Initialised(path)
    if model is None:
        raise FledgeError("the base is missing", where="--data", cure="give --model too: a hub id or a folder")
    try:
        starter, rows = _starter(path.parent, model=model, data=data)
    except DataError as error:
        raise in_terms_of_data(error, data) from error
    write_new(path, starter_recipe(starter))
    return Initialised(path, starter.remarks, tuple(ShownRow(row.text, row.spans) for row in rows[:SHOWN]))


def _starter(folder: Path, *, model: str, data: str) -> tuple[Starter, list[RenderedRow]]:
    """What the recipe in `folder` is made of, and the first rows as they will be trained."""
    source = SourceConfig(path=_absolute(data), format="text")
    found = survey(source)
    base = ModelConfig(name_or_path=_absolute(model))
    plain = load_tokenizer(base, DataConfig(train=source))
    guess = guess_format(found.rows, takes_chat=plain.decoder_start_id is None)
    lacks = guess.format == "chat" and not plain.has_chat_template
    options = {"format": guess.format, **({"columns": dict(guess.columns)} if guess.columns else {})}
    further = {"chat_template": "chatml"} if lacks else {}
    config = DataConfig.model_validate({"train": source.model_dump() | options, **further})
    tokenizer = load_tokenizer(base, config) if lacks else plain
    rows, num_invalid = _rendered(found, config, tokenizer)
    declared = declared_by(base)
    lengths = lengths_for(rows, config, tokenizer=tokenizer, most=declared.positions)
    if found.num_broken + num_invalid:
        further["invalid_rows"] = "drop"
    starter = Starter(
        model=_placed(model, folder),
        source={"path": _placed(data, folder), **options},
        num_rows=found.num_rows,
        max_length=lengths.max_length,
        width=declared.width,
        remarks=_remarks(found, guess, lacks=lacks, num_invalid=num_invalid, data=data) + lengths.remarks,
        data=lengths.options | further,
    )
    return starter, rows


def write_recipe(path: Path) -> Path:
    """Write the commented recipe to `path` and return it. Raises FledgeError where a file is there or cannot be."""
    return init(path).recipe


def _is_local(name: str) -> bool:
    """Whether a name on the command line is a path: by its form, or because it exists."""
    return is_local(name) or (not name.startswith("builtin:") and Path(name).exists())


def _here(name: str) -> Path:
    return expanded(name).resolve()


def _absolute(name: str) -> str:
    return str(_here(name)) if _is_local(name) else name


def _placed(name: str, folder: Path) -> str:
    """A local path as it is written into a recipe in `folder`; a hub id as it is."""
    if not _is_local(name):
        return name
    path = os.path.relpath(_here(name), folder.resolve())
    if path.startswith(os.path.join("..", "..")):  # noqa: PTH118  # a relative path that climbs is no better
        return str(_here(name))
    return path if path.startswith("..") else f"./{path}"


def _rendered(found: Survey, config: DataConfig, tokenizer: Tokenizer) -> tuple[list[RenderedRow], int]:
    """The first rows as they will be trained, and how many of them the format refuses as invalid."""
    assert isinstance(config.train, SourceConfig)
    render = renderer(config.train, tokenizer, data=config)
    outcomes = [render(row.record) for row in found.rows]
    rows = [row for outcome in outcomes if not isinstance(outcome, Refusal) for row in outcome]
    invalid = [one for one in outcomes if isinstance(one, Refusal) and one.reason == "invalid"]
    return rows, len(invalid)


def _remarks(found: Survey, guess: Guess, *, lacks: bool, num_invalid: int, data: str) -> tuple[str, ...]:
    more = "" if found.is_whole else " or more"
    remarks = [f"{data}: {found.num_rows:,} rows{more}; {guess.why}"]
    remarks += [f"not readable: {where}" for where in found.broken]
    if found.num_broken + num_invalid:
        count = found.num_broken + num_invalid
        remarks.append(f"{count:,} rows are broken; data.invalid_rows: drop leaves them out and counts them")
    if lacks:
        remarks.append("the base has no chat template, so data.chat_template: chatml gives it one")
    return tuple(remarks)
