"""What a recipe names, found: local paths made absolute from the recipe's folder, hub ids checked by their form."""

import glob
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from fledge.config.adapter_file import adapter_in, base_named_by, is_adapter_folder
from fledge.config.document import Document, Key
from fledge.config.nearest import nearest_name
from fledge.errors import Problem

BUILTIN_BASES = ("nestling",)
CHAT_TEMPLATES = ("chatml",)
DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".parquet", ".arrow", ".txt", ".md")
"""What a data file's name may end with; those of text also with .gz."""

_OTHER_FILES = (
    ".tsv",
    ".xlsx",
    ".xls",
    ".ods",
    ".pdf",
    ".docx",
    ".doc",
    ".html",
    ".xml",
    ".zip",
    ".arrow",
    ".pkl",
    ".yaml",
)
"""Endings of files that no hub id has."""
_WEIGHTS = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_HUB_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?([\w.-]+(?:/[\w.-]+)?)(?:/.*)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
_LOCAL_STARTS = ("/", "~", "./", "../")


def is_local(text: str) -> bool:
    """Whether a source's path cannot be a hub id, by its form alone: anything else is local only where it exists."""
    is_data_file = text.lower().removesuffix(".gz").endswith((*DATA_SUFFIXES, *_OTHER_FILES, "/"))
    if "://" in text:
        return False
    return glob.has_magic(text) or text.startswith(_LOCAL_STARTS) or is_data_file


class Resolver:
    """Resolves the paths of one recipe in place, and keeps what it could not find in `problems`."""

    def __init__(self, document: Document, recipe: Path) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._folder = Path(os.path.normpath(Path.cwd() / recipe)).parent
        self._default_run = self._folder / "runs" / recipe.stem

    def resolve(self) -> None:
        """Look at every key that names a file or a hub id; values of a wrong type are left to the type check."""
        tree = self._document.tree
        self._replace(tree.get("model"), ("model", "name_or_path"), self._base)
        data = tree.get("data")
        if isinstance(data, dict):
            for name in ("train", "validation", "test"):
                self._sources(data.get(name), ("data", name))
            self._replace(data, ("data", "chat_template"), self._chat_template)
        output = tree.setdefault("output", {})
        if isinstance(output, dict):
            if output.get("dir", "") == "":
                output["dir"] = str(self._default_run)
            self._replace(output, ("output", "dir"), self._run_folder)
        self._replace(tree.get("lora"), ("lora", "init_from"), self._start)

    def _sources(self, value: Any, key: Key) -> None:
        parts = [((*key, i), part) for i, part in enumerate(value)] if isinstance(value, tuple) else [(key, value)]
        for part_key, part in parts:
            self._replace(part, (*part_key, "path"), self._source)

    def _replace(self, section: Any, key: Key, resolve: Any) -> None:
        value = section.get(key[-1]) if isinstance(section, dict) else None
        if not isinstance(value, str) or not value:
            return
        if any(unicodedata.category(char) == "Cc" for char in value):
            self._complain(f"{value[:60]!r} holds a control character", key, "remove it")
            return
        try:
            section[key[-1]] = resolve(value, key)
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a home that is not there, a bad glob
            self._complain(f"{value[:60]!r} cannot be looked up: {error}", key)

    def _absolute(self, text: str) -> Path:
        return Path(os.path.normpath(self._folder / Path(text).expanduser()))

    def _source(self, text: str, key: Key) -> str:
        path = self._absolute(text)
        if path.exists():
            return str(path)
        if glob.has_magic(text):
            if any("**" in part and part != "**" for part in Path(text).parts):
                cure = f"** stands alone between slashes: {text.replace('**', '**/*')}"
                self._complain(f"{text} is no glob", key, cure)
                return text
            pattern = os.path.normpath(Path(glob.escape(str(self._folder))) / Path(text).expanduser())
            if not any(Path("/").glob(pattern.lstrip("/"))):
                self._missing(f"no file matches {text}", key, path)
            return pattern
        if is_local(text):
            self._missing(f"there is no {text}", key, path)
            return str(path)
        return self._hub_id(text, key)

    def _base(self, text: str, key: Key) -> str:
        if text.startswith("builtin:"):
            name = text.removeprefix("builtin:")
            if name not in BUILTIN_BASES:
                cure = f"there is: {', '.join(f'builtin:{known}' for known in BUILTIN_BASES)}"
                self._complain(f"there is no built-in base {name}", key, cure)
            return text
        path = self._absolute(text)
        if not path.exists() and text.lower().endswith(_WEIGHTS):
            self._missing(f"there is no {text}", key, path)
            return text
        if not path.exists() and not text.startswith(_LOCAL_STARTS) and not text.endswith("/"):
            return self._hub_id(text, key)
        if not path.exists():
            self._missing(f"there is no {text}", key, path)
        elif not (path / "config.json").is_file() and is_adapter_folder(adapter_in(path)):
            what = f"{text} is {'an adapter' if is_adapter_folder(path) else 'a run folder'}, not a base"
            self._complain(what, key, _cure_of_adapter(path))
        elif not (path / "config.json").is_file():
            what = f"{text} holds no config.json" if path.is_dir() else f"{text} is a file"
            self._complain(what, key, _base_cure(path))
        return str(path)

    def _cure_of_move(self) -> str:
        """What helps where the base is gone of a run that has begun; empty where there is no run."""
        output = self._document.tree.get("output")
        named = output.get("dir") if isinstance(output, dict) else None
        places = [self._folder, self._absolute(named) if isinstance(named, str) and named else self._default_run]
        run = next((place for place in places if (place / "manifest.json").is_file()), None)
        return f"if the base of the run in {run} was moved, add --base-path FOLDER: where it lies now" if run else ""

    def _chat_template(self, text: str, key: Key) -> str:
        if text in CHAT_TEMPLATES:
            return text
        path = self._absolute(text)
        if "{%" in text or "{{" in text:
            self._complain("this is a chat template, not a file", key, "write it into a file, and give the file's path")
        elif not path.is_file():
            cure = "remove it to use the base's own chat template, or give chatml or a Jinja file"
            self._missing(f"there is no file {text}", key, path, other=CHAT_TEMPLATES, otherwise=cure)
        return str(path)

    def _run_folder(self, text: str, key: Key) -> str:
        path = existing = self._absolute(text)
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            self._complain(f"{existing} is a file, so no run folder can be there", key, "choose another output.dir")
        elif not os.access(existing, os.W_OK | os.X_OK):
            self._complain(f"the folder {existing} cannot be written", key, "choose another output.dir")
        return str(path)

    def _start(self, text: str, key: Key) -> str:
        """A folder that is gone is told later, where the run that started from it has not gone further either."""
        path = self._absolute(text)
        output = self._document.tree.get("output")
        here = output.get("dir") if isinstance(output, dict) else None
        if path.is_file():
            self._complain(f"{text} is a file", key, f"write {path.parent}, the folder of the adapter")
        elif not path.is_dir() and not (isinstance(here, str) and (Path(here) / "recipe.yaml").is_file()):
            is_id = bool(_HUB_ID.fullmatch(text)) and "/" in text and not text.startswith(_LOCAL_STARTS)
            fetch = f"an adapter on a hub is fetched first: `hf download {text} --local-dir FOLDER`, and give FOLDER"
            self._missing(f"there is no {text}", key, path, otherwise=fetch if is_id else "")
        return str(path)

    def _hub_id(self, text: str, key: Key) -> str:
        if not _HUB_ID.fullmatch(text) or ".." in text or "--" in text:
            self._complain(f"{text!r} is neither an existing path nor a hub id", key, _id_cure(text))
        return text

    def _missing(self, what: str, key: Key, path: Path, *, other: tuple[str, ...] = (), otherwise: str = "") -> None:
        """Complain about a path that does not exist, with the nearest one that does, or `otherwise` what to do."""
        moved = self._cure_of_move() if key == ("model", "name_or_path") else ""
        while not path.parent.is_dir():
            path = path.parent
        parent = path.parent
        names = [*other, *sorted(entry.name for entry in parent.iterdir())] if os.access(parent, os.R_OK) else []
        nearest = nearest_name(path.name, names)
        near = os.path.relpath(parent / nearest, self._folder) if nearest and nearest not in other else nearest
        start = f"relative paths start from {self._folder}"
        cure = f"did you mean {near}? ({start})" if near else otherwise or start
        self._complain(what, key, f"{moved}; or: {cure}" if moved else cure)

    def _complain(self, what: str, key: Key, cure: str = "") -> None:
        self.problems.append(Problem(what, self._document.where(key), cure))


def _id_cure(text: str) -> str:
    """What to write for a text that is no hub id and no path."""
    address = _HUB_ADDRESS.fullmatch(text.strip())
    name = address[1] if address else text.strip()
    if name != text and _HUB_ID.fullmatch(name):
        return f"write {name}"
    if "://" in text:
        return "fetch the file yourself, and give its path"
    return "a hub id is NAME or OWNER/NAME; a local path starts with ./ ../ ~ or /"


def _cure_of_adapter(path: Path) -> str:
    """Where an adapter belongs that was given as the base."""
    base = base_named_by(adapter_in(path))
    here = f"set model.name_or_path to {base}, its base" if base else "set model.name_or_path to its base"
    return f"{here}; to train the adapter on, write lora.init_from: {path} too"


def _base_cure(path: Path) -> str:
    """What to give instead of a path that is there and holds no base."""
    if path.is_file() and (path.parent / "config.json").is_file():
        return f"write {path.parent}, the folder of the model"
    if path.is_dir():
        inside = sorted(each.parent for each in path.glob("*/config.json"))
        if inside:
            return f"did you mean {inside[0]}?"
    if path.suffix == ".gguf":
        return "a GGUF file cannot be trained: give the folder or hub id of the model that it was made from"
    return "give the folder of a model: config.json, weights, tokenizer"
