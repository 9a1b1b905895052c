"""The zones, and who may touch them.

A zone is a storage root; a role is a row of schemas/roles.yaml. Every path a job opens comes from a :class:`Zones` object, which
refuses what its role does not allow. Runs on the driver; executors only ever get paths that were allowed here.
"""

import re
from pathlib import Path
from typing import Literal

from pictures_spark.config import Config
from pictures_spark.errors import ConfigError, ZoneViolationError
from pictures_spark.resources import load_schema
from pictures_spark.roots import Root, local_path, root_at

Mode = Literal["read", "write", "append"]
PROJECT_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")


class Zones:
    """Storage roots as one role may use them.

    Parameters
    ----------
    config : settings with the roots.
    role : a row of schemas/roles.yaml.
    project : the one project private zone of the job, for roles that have one.

    Raises
    ------
    ConfigError
        The role is not declared, a project is missing or its name is not a plain one.

    Examples
    --------
    >>> from pictures_spark.config import load_config
    >>> Zones(load_config(), "counter").path("identifiable", "keys")
    Traceback (most recent call last):
        ...
    pictures_spark.errors.ZoneViolationError: role counter may not read zone identifiable
    """

    def __init__(self, config: Config, role: str, project: str | None = None) -> None:
        roles = load_schema("roles.yaml")
        if role not in roles:
            raise ConfigError(f"role {role!r} is not declared in schemas/roles.yaml; it has {', '.join(roles)}")
        self.role = role
        self.project = project
        self._allowed: dict[str, list[Mode]] = roles[role]
        places = {"governance": "governance"} | config["zones"]
        self._roots = {zone: config.location(root) for zone, root in places.items()}
        self._remote = config.values.get("remote")
        if "project" in self._allowed:
            if project is None or not PROJECT_NAME.match(project):
                raise ConfigError("a project name is needed: lower-case letters, digits, - and _, starting with a letter or digit")
            self._roots["project"] = f"{self._roots['projects']}/{project}"
        del self._roots["projects"]
        self._roots["review"] = f"{self._roots['identifiable']}/review"

    def root(self, zone: str, mode: Mode = "read") -> str:
        """The zone's storage root as a path or URI.

        Raises
        ------
        ZoneViolationError
            The role may not use the zone in this mode.
        """
        if mode not in self._allowed.get(zone, []):
            raise ZoneViolationError(f"role {self.role} may not {mode} zone {zone}")
        return self._roots[zone]

    def path(self, zone: str, *parts: str, mode: Mode = "read") -> Path:
        """A path inside a zone on a local or mounted file system.

        Raises
        ------
        ZoneViolationError
            The role may not use the zone in this mode, or the path leaves the zone (``..`` or a symbolic link).
        ConfigError
            The zone's root is a remote URI.
        """
        root = self.root(zone, mode)
        root = local_path(root, f"zones.{zone}")
        if "://" in root:
            raise ConfigError(f"zone {zone} is at a {root.partition('://')[0]} URI; this step needs a local or mounted path")
        base = Path(root).resolve()
        path = base.joinpath(*parts)
        if not path.resolve().is_relative_to(base):
            raise ZoneViolationError(f"a path leaves zone {zone}: links and '..' out of a zone are refused")
        return path

    def archive(self) -> Root:
        """The archive's root, which may be remote, with the settings that it is reached by.

        Raises
        ------
        ZoneViolationError
            The role may not read the archive.
        ConfigError
            The root is a URI that cannot be one of an archive.
        """
        return root_at(self.root("archive"), self._remote)

    def table(self, zone: str, name: str, mode: Mode = "read") -> str:
        """Location of a Delta table, for Spark and DuckDB."""
        return f"{self.root(zone, mode)}/tables/{name}"
