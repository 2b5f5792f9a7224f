"""Fledge: LoRA fine-tuning that proves what it did.

The verbs of the command line are functions here. Each takes plain values, prints nothing, returns a frozen value, and
raises FledgeError with what is wrong, where, and what to do about it.

    from fledge import chat, evaluate, export, generate, load_recipe, train

    result = train(load_recipe("recipe.yaml", ["train.num_epochs=1"]))
    evaluate(result.run).tuned.loss
    generate(result.run, "Name three birds.").text
    export(result.run, "merged", to="hf").certificate

load_recipe(path, overrides)    a Recipe from its file, with settings `key.path=value` put over it
train(recipe)                   trains, or goes on where the run folder stopped -> TrainResult
evaluate(run, question)         loss, perplexity, exact answers and ROUGE, base and tuned Measured alike -> Evaluation
generate(run, prompt)           one answer -> Generated
chat(run)                       a Conversation, whose `say` streams
export(run, out, to)            an adapter or a merged model, proven before it counts -> Exported
verify(export, run)             a finished export, proven again -> Verified
push(run, repo)                 a certified export on a model hub, with a model card -> Pushed
                                of these, all but push take an adapter's folder as run too
import_recipe(file, out)        another tool's configuration as a recipe -> Imported
write_recipe(path)              a commented recipe to start from, which is `fledge init`
recipe_schema()                 the recipe's JSON Schema
examine()                       what is on this machine, which is `fledge doctor` -> Findings
Prompt, Question, Sampling, Parcel, Address, Opening, Extras
                                what these take besides plain values

What takes a run takes `opening=Opening(which, trust_remote_code, base_path, recipe)` too: the last adapter or the best,
leave to run code of its base's own, where its base lies now, and for an adapter's folder the recipe that goes with it.
train takes `base_path` alone, for a run that has begun.

Importing this package imports nothing heavy; each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fledge.places import settle_home

if TYPE_CHECKING:
    from fledge.commands.chat import Conversation, chat
    from fledge.commands.doctor import Findings, examine
    from fledge.commands.evaluate import Evaluation, Measured, Question, evaluate
    from fledge.commands.export import Exported, Extras, export
    from fledge.commands.generate import Generated, Prompt, Sampling, generate
    from fledge.commands.import_recipe import import_recipe
    from fledge.commands.init import write_recipe
    from fledge.commands.opening import Opening
    from fledge.commands.push import Address, Parcel, Pushed, push
    from fledge.commands.train import TrainResult, train
    from fledge.commands.verify import Verified, verify
    from fledge.config.imports import Imported
    from fledge.config.load import load_recipe
    from fledge.config.recipe import Recipe
    from fledge.config.schema import recipe_schema
    from fledge.errors import FledgeError

_HOMES = {
    "Recipe": "fledge.config.recipe",
    "load_recipe": "fledge.config.load",
    "FledgeError": "fledge.errors",
    "train": "fledge.commands.train",
    "TrainResult": "fledge.commands.train",
    "evaluate": "fledge.commands.evaluate",
    "Evaluation": "fledge.commands.evaluate",
    "Measured": "fledge.commands.evaluate",
    "Question": "fledge.commands.evaluate",
    "generate": "fledge.commands.generate",
    "Generated": "fledge.commands.generate",
    "Prompt": "fledge.commands.generate",
    "Sampling": "fledge.commands.generate",
    "chat": "fledge.commands.chat",
    "Conversation": "fledge.commands.chat",
    "export": "fledge.commands.export",
    "Exported": "fledge.commands.export",
    "Extras": "fledge.commands.export",
    "verify": "fledge.commands.verify",
    "Verified": "fledge.commands.verify",
    "Opening": "fledge.commands.opening",
    "push": "fledge.commands.push",
    "Pushed": "fledge.commands.push",
    "Parcel": "fledge.commands.push",
    "Address": "fledge.commands.push",
    "examine": "fledge.commands.doctor",
    "Findings": "fledge.commands.doctor",
    "write_recipe": "fledge.commands.init",
    "import_recipe": "fledge.commands.import_recipe",
    "Imported": "fledge.config.imports",
    "recipe_schema": "fledge.config.schema",
}

__all__ = [
    "Address",
    "Conversation",
    "Evaluation",
    "Exported",
    "Extras",
    "Findings",
    "FledgeError",
    "Generated",
    "Imported",
    "Measured",
    "Opening",
    "Parcel",
    "Prompt",
    "Pushed",
    "Question",
    "Recipe",
    "Sampling",
    "TrainResult",
    "Verified",
    "chat",
    "evaluate",
    "examine",
    "export",
    "generate",
    "import_recipe",
    "load_recipe",
    "push",
    "recipe_schema",
    "train",
    "verify",
    "write_recipe",
]


def __getattr__(name: str) -> Any:
    """The public function or value called `name`, loaded now."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fledge' has no attribute {name!r}; there is {', '.join(__all__)}")
    settle_home()  # libraries look for theirs when they are imported
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
