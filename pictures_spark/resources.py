"""Where schemas/ and conf/ are: beside the package in a source tree, inside it once installed."""

import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

_SOURCE_TREE = Path(__file__).resolve().parent.parent


def in_source_tree() -> bool:
    """Whether this is a source tree, and not an installed package."""
    return (_SOURCE_TREE / "setup.cfg").is_file()


@cache
def _root(folder: str) -> Path:
    if in_source_tree():
        return _SOURCE_TREE / folder
    return Path(str(files(f"pictures_spark.{folder}")))


def schemas_dir() -> Path:
    """The folder of all schemas."""
    return _root("schemas")


def conf_dir() -> Path:
    """The folder of the shipped settings."""
    return _root("conf")


@cache
def load_schema(name: str) -> Any:
    """Read one YAML file below schemas/, such as ``"vocabularies.yaml"``. Callers must not change what they get."""
    with (schemas_dir() / name).open(encoding="utf-8") as handle:
        return yaml.load(handle, Loader=_Loader)


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML in which ``no``, ``yes``, ``on`` and ``off`` stay text: contrast is "no", never False (DESIGN section 7)."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(?:true|false)$"),
    list("tf"),
)


def load_yaml(path: Path) -> Any:
    """Read a settings file with the same rules as the schemas."""
    with path.open(encoding="utf-8") as handle:
        return yaml.load(handle, Loader=_Loader)


@cache
def code_fingerprint() -> str:
    """SHA-256 over every file of the package, the schemas and the shipped settings, hex.

    Part of each run's fingerprint: other code means other results, so a finished run of older code is not reused.
    """
    digest = hashlib.sha256()
    roots = [Path(__file__).resolve().parent, schemas_dir()]
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
