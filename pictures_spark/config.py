"""Settings files: read, validated against schemas/conf.yaml, all faults reported at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from pictures_spark.errors import ConfigError
from pictures_spark.resources import conf_dir, in_source_tree, load_schema, load_yaml


@dataclass(frozen=True)
class Config:
    """A validated settings file. Sections are plain dictionaries as declared in schemas/conf.yaml."""

    path: Path
    values: dict[str, Any]

    def __getitem__(self, section: str) -> Any:
        return self.values[section]

    @property
    def home(self) -> Path:
        """Folder that relative paths in the file start from."""
        return (self.path.parent / self.values["home"]).resolve()

    def location(self, value: str) -> str:
        """Make a root absolute: a URI stays as it is, a path starts from ``home``."""
        return value if "://" in value else str((self.home / value).resolve())


def load_config(path: str | Path | None = None) -> Config:
    """Read and validate a settings file; ``conf/local.yaml`` of the source tree, or below the current folder, where none is given.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, or does not follow schemas/conf.yaml; all faults in one message.
    """
    file = Path(path) if path is not None else _default()
    if not file.is_file():
        raise ConfigError(
            f"settings file {file} does not exist: give one with --conf-file; {conf_dir() / 'local.yaml'} is one to start from"
        )
    try:
        values = load_yaml(file)
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"settings file {file} cannot be read, or is not UTF-8 text") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise ConfigError(f"settings file {file} is not valid YAML{line}") from None
    validator = jsonschema.Draft202012Validator(load_schema("conf.yaml"))
    faults = [
        f"{'.'.join(map(str, error.absolute_path)) or 'top level'}: {error.message}"
        for error in sorted(validator.iter_errors(values), key=lambda e: list(map(str, e.absolute_path)))
    ]
    if not faults and values["mongodb"]["mode"] == "uri" and not {"uri_env", "uri_file"} & set(values["mongodb"]):
        faults.append("mongodb: mode uri needs uri_env or uri_file, where the URI is kept out of this file")
    if faults:
        raise ConfigError(f"settings file {file}: " + "; ".join(faults))
    return Config(file.resolve(), values)


def _default() -> Path:
    # An installed package ships its settings only as a template: data must never land beside the code.
    shipped = conf_dir() / "local.yaml"
    return shipped if in_source_tree() else Path("conf") / "local.yaml"
