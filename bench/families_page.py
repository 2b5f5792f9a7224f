"""docs/models.md, from the results of bench/families.py: what trains, how it is computed, what is refused and why."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from bench.families_table import Result, grouped, how, kind_of, largest

_COMPUTED = ("exact", "wrong", "unsteady")
_HEAD = """# Which models

Made by `bench/families.py --ways default --page docs/models.md`: for every causal and encoder-decoder architecture in
the automatic classes of transformers {version} a random base of up to 3 layers, with the odd flags that published
configurations have, is trained for 6 steps of 8 rows with the default recipe in float32, beside plain transformers and
peft, which compute each row alone. Exact means that every step's loss and the saved adapter's validation loss are
within 1e-5 of theirs, relative.

{tally}

How a step is computed is found out before a run, on the weights at hand: by Fledge's engine, or by the library's
modules, on packed rows where that changes nothing, else on padded ones, else one row at a time. A flag is what the
base has beside the usual; `images` is a checkpoint for text and images, of which the language model is trained.
"""
_WORDS = {
    "exact": "exact",
    "unsteady": "as far off as plain peft is from itself, computed twice",
    "wrong": "not exact",
    "refused": "refused",
    "crashed": "ended in an error",
    "no reference": "no plain training to compare with",
}


def page(results: Sequence[Result], *, version: str) -> str:
    """The page, from one result for each base."""
    built = [result for result in results if result["built"]]
    tally = Counter(kind_of(result) for result in built)
    told = ", ".join(f"{count} {_WORDS[kind]}" for kind, count in tally.most_common())
    lines = [_HEAD.format(version=version, tally=f"Of {len(built)} bases: {told}. {_of_exact(built)}")]
    lines += ["| model_type | flag | computed by | largest difference of a loss |", "| --- | --- | --- | --- |"]
    chosen = [result for result in built if kind_of(result) in _COMPUTED]
    lines += [_line(result) for result in sorted(chosen, key=lambda result: result["name"])]
    lines += ["", *_others(built), "## Not built", "", *_not_built(results)]
    return "\n".join(lines) + "\n"


def _of_exact(built: Sequence[Result]) -> str:
    """How many model types train exactly, how they are computed, and the largest difference."""
    exact = [result for result in built if kind_of(result) == "exact"]
    types = {result["name"].partition("+")[0] for result in exact}
    ways = ", ".join(f"{way} {count}" for way, count in Counter(how(result) for result in exact).most_common())
    far = max(largest(result) for result in exact)
    return f"Exact are {len(exact) / len(built):.0%}, of {len(types)} model types ({ways}), by {far:.1e} at most."


def _line(result: Result) -> str:
    family, _, flag = result["name"].partition("+")
    kind = kind_of(result)
    found = f"{largest(result):.0e}" + ("" if kind == "exact" else f" ({_WORDS[kind]})")
    return f"| {family} | {flag} | {how(result)} | {found} |"


def _others(built: Sequence[Result]) -> list[str]:
    """What was refused and what could not be compared, with what was said."""
    left = [result for result in built if kind_of(result) not in _COMPUTED]
    if not left:
        return []
    lines = ["## Refused", "", "| model_type | flag | what is said |", "| --- | --- | --- |"]
    for result in sorted(left, key=lambda result: result["name"]):
        family, _, flag = result["name"].partition("+")
        lines.append(f"| {family} | {flag} | {grouped(how(result))} |")
    return [*lines, ""]


def _not_built(results: Sequence[Result]) -> list[str]:
    """What could not be made small, by the reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if not result["built"]:
            by_reason[grouped(str(result["why"]))].append(result["name"])
    found = sorted(by_reason.items(), key=lambda each: -len(each[1]))
    return [f"- {reason}: {', '.join(sorted(names))}" for reason, names in found]
