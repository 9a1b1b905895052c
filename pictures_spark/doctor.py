"""Check the machine, and say what to do about whatever is wrong."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pictures_spark import jars
from pictures_spark.config import Config
from pictures_spark.errors import ChecksFailedError, PicturesError
from pictures_spark.keys import init_key, key_ref
from pictures_spark.mongo import mongodb
from pictures_spark.zones import Zones

PYTHONS = ((3, 11), (3, 12))
JAVA = 17


@dataclass(frozen=True)
class Finding:
    """One thing checked: what was found, and what to do where it is not well."""

    name: str
    found: str
    remedy: str | None = None


def check_python(running: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Python 3.11 or 3.12: pyspark and our pins were tried with no other."""
    found = ".".join(map(str, running))
    return Finding("Python", found, None if running in PYTHONS else "install Python 3.11 or 3.12 and run make again")


def check_java(home: str | None = None) -> Finding:
    """Java 17, as Spark would start it."""
    home = home if home is not None else os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else "java"
    remedy = f"install Java {JAVA} and put it first on PATH, or set JAVA_HOME to it"
    if shutil.which(program) is None:
        return Finding("Java", "not found", remedy)
    done = subprocess.run(
        [program, "-XX:-UsePerfData", "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=False
    )
    found = next((line.split("=")[1].strip() for line in done.stderr.splitlines() if "java.specification.version =" in line), "unknown")
    return Finding("Java", found, None if found == str(JAVA) else remedy)


def check_packages() -> Finding:
    """The packages whose versions must fit one another."""
    names = ("pyspark", "delta-spark", "pyarrow", "pydicom", "duckdb")
    return Finding("packages", ", ".join(f"{name} {version(name)}" for name in names))


def check_jars() -> Finding:
    """Every jar beside Spark's own, with the SHA-256 of conf/jars.yaml."""
    wrong = jars.damaged(jars.spark_jars_dir())
    if wrong:
        return Finding("jars", f"missing or damaged: {', '.join(wrong)}", "run make setup")
    return Finding("jars", f"{len(jars.declared_jars())} whole")


def check_zones(config: Config) -> Finding:
    """Each zone's root can be written where a role has to."""
    wrong = []
    for role, zone in (("synthesiser", "extracts"), ("identifiable", "identifiable"), ("publisher", "deidentified")):
        if not _writable(Zones(config, role).path(zone, mode="write")):
            wrong.append(zone)
    if not _writable(Zones(config, "extractor", "doctor").path("project", mode="write").parent):
        wrong.append("projects")
    if not _writable(Zones(config, "counter").path("governance", mode="append")):
        wrong.append("governance")
    remedy = "give this user write access to the zone roots of the settings file, or change them"
    return Finding("zones", f"not writable: {', '.join(wrong)}" if wrong else "writable", remedy if wrong else None)


def _writable(path: Path) -> bool:
    while not path.exists():
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK)


def check_keys(config: Config) -> Finding:
    """The pseudonymisation key is there, whole and private."""
    try:
        key_ref(Zones(config, "identifiable"), config["keys"]["key_id"], "deidentified").bytes()
    except PicturesError as error:
        return Finding("key", "not usable", str(error))
    return Finding("key", config["keys"]["key_id"])


def check_mongodb(config: Config) -> Finding:
    """The header store answers."""
    import pymongo
    from pymongo.errors import PyMongoError

    try:
        with mongodb(config, Zones(config, "identifiable")) as uri:
            client: pymongo.MongoClient = pymongo.MongoClient(uri, serverSelectionTimeoutMS=5000)
            with client:
                client.admin.command("ping")
    except PicturesError as error:
        return Finding("MongoDB", "no answer", str(error))
    except PyMongoError as error:
        # Not the message: it would quote the URI and its credentials.
        return Finding("MongoDB", f"no answer ({type(error).__name__})", "check the URI, the credentials and the network")
    return Finding("MongoDB", f"{config['mongodb']['mode']}, answers")


def examine(config: Config) -> list[Finding]:
    """Every check, in the order in which they depend on one another."""
    checks: list[Callable[[], Finding]] = [
        check_python,
        check_java,
        check_packages,
        check_jars,
        lambda: check_zones(config),
        lambda: check_keys(config),
        lambda: check_mongodb(config),
    ]
    return [check() for check in checks]


def run(config: Config) -> None:
    """Print what was found and what to do.

    Raises
    ------
    ChecksFailedError
        Something has to be done first.
    """
    findings = examine(config)
    for finding in findings:
        print(f"  {'ok' if finding.remedy is None else '!!'}  {finding.name:<9} {finding.found}")
        if finding.remedy is not None:
            print(f"      -> {finding.remedy}")
    bad = sum(finding.remedy is not None for finding in findings)
    if bad:
        raise ChecksFailedError(f"{bad} of {len(findings)} checks need something done; see the arrows above")


def init_keys(config: Config) -> None:
    """Make the pseudonymisation key where there is none."""
    made = init_key(Zones(config, "identifiable"), config["keys"]["key_id"])
    print(f"key {config['keys']['key_id']}: {'made; back it up inside the identifiable zone' if made else 'already there, untouched'}")
