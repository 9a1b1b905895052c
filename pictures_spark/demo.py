"""The whole house on the synthetic archive, in one process and one Spark session."""

from importlib import import_module
from pathlib import Path

from pictures_spark.cli import JOBS
from pictures_spark.config import Config
from pictures_spark.doctor import init_keys
from pictures_spark.errors import ConfigError
from pictures_spark.job import run_job
from pictures_spark.report import Report, progress
from pictures_spark.resources import conf_dir

COHORT = "ct-head-older-anticoagulated"
PROJECT = "demo"


def question() -> Path:
    """The demo's cohort question.

    Raises
    ------
    ConfigError
        The examples are not there: they come with the source tree, not with an installed package.
    """
    path = conf_dir().parent / "examples" / "cohorts" / f"{COHORT}.yaml"
    if not path.is_file():
        raise ConfigError(f"examples/cohorts/{COHORT}.yaml is not there: run the demo in a copy of the source, as the README says")
    return path


def run(config: Config) -> list[Report]:
    """Run every job in order and print one table in which each line adds up; again: quick, and nothing changes."""
    asked = question()
    init_keys(config)
    reports = []
    for number, job in enumerate(JOBS, start=1):
        progress(f"{number} of {len(JOBS) + 2}: {job.name}, {job.help}")
        reports.append(run_job(job.name, config, job.role, import_module(job.module).run))
    freeze = import_module("pictures_spark.cohort.commands").freeze
    # Exact counts where the settings let anybody see them; the demo runs without, too.
    role = "data_manager" if config.values.get("readers", {}).get("data_manager") else None
    reader = import_module("pictures_spark.readers").reader(config, role, "demo on synthetic people", PROJECT if role else None)
    extract = import_module("pictures_spark.delivery.extract").run
    progress(f"{len(JOBS) + 1} of {len(JOBS) + 2}: select, freeze the cohort {COHORT}")
    reports.append(run_job("select", config, "deidentified", lambda job: freeze(job, asked, reader)))
    progress(f"{len(JOBS) + 2} of {len(JOBS) + 2}: extract, deliver it to project {PROJECT}")
    reports.append(run_job("extract", config, "extractor", lambda job: extract(job, COHORT), PROJECT))
    print("\n".join(summary(reports)))
    delivery = Path(config.location(config["zones"]["projects"])) / PROJECT / COHORT
    print(f"\nOpen next: {delivery / 'README.md'}, then notebooks/01_open_a_package.ipynb, which reads that delivery.")
    return reports


def summary(reports: list[Report]) -> list[str]:
    """One line per job: seen = written + unchanged + quarantined + skipped."""
    lines = [f"\n{'job':<10} {'seen':>8}   {'written':>8}   {'unchanged':>9}   {'quarantined':>11}   {'skipped':>8}   {'seconds':>7}"]
    for report in reports:
        skipped = sum(count for name, count in report.counts.items() if name.startswith("skipped_"))
        seen, written, unchanged, quarantined = (report.counts.get(name, 0) for name in ("seen", "written", "unchanged", "quarantined"))
        lines.append(
            f"{report.job:<10} {seen:>8,} = {written:>8,} + {unchanged:>9,} + {quarantined:>11,} + {skipped:>8,}"
            f"   {report.details.get('seconds', 0):>7}"
        )
    return lines
