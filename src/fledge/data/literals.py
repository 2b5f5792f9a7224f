"""Python literals, as some programs write lists and objects into text, read as the JSON that they stand for."""

import ast
import json
from typing import Any

_STARTS = ("{'", "[{'", "{ '", '{"', '[{"', "['", '["')


def literal_of(text: str) -> Any:
    """What a Python literal stands for, as JSON has it (a tuple is a list). Nothing is run.

    None where the text is no such literal.
    """
    if not text.lstrip().startswith(_STARTS):
        return None
    try:
        # a set, bytes or a complex number is nothing that JSON knows, and json.dumps refuses it
        return json.loads(json.dumps(ast.literal_eval(text.strip())))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
