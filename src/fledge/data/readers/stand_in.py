"""What lies in the place of data, told by its first bytes: a pointer, a web page, a file under a wrong name."""

import re
import zipfile
from contextlib import suppress

from fledge.data.readers.find import SourceFile
from fledge.data.readers.suffixes import NEVER_GZIP
from fledge.errors import DataError

_LFS = b"version https://git-lfs.github.com/spec/"
_GZIP, _ZIP, _OLD_SHEET = b"\x1f\x8b", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_PACKED = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh91AY&SY": "bzip2"}
_TABLES = {"parquet": re.compile(rb"PAR1[\x00-\x08\x0e-\x1f]"), "arrow": re.compile(rb"ARROW1\x00\x00")}


def refuse_stand_in(head: bytes, file: SourceFile, *, is_unpacked: bool = False) -> None:
    """Raise DataError where a file that begins with these bytes holds something else than its name says.

    `is_unpacked` says that the bytes are those inside of the gzip that the file's name promises.
    """
    found = _stand_in(head, file, is_unpacked=is_unpacked)
    if found is not None:
        what, cure = found
        raise DataError(f"the file{' inside of the gzip' * is_unpacked} is {what}", where=str(file.path), cure=cure)


def _stand_in(head: bytes, file: SourceFile, *, is_unpacked: bool) -> tuple[str, str] | None:
    """What the file is instead, and the cure; None where it may be what its name says."""
    name = file.path.name
    if head.startswith(_LFS):
        cure = "fetch them: run `git lfs pull` in the repository that the file comes from, or download the file itself"
        return "a git-lfs pointer, not the data themselves", cure
    if file.kind != "txt" and head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML), not data", "download the data file itself, not the page that shows it"
    if head.startswith(_GZIP) and (is_unpacked or not file.is_gzip):
        is_nameable = file.kind not in NEVER_GZIP and not is_unpacked
        named = f", or name it {name}.gz" if is_nameable else ""
        return f"packed with gzip{' once more' * is_unpacked}", f"unpack it with gunzip{named}"
    if head.startswith(_ZIP) and file.kind != "xlsx":
        return _zipped(file)
    if head.startswith(_OLD_SHEET) and file.kind != "xlsx":
        return "an old spreadsheet (.xls), or one with a password", "save it as .xlsx without a password, or as .csv"
    packer = next((packer for mark, packer in _PACKED.items() if head.startswith(mark)), None)
    if packer is not None:
        return f"packed with {packer}", "unpack it and name the file that comes out"
    table = next((kind for kind, mark in _TABLES.items() if kind != file.kind and mark.match(head)), None)
    if table is not None:
        return f"{table}, whatever its name says", f"name it {_stem(file)}.{table}"
    return None


def _zipped(file: SourceFile) -> tuple[str, str]:
    names: list[str] = []
    with suppress(OSError, ValueError, zipfile.BadZipFile), zipfile.ZipFile(file.path) as archive:
        names = archive.namelist()
    if "xl/workbook.xml" in names:
        return "a spreadsheet (.xlsx), whatever its name says", f"name it {_stem(file)}.xlsx, or save it as .csv"
    return "a zip archive", "unpack it and name the file or folder inside"


def _stem(file: SourceFile) -> str:
    return file.path.name.split(".")[0] or "data"
