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
evaluate(run, question)         loss, perplexity and exact answers, base beside tuned -> Evaluation
generate(run, prompt)           one answer -> Generated
chat(run)                       a Conversation, whose `say` streams
export(run, out, to)            an adapter or a merged model, proven before it counts -> Exported
Prompt, Question, Sampling      what these take besides plain values

Importing this package imports nothing heavy; each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fledge.commands.chat import Conversation, chat
    from fledge.commands.evaluate import Evaluation, Measured, Question, evaluate
    from fledge.commands.export import Exported, export
    from fledge.commands.generate import Generated, Prompt, Sampling, generate
    from fledge.commands.train import TrainResult, train
    from fledge.config.load import load_recipe
    from fledge.config.recipe import Recipe
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
}

__all__ = [
    "Conversation",
    "Evaluation",
    "Exported",
    "FledgeError",
    "Generated",
    "Measured",
    "Prompt",
    "Question",
    "Recipe",
    "Sampling",
    "TrainResult",
    "chat",
    "evaluate",
    "export",
    "generate",
    "load_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    """The public function or value called `name`, loaded now."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fledge' has no attribute {name!r}; there is {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
