"""The ``pictures`` command: every job and tool, one sentence per error, DESIGN's exit codes.

Each command names its role and the module whose ``run(job)`` does the work; nothing else happens here.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from pictures_spark import __version__
from pictures_spark.config import Config, load_config
from pictures_spark.errors import ConfigError, PicturesError
from pictures_spark.job import Job, run_job


@dataclass(frozen=True)
class Command:
    """One job of DESIGN section 1: ``module.run(job, **arguments)`` under a role."""

    name: str
    role: str
    module: str
    help: str


JOBS = (
    Command("synth", "synthesiser", "pictures_spark.synthetic.synth", "make the synthetic archive and record extracts"),
    Command("catalogue", "identifiable", "pictures_spark.dicom.catalogue", "read every header of the archive"),
    Command("pixels", "identifiable", "pictures_spark.pixels.job", "find burned-in text and measure images"),
    Command("records", "identifiable", "pictures_spark.records.load", "turn record extracts into typed events"),
    Command("link", "identifiable", "pictures_spark.linkage.link", "link images and records to people"),
    Command("publish", "publisher", "pictures_spark.deid.publish", "write the de-identified tables"),
)


_COHORT_ARGUMENTS = {
    "freeze": "id of a cohort (its newest freeze), or the first digits of a freeze, as `list` shows them",
    "other": "the other freeze, likewise",
    "manifest": "the same, or a file that `manifest` printed",
    "unit": "id of a patient, study, series or image",
}


class _Parser(argparse.ArgumentParser):
    """argparse that fails with our exit code for bad usage."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ConfigError.exit_code, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    shared = _Parser(add_help=False)
    shared.add_argument("--conf-file", default=None, metavar="FILE", help="settings file (default: conf/local.yaml)")
    parser = _Parser(prog="pictures", description="Cohorts of clinical images, linked to health records, delivered de-identified.")
    parser.add_argument("--version", action="version", version=f"pictures-spark {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for job in JOBS:
        sub = commands.add_parser(job.name, parents=[shared], help=job.help, description=job.help)
        if job.name == "synth":
            sub.add_argument(
                "--tables", type=_count, metavar="N", help="only a nation of N people as de-identified tables, with its answer key"
            )
            sub.add_argument("--extracts", type=_count, metavar="N", help="only the health records of a nation of N people, with the truth")
            sub.add_argument("--parquet", action="store_true", help="with --extracts: Parquet files instead of CSV")
            sub.add_argument("--images", action="store_true", help="with --extracts: also their scans as DICOM without pixels")
            sub.add_argument("--documents", action="store_true", help="with --extracts: also their scans' headers as MongoDB documents")
        if job.name == "catalogue":
            sub.add_argument("--limit", type=_count, metavar="N", help="read at most N files in this run; the rest is for the next")
            sub.add_argument("--dry-run", action="store_true", help="print what a run would do and how long it may take; write nothing")
        if job.name == "pixels":
            sub.add_argument(
                "--feature", action="append", default=[], metavar="NAME[@VERSION]", help="only this feature, and no text; may be repeated"
            )
            sub.add_argument(
                "--where", action="append", default=[], metavar="COLUMN=VALUE", help="only images whose header says so; may be repeated"
            )
            which = sub.add_mutually_exclusive_group()
            which.add_argument(
                "--audit", type=_count, metavar="N", help="examine nothing; write contact sheets of N clean images per modality and maker"
            )
            which.add_argument(
                "--layouts", action="store_true", help="examine nothing; propose places where devices write, with their evidence"
            )
            which.add_argument("--audited", action="store_true", help="examine nothing; print what the audit's filled list says")
        if job.name == "link":
            sub.add_argument(
                "--clerical-sample", type=_count, metavar="N", help="link nothing; write N headers that need review into the zone"
            )

    reading = _Parser(add_help=False)
    reading.add_argument("--as", dest="role", metavar="ROLE", help="coordinator or data_manager, to see exact counts; needs --purpose")
    reading.add_argument("--purpose", metavar="TEXT", help="what the counts are for, kept in the audit chain; name nobody in it")
    reading.add_argument("--project", metavar="NAME", help="project that they are for")
    cohort = commands.add_parser("cohort", help="ask, check, freeze, repeat and compare cohorts")
    actions = cohort.add_subparsers(dest="action", required=True, metavar="action")
    for action, text in (
        ("check", "validate a question and read it back in plain English"),
        ("count", "attrition of a question, answered by the embedded reader"),
        ("watch", "attrition again whenever the file is saved, for roles that see exact counts"),
        ("freeze", "write the cohort to the de-identified zone, by Spark"),
    ):
        parents = [shared] if action == "check" else [shared, reading]
        sub = actions.add_parser(action, parents=parents, help=text, description=text)
        sub.add_argument("question", metavar="FILE", help="cohort specification, YAML")
        if action == "count":
            sub.add_argument("--by", metavar="A[,B]", help="also people by modality, year, health_board, manufacturer, sex or age_band")
    actions.add_parser("list", parents=[shared], help="what is frozen")
    for action, arguments, text in (
        ("manifest", ["freeze"], "print what a freeze was made of, JSON"),
        ("replay", ["manifest"], "ask a frozen question again of the tables that it was asked of"),
        ("compare", ["freeze", "other"], "who entered and who left between two freezes, and why"),
        ("why", ["freeze", "unit"], "what each step says of one unit"),
    ):
        sub = actions.add_parser(action, parents=[shared, reading], help=text, description=text)
        for name in arguments:
            sub.add_argument(name, metavar=name.upper(), help=_COHORT_ARGUMENTS[name])

    audit = commands.add_parser("audit", help="what was read, frozen and delivered, by whom and what for")
    actions = audit.add_subparsers(dest="action", required=True, metavar="action")
    actions.add_parser("list", parents=[shared], help="every event, one a line, JSON")
    actions.add_parser("head", parents=[shared], help="number and hash of the newest event, to be written down elsewhere")
    sub = actions.add_parser("verify", parents=[shared], help="find any event that was changed, removed, inserted, moved or cut off")
    sub.add_argument("--head", action="append", default=[], metavar="HEAD", help="a head that was written down; may be given again")

    extract = commands.add_parser("extract", parents=[shared], help="deliver a frozen cohort, de-identified, to a project")
    extract.add_argument("cohort", help="id of a frozen cohort")
    extract.add_argument("--project", required=True, help="name of the project private zone")

    quarantine = commands.add_parser("quarantine", parents=[shared], help="what could not be used, and why")
    actions = quarantine.add_subparsers(dest="action", required=True, metavar="action")
    actions.add_parser("list", parents=[shared], help="count by job and reason, with attempts and what is waived")
    one = actions.add_parser("show", parents=[shared], help="show one object; this may print a path")
    one.add_argument("object_id", metavar="OBJECT_ID", help="as `catalogue` and `pixels` name it")
    for action, text in (
        ("retry", "have the next run of catalogue try objects again though they have not changed"),
        ("waive", "let objects stay listed without counting towards the limit, until they change"),
    ):
        sub = actions.add_parser(action, parents=[shared], help=text, description=text)
        which = sub.add_mutually_exclusive_group(required=action == "waive")
        which.add_argument("object_id", nargs="?", metavar="OBJECT_ID", help="this object")
        which.add_argument("--reason", metavar="R", help="all objects with this reason code")
        if action == "waive":
            sub.add_argument("--because", required=True, metavar="TEXT", help="why, kept with the row; name nobody in it")

    maintain = commands.add_parser("maintain", parents=[shared], help="compact a zone's tables and remove files that no version needs")
    maintain.add_argument("zone", choices=["identifiable", "deidentified"], help="whose tables")
    maintain.add_argument("--dry-run", action="store_true", help="print sizes only")

    mongo = commands.add_parser("mongo", help="header documents in MongoDB: compare, make anew, import")
    actions = mongo.add_subparsers(dest="action", required=True, metavar="action")
    for action, text in (
        ("verify", "compare counts and hashes of every collection with Delta"),
        ("rebuild", "make MongoDB what Delta says, from nothing or from whatever is there"),
        ("import", "read the header documents of SmiServices as a source"),
    ):
        sub = actions.add_parser(action, parents=[shared], help=text, description=text)
        if action == "import":
            sub.add_argument("database", help="database of SmiServices on the MongoDB of the settings")

    idc = commands.add_parser("import-idc", parents=[shared], help="the public series of the Imaging Data Commons, as tables")
    idc.add_argument("--events", type=_count, default=10_000_000, metavar="N", help="make at least N record events (10000000)")
    idc.add_argument("--times", type=_count, default=1, metavar="N", help="the catalogue N times over, each time with other people (1)")

    keys = commands.add_parser("keys", parents=[shared], help="make the pseudonymisation key")
    keys.add_argument("action", choices=["init"], help="make the key if there is none")

    deid = commands.add_parser("deid", help="read de-identification policies")
    actions = deid.add_subparsers(dest="action", required=True, metavar="action")
    for action, text in (
        ("explain", "what happens to an attribute, why, and who says so"),
        ("plan", "what happens to every attribute, tab-separated"),
        ("import-ctp", "a policy from a script of CTP's DICOM anonymizer, with what could not be carried"),
        ("inventory", "every text that is left in the images of a delivery, for review before it is handed over"),
        ("sign", "say that somebody has read these texts, for policies that leave free text"),
    ):
        sub = actions.add_parser(action, parents=[shared], help=text, description=text)
        if action == "import-ctp":
            sub.add_argument("script", metavar="FILE", help="the script, XML or lines")
        elif action in ("inventory", "sign"):
            sub.add_argument("cohort", help="id of a delivered cohort")
            sub.add_argument("--project", required=True, help="name of the project private zone")
            if action == "sign":
                sub.add_argument("--by", required=True, metavar="NAME", help="who has read them; kept in the identifiable zone")
        else:
            sub.add_argument("--policy", default="default", metavar="NAME", help="conf/deid/<NAME>.yaml (default: default)")
        if action == "explain":
            sub.add_argument("attribute", metavar="TAG", help="keyword, tag (0010,0010), 0019,xx0C,CREATOR, or a path with dots")

    commands.add_parser("demo", parents=[shared], help="run every job on the synthetic archive")
    commands.add_parser("doctor", parents=[shared], help="check this machine and say what to do")
    commands.add_parser("docs", help="write the generated pages of docs/")
    return parser


def run_command(arguments: argparse.Namespace, config: Config) -> None:
    """Do what a parsed command line says.

    Raises
    ------
    PicturesError
        What went wrong, in one sentence.
    """
    match arguments.command:
        case "catalogue":
            heart = _heart("pictures_spark.dicom.catalogue")
            if arguments.dry_run:
                import_module("pictures_spark.dicom.catalogue").print_preview(config, arguments.limit)
            else:
                run_job("catalogue", config, "identifiable", lambda job: heart(job, arguments.limit))
        case "pixels" if arguments.layouts:
            run_job("pixels-layouts", config, "identifiable", _heart("pictures_spark.pixels.layouts"))
        case "pixels" if arguments.audit or arguments.audited:
            audit = import_module("pictures_spark.pixels.audit")
            heart = audit.read if arguments.audited else lambda job: audit.draw(job, arguments.audit)
            run_job("pixels-audit", config, "identifiable", heart)
        case "pixels":
            heart = _heart("pictures_spark.pixels.job")
            asked = import_module("pictures_spark.pixels.job").choice(arguments.feature, arguments.where)
            run_job("pixels", config, "identifiable", lambda job: heart(job, asked))
        case "link" if arguments.clerical_sample:
            sample = import_module("pictures_spark.linkage.review").sample
            run_job("link-review", config, "identifiable", lambda job: sample(job, arguments.clerical_sample))
        case "cohort":
            _cohort(arguments, config)
        case "audit":
            heads = arguments.head if arguments.action == "verify" else []
            import_module("pictures_spark.audit").run(arguments.action, config, heads)
        case "extract":
            heart = _heart("pictures_spark.delivery.extract")
            run_job("extract", config, "extractor", lambda job: heart(job, arguments.cohort), arguments.project)
        case "mongo" if arguments.action == "import":
            heart = _heart("pictures_spark.dicom.imported")
            run_job("mongo-import", config, "identifiable", lambda job: heart(job, arguments.database))
        case "mongo":
            action = getattr(import_module("pictures_spark.dicom.parity"), arguments.action)
            run_job(f"mongo-{arguments.action}", config, "identifiable", action)
        case "synth" if not arguments.extracts and (arguments.parquet or arguments.images or arguments.documents):
            raise ConfigError("--parquet, --images and --documents say how the extracts of a nation are made: give --extracts N with them")
        case "synth" if arguments.tables and arguments.extracts:
            raise ConfigError("--tables and --extracts are two ways to make a nation: give one of them")
        case "synth" if arguments.tables:
            heart = _heart("pictures_spark.synthetic.nation_tables")
            run_job("synth-tables", config, "deidentified", lambda job: heart(job, arguments.tables))
        case "synth" if arguments.extracts:
            extracts = import_module("pictures_spark.synthetic.nation_extracts")
            wanted = extracts.Wanted("parquet" if arguments.parquet else "csv", arguments.images, arguments.documents)
            run_job("synth-extracts", config, "synthesiser", lambda job: extracts.run(job, arguments.extracts, wanted))
        case "import-idc":
            heart = _heart("pictures_spark.synthetic.idc")
            run_job("import-idc", config, "deidentified", lambda job: heart(job, arguments.events, arguments.times))
        case "quarantine":
            quarantine = import_module("pictures_spark.quarantine")
            match arguments.action:
                case "list":
                    quarantine.print_counts(config)
                case "show":
                    quarantine.show(config, arguments.object_id)
                case "retry":
                    quarantine.retry(config, arguments.object_id, arguments.reason)
                case "waive":
                    quarantine.waive(config, arguments.object_id, arguments.reason, arguments.because)
        case "maintain":
            import_module("pictures_spark.maintain").run(config, arguments.zone, arguments.dry_run)
        case "deid" if arguments.action == "inventory":
            import_module("pictures_spark.delivery.review").print_inventory(config, arguments.project, arguments.cohort)
        case "deid" if arguments.action == "sign":
            import_module("pictures_spark.delivery.review").sign(config, arguments.project, arguments.cohort, arguments.by)
        case "deid":
            explained = import_module("pictures_spark.deid.explain")
            match arguments.action:
                case "explain":
                    explained.print_explanation(arguments.policy, arguments.attribute)
                case "plan":
                    explained.print_plan(arguments.policy)
                case "import-ctp":
                    explained.print_import(arguments.script)
        case "keys":
            import_module("pictures_spark.doctor").init_keys(config)
        case "demo":
            import_module("pictures_spark.demo").run(config)
        case "doctor":
            import_module("pictures_spark.doctor").run(config)
        case name:
            job = next(job for job in JOBS if job.name == name)
            run_job(job.name, config, job.role, _heart(job.module))


def _cohort(arguments: argparse.Namespace, config: Config) -> None:
    if arguments.action == "check":
        import_module("pictures_spark.cohort.commands").run("check", arguments.question, config)
        return
    if arguments.action == "list":
        import_module("pictures_spark.cohort.explain").run("list", [], config)
        return
    reader = import_module("pictures_spark.readers").reader(config, arguments.role, arguments.purpose, arguments.project)
    if arguments.action == "watch":
        import_module("pictures_spark.cohort.watch").run(arguments.question, config, reader)
        return
    if arguments.action in ("count", "freeze"):
        by = tuple(arguments.by.split(",")) if arguments.action == "count" and arguments.by else ()
        import_module("pictures_spark.cohort.commands").run(arguments.action, arguments.question, config, reader, by)
        return
    names = [getattr(arguments, name) for name in ("freeze", "manifest", "other", "unit") if hasattr(arguments, name)]
    import_module("pictures_spark.cohort.explain").run(arguments.action, names, config, reader)


def _count(text: str) -> int:
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _heart(module: str) -> Callable[..., None]:
    run: Callable[..., None] = import_module(module).run
    return run


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "docs":
            import_module("pictures_spark.docs").write()
        else:
            run_command(arguments, load_config(arguments.conf_file))
    except PicturesError as error:
        print(f"pictures {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"pictures {arguments.command}: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except Exception as error:
        # A traceback could quote an input value, so only the class is named unless somebody asks.
        if os.environ.get("PICTURES_TRACEBACK") == "1":
            raise
        print(
            f"pictures {arguments.command}: unexpected {type(error).__name__}; this is a fault of ours. "
            "PICTURES_TRACEBACK=1 shows the details, which may hold identifiers: keep them in the identifiable zone",
            file=sys.stderr,
        )
        return 1
    return 0


__all__ = ["JOBS", "Job", "main", "run_command"]

if __name__ == "__main__":
    sys.exit(main())
