"""The floors' table is itself in order."""

from tests.house.floors import ALLOWED, AT_HOME
from tests.house.test_floors import SOURCE, complaint


def test_every_row_names_only_rooms_above_it() -> None:
    rooms = list(ALLOWED)
    for floor, (room, allowed) in enumerate(ALLOWED.items()):
        assert set(allowed.split()) <= set(rooms[:floor]), room


def test_every_library_is_at_home_in_rooms_that_have_a_floor() -> None:
    for library, rooms in AT_HOME.items():
        assert set(rooms.split()) <= set(ALLOWED), library


def test_every_room_on_disk_has_a_row() -> None:
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    assert rooms <= set(ALLOWED)


def test_the_rule_sees_what_it_must() -> None:
    assert complaint("fledge.commands.train.train", "config")
    assert complaint("torch", "config")
    assert complaint("torch.distributed.init", "training")
    assert complaint("requests", "data")
    assert not complaint("torch.nn", "ops")
    assert not complaint("json", "errors")
