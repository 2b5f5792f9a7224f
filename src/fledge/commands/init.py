"""`fledge init`: write a recipe, the commented one or one made for a file of rows."""

from pathlib import Path

from fledge.commands.import_recipe import write_new
from fledge.commands.init_commented import Initialised, ShownRow, absolute, check_asked, commented, placed
from fledge.commands.init_cures import in_terms_of_data
from fledge.commands.init_lengths import lengths_for
from fledge.config.data import DataConfig, SourceConfig
from fledge.config.model import ModelConfig
from fledge.config.starter import Starter, starter_recipe
from fledge.data.formats.render import renderer
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.survey import Guess, Survey, guess_format, survey
from fledge.errors import DataError
from fledge.models.load_tokenizer import declared_by, load_tokenizer
from fledge.models.tokenizer import Tokenizer

SHOWN = 3


def init(path: Path, *, model: str | None = None, data: str | None = None) -> Initialised:
    """Write a recipe to `path`: with `data` one for these rows, without it the commented one with every option.

    The rows are read and the base's tokenizer is loaded; the base is not. Local paths are those of the working folder,
    and are written so that they start from the recipe's. Raises FledgeError where a file is at `path`, where `data` has
    no `model`, where the rows cannot be read, and where their columns do not say what is asked and what is answered.
    """
    check_asked(path, model=model, data=data)
    if model is None or data is None:
        return commented(path, model=model)
    try:
        starter, rows = _starter(path.parent, model=model, data=data)
    except DataError as error:
        raise in_terms_of_data(error, data) from error
    write_new(path, starter_recipe(starter))
    return Initialised(path, starter.remarks, tuple(ShownRow(row.text, row.spans) for row in rows[:SHOWN]))


def _starter(folder: Path, *, model: str, data: str) -> tuple[Starter, list[RenderedRow]]:
    """What the recipe in `folder` is made of, and the first rows as they will be trained."""
    source = SourceConfig(path=absolute(data), format="text")
    found = survey(source)
    base = ModelConfig(name_or_path=absolute(model))
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
        model=placed(model, folder),
        source={"path": placed(data, folder), **options},
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
