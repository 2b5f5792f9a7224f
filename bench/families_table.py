"""The table of bench/families.py: one line for each base and way, and what they come to."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]


def kind_of(result: Result) -> str:
    """In one word what became of a base."""
    if not result["built"]:
        return "not built"
    for name in ("crash", "refused"):
        if name in result:
            return "crashed" if name == "crash" else name
    if "reference" in result:
        return "no reference"
    if result["exact"]:
        return "exact"
    own = max(result.get("own_nudged", 0.0), result.get("own_threads", 0.0))
    return "unsteady" if largest(result) <= 10 * own else "wrong"


def largest(result: Result) -> float:
    """The largest relative difference of a loss."""
    return max(float(result[name]) for name in ("losses", "validation", "saved"))


def how(result: Result) -> str:
    """How a base is computed."""
    kind = kind_of(result)
    if kind in ("exact", "wrong", "unsteady"):
        shapes = {"packed": "library, packed", "padded": "library, padded", "single": "library, one row at a time"}
        return "engine" if result["engine"] == "fast" else shapes[result["shape"]]
    reasons = {name: result[name] for name in ("why", "crash", "refused", "reference") if name in result}
    return f"{kind}: {next(iter(reasons.values()), '')}".replace("|", "/").replace("\n", " ")


def summary(result: Result) -> str:
    """One line for the screen."""
    if kind_of(result) in ("exact", "wrong", "unsteady"):
        return f"{kind_of(result)} {largest(result):.1e} {how(result)} ({result['seconds']} s)"
    return how(result)[:200]


def grouped(message: str) -> str:
    """A message without what differs from base to base."""
    message = re.sub(r"/\S+", "PATH", message)
    message = re.sub(r"\b[A-Z]\w*(For\w+|Model|Config|LMHead\w*|Decoder\w*)\b", "MODEL", message)
    return re.sub(r"\d[\d.,e+-]*", "N", message)[:220]


def markdown(results: Sequence[Result]) -> str:
    """A tally by way, the reasons by frequency, and the table."""
    ways = list(dict.fromkeys(result["way"] for result in results))
    lines = []
    for way in ways:
        chosen = [result for result in results if result["way"] == way]
        tally = Counter(kind_of(result) for result in chosen)
        lines.append(
            f"{way}: {len(chosen)} bases, " + ", ".join(f"{count} {kind}" for kind, count in tally.most_common())
        )
    for way in ways:
        lines += ["", *_reasons([result for result in results if result["way"] == way], way)]
    lines += [
        "",
        "| family | flag | way | computed by | loss | gradient | itself |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        _line(result) for result in sorted(results, key=lambda result: (result["name"], ways.index(result["way"])))
    ]
    return "\n".join(lines) + "\n"


def _reasons(results: Sequence[Result], way: str) -> list[str]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for result in results:
        kind = kind_of(result)
        if kind != "exact":
            by_reason[kind if kind in ("wrong", "unsteady") else grouped(how(result))].append(result["name"])
    found = sorted(by_reason.items(), key=lambda each: -len(each[1]))
    return [f"- {way}, {len(names)}: {reason}: {', '.join(names)}" for reason, names in found]


def _line(result: Result) -> str:
    family, _, flag = result["name"].partition("+")
    numbers = ["", "", ""]
    if kind_of(result) in ("exact", "wrong", "unsteady"):
        own = max(result.get("own_nudged", 0.0), result.get("own_threads", 0.0))
        numbers = [f"{largest(result):.1e}", f"{result['grad_norms']:.1e}", f"{own:.1e}" if own else ""]
        what = how(result) if kind_of(result) == "exact" else f"{how(result)}: {kind_of(result)}"
    else:
        what = how(result)[:160]
    return "| " + " | ".join([family, flag, result["way"], what, *numbers]) + " |"
