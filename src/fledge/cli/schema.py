"""`fledge schema`: the recipe's JSON Schema."""

import json

from fledge.cli.options import AsJson
from fledge.cli.show import echo


def run(as_json: AsJson = False) -> None:
    """Print the recipe's JSON Schema. An editor that knows YAML takes it as the schema of your recipes."""
    from fledge.config.schema import recipe_schema

    echo(json.dumps(recipe_schema(), indent=None if as_json else 2))
