"""What a base's files hold, noted once: a note that is no sha256 is not believed."""

import json

import pytest

from fledge.cache import cache_root
from fledge.models.files import content_of


@pytest.mark.parametrize("damage", ["", "no hash", None, 7])
def test_a_damaged_note_is_not_believed(tmp_path, own_cache, damage):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    whole = content_of([file])
    [note] = cache_root("digests").glob("*.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": damage}))
    assert content_of([file]) == whole
