"""What bench/quality.py writes at its end: every score as JSON, and the tables of what is judged so far."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.quality_kept import digest_of, keep, same_before
from bench.quality_scores import MEASURES, draws, interval, table_of

IN_README = {"alpaca": ("loss", "rougeL", "exact"), "records": ("loss", "well_formed", "all_fields", "exact")}
NAMES = {
    "loss": "validation loss",
    "exact": "exact match, %",
    "well_formed": "well-formed, %",
    "fields": "fields right, %",
    "all_fields": "all fields right, %",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}


def write_tables(out: Path, settings: dict, kept: Path | None = None) -> str:
    """Write quality.json, log.md and readme.md into `out` and return the long table.

    Results go into `kept` too, without texts, where it is given.
    """
    same = {task: same_before(kept, task) | _same_trainings(out / task) for task in MEASURES}
    if kept is not None:
        keep(out, kept, same)
    judged = {task: _judged(out / task) for task in MEASURES}
    judged = {task: models for task, models in judged.items() if models}
    summaries = {task: summary(task, models) for task, models in judged.items()}
    tasks = {
        task: {
            "measures": summaries[task],
            "same_training": same[task],
            "same_answers": _same_answers(models),
            "cut_answers": {name: sum(row["is_cut"] for row in one["rows"]) for name, one in models.items()},
            "seconds": {
                name: {key: round(one[key], 1) for key in ("loss_seconds", "answer_seconds")}
                for name, one in models.items()
            },
            "rows": {name: _scores_alone(task, one["rows"]) for name, one in models.items()},
            "tokens": [row["tokens"] for row in next(iter(models.values()))["rows"]],
        }
        for task, models in judged.items()
    }
    (out / "quality.json").write_text(json.dumps({"settings": settings, "tasks": tasks}))
    long = "\n\n".join(_long_table(task, found, tasks[task]) for task, found in summaries.items())
    (out / "log.md").write_text(long + "\n")
    (out / "readme.md").write_text(_short_table(summaries) + "\n")
    return long


def _judged(folder: Path) -> dict[str, dict]:
    """Judged models of a task by name: base, seed-1-fledge, ..."""
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(folder.glob("*/judged.json"))}


def _scores_alone(task: str, rows: list[dict]) -> dict[str, list[float]]:
    return {measure: [round(row[measure], 5) for row in rows] for measure in MEASURES[task]}


def summary(task: str, models: dict[str, dict]) -> dict[str, dict]:
    """For each measure the models' figures, each seed's, and the differences with their intervals."""
    seeds = {tool: sorted(_seeds(models, tool)) for tool in ("fledge", "peft")}
    return {measure: _figures(measure, models, seeds) for measure in MEASURES[task]}


def _seeds(models: dict[str, dict], tool: str) -> set[int]:
    return {int(name.split("-")[1]) for name in models if name.endswith(f"-{tool}")}


def _figures(measure: str, models: dict[str, dict], seeds: dict[str, list[int]]) -> dict[str, dict]:
    found: dict[str, dict] = {}
    if "base" in models:
        base, weights = table_of([models["base"]], measure)
        found["base"] = _intervals(base, weights)
    for tool in (tool for tool, known in seeds.items() if known):
        scores, weights = table_of([models[f"seed-{seed}-{tool}"] for seed in seeds[tool]], measure)
        per_seed = (scores @ weights / weights.sum()).tolist()
        found[tool] = {**_intervals(scores, weights), "seeds": dict(zip(seeds[tool], per_seed, strict=True))}
        if "base" in models:
            found[f"{tool} - base"] = _intervals(scores - table_of([models["base"]], measure)[0], weights)
    if both := sorted({*seeds["fledge"]} & {*seeds["peft"]}):
        ours, weights = table_of([models[f"seed-{seed}-fledge"] for seed in both], measure)
        theirs, _ = table_of([models[f"seed-{seed}-peft"] for seed in both], measure)
        found["fledge - peft"] = _intervals(ours - theirs, weights)
    return found


def _intervals(scores: np.ndarray, weights: np.ndarray) -> dict:
    """The mean with its interval over rows and seeds, and over rows alone."""
    num_seeds, num_rows = scores.shape
    over_both = draws(num_rows, num_seeds)
    over_rows = draws(num_rows, num_seeds, draws_seeds=False)
    return asdict(interval(scores, weights, over_both)) | {"over_rows": asdict(interval(scores, weights, over_rows))}


def _same_trainings(folder: Path) -> dict[str, dict]:
    """How alike the two tools' trainings were, seed by seed, as far as both are done."""
    from safetensors.numpy import load_file

    found = {}
    for steps_file in sorted(folder.glob("seed-*-peft/steps.json")):
        seed = steps_file.parent.name.split("-")[1]
        run = folder / f"seed-{seed}-fledge" / "run"
        if not (run / "summary.json").exists():
            continue
        theirs = json.loads(steps_file.read_text())["steps"]
        ours = _fledge_steps(run / "events.jsonl")
        counts = [[(step["tokens"], step["supervised_tokens"]) for step in steps] for steps in (ours, theirs)]
        if [pair[1] for pair in counts[0]] != [pair[1] for pair in counts[1]]:
            raise SystemExit(f"{folder.name}, seed {seed}: the two tools did not train the same tokens in each step")
        apart = [abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True)]
        starts = [
            load_file(file / "adapter_model.safetensors")
            for file in (run / "checkpoints" / "step-0" / "adapter", steps_file.parent / "start")
        ]
        assert starts[0].keys() == starts[1].keys()
        found[seed] = {
            "steps": len(ours),
            "same_tokens": counts[0] == counts[1],
            "start_distance": max(float(np.abs(starts[0][key] - starts[1][key]).max()) for key in starts[0]),
            "largest_loss_distance": max(apart),
            "mean_loss_distance": sum(apart) / len(apart),
            "fledge_losses": [step["loss"] for step in ours],
            "peft_losses": [step["loss"] for step in theirs],
        }
    return found


def _fledge_steps(events: Path) -> list[dict]:
    """The steps of a run; of a step that ran twice the last event counts."""
    steps = {}
    for line in events.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            steps[event["step"]] = event
    return [steps[number] for number in sorted(steps)]


def _same_answers(models: dict[str, dict]) -> dict[int, float]:
    """The share of rows that both tools' models of a seed answer with the same text."""
    found = {}
    for seed in sorted(_seeds(models, "fledge") & _seeds(models, "peft")):
        ours, theirs = (models[f"seed-{seed}-{tool}"]["rows"] for tool in ("fledge", "peft"))
        found[seed] = sum(digest_of(a) == digest_of(b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
    return found


def _number(measure: str, value: float, *, is_difference: bool = False) -> str:
    scale, digits = (1, 4) if measure == "loss" else (100, 1)
    return f"{value * scale:{'+' if is_difference else ''}.{digits}f}"


def _difference(measure: str, found: dict | None) -> str:
    if found is None:
        return "-"
    mean, low, high = (_number(measure, found[key], is_difference=True) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _seed_list(measure: str, found: dict | None) -> str:
    if found is None:
        return "-"
    return f"{_number(measure, found['mean'])} ({', '.join(_number(measure, one) for one in found['seeds'].values())})"


def _long_table(task: str, found: dict[str, dict], details: dict) -> str:
    columns = ("fledge - base", "peft - base", "fledge - peft")
    lines = [
        f"| {task} | base | Fledge (each seed) | peft (each seed) | Fledge - base | peft - base | Fledge - peft |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for measure, models in found.items():
        base = _number(measure, models["base"]["mean"]) if "base" in models else "-"
        tuned = [_seed_list(measure, models.get(tool)) for tool in ("fledge", "peft")]
        cells = [base, *tuned, *(_difference(measure, models.get(column)) for column in columns)]
        lines.append(f"| {NAMES[measure]} | {' | '.join(cells)} |")
    lines += [_alike(seed, same, details["same_answers"]) for seed, same in details["same_training"].items()]
    cut = ", ".join(f"{name} {number}" for name, number in details["cut_answers"].items() if number)
    lines.append(f"\nAnswers cut for their length: {cut or 'none'}.")
    return "\n".join(lines)


def _alike(seed: str, same: dict, same_answers: dict[int, float]) -> str:
    """A line about how alike the two trainings from one seed were."""
    losses = f"{same['largest_loss_distance']:.1e} ({same['mean_loss_distance']:.1e} on average)"
    text = f"\nSeed {seed}: {same['steps']} steps, the same trained tokens in each; "
    text += f"A's start {same['start_distance']:.1e} apart at most, a step's loss {losses}"
    answers = same_answers.get(int(seed))
    return f"{text}." if answers is None else f"{text}; {answers:.0%} of the answers are the same text."


def _short_table(summaries: dict[str, dict[str, dict]]) -> str:
    lines = [
        "| held-out rows | base | peft | Fledge | Fledge - base | Fledge - peft |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task, found in summaries.items():
        for measure in IN_README[task]:
            models = found[measure]
            means = [
                _number(measure, models[name]["mean"]) if name in models else "-" for name in ("base", "peft", "fledge")
            ]
            differences = [_difference(measure, models.get(name)) for name in ("fledge - base", "fledge - peft")]
            lines.append(f"| {task}: {NAMES[measure]} | {' | '.join([*means, *differences])} |")
    return "\n".join(lines)
