"""What a recipe asks of the optional parts of Fledge, told before anything heavy loads."""

from fledge.config.recipe import Recipe
from fledge.observe.trackers import check_trackers


def check_extras(recipe: Recipe) -> None:
    """Raises ExtraError where the recipe names a tracker that is not installed. Imports none of them, nor torch."""
    check_trackers(recipe.output.trackers)
