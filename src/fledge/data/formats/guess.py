"""Which columns of a file most likely play a format's roles: for cures, and for whoever writes a recipe from a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from fledge.config.columns import PAIR, REQUIRED, ROLES
from fledge.config.data import Format
from fledge.config.dump import scalar
from fledge.config.nearest import nearest_name
from fledge.data.rows import Refusal, is_text_file

_MOST_SHOWN = 20
_ASKS = "instruction question query prompt user human task request problem title"
_ANSWERS = "output response answer answers completion reply assistant gpt target chosen solution result"
# Names that published data sets have for a role; the first that is there is taken.
_OTHER_NAMES: dict[str, str] = {
    "instruction": f"{_ASKS} input",
    "input": "input context",
    "output": f"{_ANSWERS} summary",
    "prompt": f"{_ASKS} input source dialogue document article context text",
    "completion": f"{_ANSWERS} summary highlights",
    "user": f"{_ASKS} input",
    "assistant": _ANSWERS,
    "messages": "messages conversations conversation dialog dialogue turns chat chosen",
    "system": "system system_prompt system_message",
    "history": "history",
    "tools": "tools",
    "text": "text content body document article sentence",
}


def guess_columns(present: Sequence[str], form: Format) -> dict[str, str]:
    """Column by role of `form`, as far as the names of the columns tell; no column has two roles."""
    free = [name for name in present if isinstance(name, str)]
    found: dict[str, str] = {}
    for role in ROLES[form]:
        _take(role, _by_other_name(role, free), found, free)
    is_pair = set(PAIR) <= set(found)
    for role in REQUIRED[form] or (() if is_pair else ("messages",)):
        if role not in found:
            _take(role, nearest_name(role, free), found, free)
    if form == "chat" and ("messages" in found or not is_pair):
        found = {role: name for role, name in found.items() if role not in PAIR}
    return found


def _take(role: str, name: str | None, found: dict[str, str], free: list[str]) -> None:
    if name is not None:
        found[role] = name
        free.remove(name)


def _take_near(role: str, wanted: str, found: dict[str, str], free: list[str]) -> None:
    if wanted != role:
        _take(role, nearest_name(wanted, [name for name in free if isinstance(name, str)]), found, free)


def missing_roles(record: Mapping[str, Any], columns: Mapping[str, str], *, form: Format) -> Refusal:
    """The refusal of a row that lacks the column of a role: the key to set, and the columns as they are spelled."""
    if is_text_file(record):
        return Refusal("invalid", "a text file has no columns", "set the source's format to text")
    needed = REQUIRED[form] or (PAIR if set(PAIR) <= set(columns) else ("messages",))
    wanted = [columns[role] for role in needed if role in columns and columns[role] not in record]
    said = " and ".join(map(repr, wanted)) if wanted != ["messages"] else "'messages' or 'conversations'"
    return Refusal("invalid", f"no column {said}; present: {present_names(record)}", _cure(record, columns, form=form))


def present_names(record: Mapping[str, Any]) -> str:
    """The columns of a row, the first of them where there are many."""
    names = [_shortened(name) for name in record]
    more = f" and {len(names) - _MOST_SHOWN:,} more" if len(names) > _MOST_SHOWN else ""
    return (", ".join(names[:_MOST_SHOWN]) or "none") + more


def _shortened(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _cure(record: Mapping[str, Any], columns: Mapping[str, str], *, form: Format) -> str:
    for other in ROLES:
        if other != form and REQUIRED[other] and all(role in record for role in REQUIRED[other]):
            return f"write format: {other}, whose columns these are"
    if form != "chat" and ("messages" in record or "conversations" in record):
        return "write format: chat, for the rows are conversations"
    inner = [name for name, value in record.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    present = {role: name for role, name in columns.items() if name in record}
    taken = {name for role, name in present.items() if role in REQUIRED[form] or role != name}
    told = {role: name for role, name in present.items() if role != name}
    roles = REQUIRED[form] or (PAIR if set(PAIR) <= set(columns) else ())
    needed = [role for role in roles if role in columns and role not in present]
    free = [name for name in record if name not in taken]
    for role in needed:  # a name that the recipe misspells comes before a name that such columns often have
        _take_near(role, columns[role], told, free)
    guessed = guess_columns(free, form)
    told |= {role: name for role, name in guessed.items() if role not in present and role not in told}
    if all(role in told for role in needed) and (needed or {"messages", *PAIR} & set(told)):
        return f"write columns: {scalar(told)} in the source"
    if inner and form != "chat":
        return f"if the rows are the list under {inner[0]!r}, let the file hold that list alone"
    if len(record) == 1 and (mark := _separator_in(str(next(iter(record))))):
        return f"the header holds {mark!r}: write delimiter: {scalar(mark)} in the source, if it stands between values"
    wanted = ", ".join(f"{role}: NAME" for role in (needed or ["messages"]))
    return f"write columns: {{{wanted}}} in the source, with the NAME of a column, or choose another format"


def _separator_in(header: str) -> str:
    return next((mark for mark in ";|\t,:" if mark in header), "")


def _by_other_name(role: str, free: Sequence[str]) -> str | None:
    folded = {name.strip().lower().replace("-", "_").replace(" ", "_"): name for name in reversed(free)}
    return next((folded[name] for name in (role, *_OTHER_NAMES[role].split()) if name in folded), None)
