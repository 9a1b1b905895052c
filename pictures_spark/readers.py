"""Who is asking, and whether they may see exact counts.

A role that a Safe Haven trusts with exact counts is listed in schemas/disclosure.yaml, the accounts that have it in the settings. It sees
them by saying what for, and that is written into the audit chain. Everybody else sees what the disclosure gate lets through, and names only
projects that the settings declare for the account: the gate tells a project so much and then no more.
"""

from dataclasses import dataclass

from pictures_spark.audit import account, plain_purpose
from pictures_spark.cohort.gate import policy
from pictures_spark.config import Config
from pictures_spark.errors import ConfigError, NotPermittedError
from pictures_spark.zones import PROJECT_NAME


@dataclass(frozen=True)
class Reader:
    """Somebody who reads counts: ``exact`` or through the gate. ``project`` is what they ask for, where they say so."""

    role: str
    exact: bool
    purpose: str | None = None
    project: str | None = None


ANALYST = Reader("analyst", exact=False)


def reader(config: Config, role: str | None = None, purpose: str | None = None, project: str | None = None) -> Reader:
    """The reader of a command.

    Parameters
    ----------
    role : one of those that see exact counts; None is anybody else.
    purpose : what exact counts are for.

    Raises
    ------
    ConfigError
        There is no such role; a trusted one says no purpose, or one that may not be written down; the project's name is not a plain one.
    NotPermittedError
        This account does not have the role, or may not name the project.
    """
    said = plain_purpose(purpose) if purpose is not None else None
    if project is not None and not PROJECT_NAME.match(project):
        raise ConfigError("a project's name is lower-case letters, digits, - and _, starting with a letter or digit")
    said_of = config.values.get("readers", {})
    if role is None:
        if project is not None and not _is_one_of(said_of.get("projects", {}).get(project, [])):
            raise NotPermittedError(
                f"project {project} is not one that this account may name in the settings (readers.projects): leave --project out, or ask "
                "a data manager to declare it"
            )
        return Reader(ANALYST.role, exact=False, purpose=said, project=project)
    if role not in policy().exact:
        raise ConfigError(f"no role {role!r} sees exact counts: leave --as out, or give {' or '.join(policy().exact)}")
    if not _is_one_of(said_of.get(role, [])):
        raise NotPermittedError(f"this account is not a {role} in the settings (readers.{role}): leave --as out to see gated counts")
    if said is None:
        raise ConfigError(f"a {role} sees exact counts and says what for: add --purpose TEXT, which is kept in the audit chain")
    return Reader(role, exact=True, purpose=said, project=project)


def _is_one_of(granted: list[str]) -> bool:
    """Whether accounts, or everybody, are this one."""
    return bool({account(), "*"} & set(granted))
