"""How an answer is drawn, as the command line says it: an option that would have no effect is refused."""

from fledge.errors import FledgeError

_TOP_P, _SEED = 1.0, 0


def drawn(temperature: float, *, top_p: float | None, seed: int | None) -> tuple[float, float, int]:
    """Temperature, top_p and seed, those that are not given by their defaults.

    Raises FledgeError for a top_p or a seed where nothing is drawn.
    """
    given = [name for name, value in (("--top-p", top_p), ("--seed", seed)) if value is not None]
    if given and temperature == 0:
        named = " and ".join(given)
        what = f"{named} would have no effect: at temperature 0 the likeliest token is always taken"
        raise FledgeError(what, where=given[0], cure=f"add --temperature above 0, or leave {named} out")
    return temperature, _TOP_P if top_p is None else top_p, _SEED if seed is None else seed
