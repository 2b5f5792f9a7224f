"""`fledge train RECIPE [key=value ...]`: the main job."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fledge.cli.options import AsJson
from fledge.cli.show import as_points, echo, is_first_rank, show_json, show_pairs
from fledge.errors import FledgeError

if TYPE_CHECKING:
    from fledge.config.recipe import Recipe


def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options to set.")] = None,
    nproc: Annotated[int, typer.Option("--nproc", min=1, help="Number of processes on this machine.")] = 1,
    base_path: Annotated[
        Path | None,
        typer.Option(
            "--base-path",
            metavar="FOLDER",
            help="Where the base of a run that has begun lies now; it must be the same base.",
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run the Python code that comes with the base; read it before."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train the adapter that RECIPE describes, or go on where its run folder stopped; a finished run is left alone."""
    settings, loaded = _checked(recipe, overrides or (), base_path=base_path, trust_remote_code=trust_remote_code)
    if nproc > 1 and sys.platform == "win32":
        what, cure = "several processes of one training need Linux or macOS", "run it in WSL, or without --nproc"
        raise FledgeError(what, where="--nproc", cure=cure)
    if nproc > 1:
        from fledge.commands.ranks import run_on_ranks

        flags = (["--base-path", str(base_path)] if base_path else []) + (["--json"] if as_json else [])
        raise typer.Exit(run_on_ranks(["train", str(recipe), *settings, *flags], num_ranks=nproc))

    from fledge.commands.console import console
    from fledge.commands.train import train

    with console() as screen:
        result = train(loaded, base_path=base_path, observers=[screen], on_prepare=screen.preparing)
    if not is_first_rank():
        return
    if as_json:
        show_json(result)
        return
    if result.was_finished:
        echo(f"this run is finished; nothing was done{f' ({result.note})' if result.note else ''}")
    show_pairs(_lines(result.run, result.summary))


def _checked(
    path: Path, overrides: Sequence[str], *, base_path: Path | None, trust_remote_code: bool
) -> "tuple[list[str], Recipe]":
    """The settings and the recipe, all that is wrong with them told before anything heavy is loaded."""
    from fledge.commands.base_path import with_base_path
    from fledge.commands.consent import check_recipe, with_consent
    from fledge.commands.extras import check_extras
    from fledge.commands.moved_run import check_moved_run
    from fledge.commands.ownership import check_owned
    from fledge.config.load import load_recipe

    settings = with_consent(overrides, trust_remote_code=trust_remote_code)
    recipe = load_recipe(path, with_base_path(settings, base_path))
    check_recipe(recipe, path=path, overrides=settings)
    check_moved_run(recipe, path=path, overrides=settings)
    check_extras(recipe)
    if is_first_rank():  # the others may find what the first one has just written
        check_owned(recipe, base_path=base_path)
    return settings, recipe


def _lines(run: Path, summary: dict[str, Any]) -> dict[str, str]:
    from fledge.units import format_count, format_seconds

    lines = {"run folder": str(run), "steps": f"{summary['steps']:,}"}
    if summary.get("stopped_early"):
        lines["stopped early"] = "no better validation loss for as long as the recipe waits"
    if summary["first_loss"] is not None:
        lines["loss"] = f"{summary['first_loss']:.4f} at first, {summary['last_loss']:.4f} at last"
    if summary["validation_loss"] is not None:
        lines["validation loss"] = f"{summary['validation_loss']:.4f}"
    if summary.get("exact_match_after") is not None:
        before, after = summary["exact_match_before"], summary["exact_match_after"]
        lines["exact match"] = f"{before:.1%} before, {after:.1%} after"
    if summary.get("rows_with_several_references"):
        count, means = summary["rows_with_several_references"], summary.get("exact_match_mean_after")
        lines["references"] = f"{count:,} rows have several: the best counts" + (
            "" if means is None else f"; mean of all {summary['exact_match_mean_before']:.1%} before, {means:.1%} after"
        )
    if summary.get("cut_answers_before") or summary.get("cut_answers_after"):
        before, after = summary["cut_answers_before"], summary["cut_answers_after"]
        lines["answers cut"] = f"{before:,} before, {after:,} after, of {summary['answered']:,}"
    for name, mean in summary.get("rouge_after", {}).items():
        before = 100 * summary["rouge_before"][name]
        lines[name] = f"{before:.1f} before, {as_points(mean, summary['rouge_intervals']['after'][name])} after"
    if summary["tokens_per_second"] is not None:
        lines["tokens per second"] = format_count(summary["tokens_per_second"])
    lines["training time"] = format_seconds(summary["wall_seconds"])
    lines["peak memory"] = _peak(summary)
    step = summary.get("adapter_step", summary["steps"])
    lines["adapter"] = f"{run / 'adapter'}" + (f", of step {step:,}, the best" if step != summary["steps"] else "")
    return lines


def _peak(summary: dict[str, Any]) -> str:
    """The peak of the run, and of each phase of its last start."""
    from fledge.units import format_bytes

    peaks = {name: phase["peak_memory_bytes"] for name, phase in summary.get("phases", {}).items()}
    by_phase = ", ".join(f"{name} {format_bytes(peak)}" for name, peak in peaks.items() if peak is not None)
    return format_bytes(summary["peak_memory_bytes"]) + (f": {by_phase}" if by_phase else "")
