"""Fetch the jars of conf/jars.yaml once, check each against its SHA-256, and put them beside Spark's own.

Uses the Ivy that ships inside Spark, with our ivysettings.xml and caches below the given folder, so that neither Maven nor anything
in the user's home takes part. Run by ``make``: ``python -m pictures_spark.jars .cache``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import quoteattr

from pictures_spark.errors import InputError, PicturesError
from pictures_spark.resources import conf_dir, load_yaml


def declared_jars() -> dict[str, str]:
    """File name -> SHA-256 of every jar of conf/jars.yaml."""
    jars = {}
    for entry in load_yaml(conf_dir() / "jars.yaml"):
        _, artifact, version = entry["coordinate"].split(":")
        jars[f"{artifact}-{version}.jar"] = entry["sha256"]
    return jars


def spark_jars_dir() -> Path:
    """Folder of Spark's own jars inside this Python environment."""
    import pyspark

    return Path(pyspark.__file__).parent / "jars"


def damaged(folder: Path) -> list[str]:
    """Names of declared jars that are missing from a folder or have another SHA-256."""
    return [
        name
        for name, sha256 in declared_jars().items()
        if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256
    ]


def install(cache: Path) -> None:
    """Make ``cache/jars`` whole and Spark's jars folder hold every jar.

    Raises
    ------
    InputError
        A jar cannot be had, or what came is not what conf/jars.yaml says.
    """
    jars = cache / "jars"
    if damaged(jars):
        _fetch(cache, jars)
        wrong = damaged(jars)
        if wrong:
            raise InputError(f"{', '.join(wrong)}: missing, or not the file that conf/jars.yaml names; check the network and try again")
    target = spark_jars_dir()
    for name in damaged(target):
        # Copy and rename: a kill in the middle leaves no half jar under its final name.
        part = target / f".{name}.part"
        shutil.copyfile(jars / name, part)
        part.replace(target / name)


def _fetch(cache: Path, jars: Path) -> None:
    shutil.rmtree(jars, ignore_errors=True)
    ivy_home = cache / "ivy"
    # A cache left by a killed download would be trusted by Ivy; start clean.
    shutil.rmtree(ivy_home, ignore_errors=True)
    ivy_home.mkdir(parents=True)
    dependencies = "".join(
        "<dependency org={} name={} rev={} conf='default->*' transitive='false'/>".format(*map(quoteattr, entry["coordinate"].split(":")))
        for entry in load_yaml(conf_dir() / "jars.yaml")
    )
    module = ivy_home / "ivy.xml"
    module.write_text(
        "<ivy-module version='2.0'><info organisation='pictures' module='jars'/>"
        f"<configurations><conf name='default'/></configurations><dependencies>{dependencies}</dependencies></ivy-module>"
    )
    ivy = next(iter(sorted(spark_jars_dir().glob("ivy-*.jar"))))
    command = [
        _java(),
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={ivy_home}",
        f"-Divy.default.ivy.user.dir={ivy_home}",
        *["-cp", str(ivy), "org.apache.ivy.Main"],
        *["-settings", str(conf_dir() / "ivysettings.xml"), "-ivy", str(module), "-cache", str(ivy_home / "cache")],
        *["-types", "jar", "-retrieve", f"{jars}/[artifact]-[revision].[ext]"],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (ivy_home / "resolve.log").write_text(done.stdout + done.stderr)
    shutil.rmtree(ivy_home / "cache", ignore_errors=True)
    if done.returncode:
        raise InputError(f"the jars of conf/jars.yaml could not be downloaded; details in {ivy_home / 'resolve.log'}")


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = Path(home) / "bin" / "java" if home else None
    return str(java) if java and java.is_file() else "java"


if __name__ == "__main__":
    try:
        install(Path(sys.argv[1]).resolve())
    except PicturesError as error:
        print(f"jars: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
