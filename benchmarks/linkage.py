"""How good and how fast linking is: precision and recall per rule against truth by construction, and a crosswalk from nothing.

    python benchmarks/linkage.py [--people 1000000] [--rounds 5] [--quality] [--folder .cache/benchmarks]

The people are those of pictures_spark/synthetic/identities.py, with 1.3 headers each and one record. Truth is who a header
was made from. With ``--quality`` one run at 10^5 people prints the tables of docs/linkage.md; without, `pictures link` is timed from no
crosswalk. Its peer is the least that could be called linking: a join of PatientID with the register in Spark, no check, no pseudonym, no
evidence, no history, written to Delta.
"""

import argparse
import math
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import measure
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pictures_spark import tables
from pictures_spark.config import Config, load_config
from pictures_spark.job import run_job
from pictures_spark.keys import init_key
from pictures_spark.linkage import evidence, history, link
from pictures_spark.resources import conf_dir, load_yaml
from pictures_spark.schema import table
from pictures_spark.session import open_session
from pictures_spark.synthetic import identities
from pictures_spark.zones import Zones

SEED = 6
BATCH = 50_000
# Probabilities that might be `link_from`.
THRESHOLDS = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def main() -> None:
    """Make the house, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int)
    parser.add_argument("--rounds", type=int, default=measure.ROUNDS)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    people = arguments.people or (100_000 if arguments.quality else 1_000_000)
    home = (arguments.folder / "linkage").resolve()
    config = house(home, people, SEED)
    if arguments.quality:
        run_job("link", config, "identifiable", link.run)
        print("\n".join(quality(config, home)))
    else:
        ours, peer = measure.alternate(lambda: from_nothing(config), lambda: plain_join(config, home), arguments.rounds)
        print(measure.line("linkage", people / ours * 60, people / peer * 60, "a join in Spark", "people a minute", people))
    shutil.rmtree(home, ignore_errors=True)


def house(home: Path, people: int, seed: int) -> Config:
    """A house whose identifiable zone has the tables that link reads, and ``truth.parquet`` beside it."""
    shutil.rmtree(home, ignore_errors=True)
    (home / "made").mkdir(parents=True)
    values = load_yaml(conf_dir() / "local.yaml") | {"home": str(home)}
    (home / "conf.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    config = load_config(home / "conf.yaml")
    init_key(Zones(config, "identifiable"), config["keys"]["key_id"])
    residents = list(identities.residents(seed, people))
    written = {name: home / "made" / f"{name}.parquet" for name in ("person", "header_instance", "header_series", "record_event")}
    _parquet(written["person"], (row for who in residents for row in identities.person_rows(who)))
    _parquet(written["record_event"], (_event(number, who.upi) for number, who in enumerate(residents)))
    truth = home / "truth.parquet"
    made = enumerate(identities.headers(seed, residents))
    writers: dict[Path, Any] = {}
    for chunk in iter(lambda: list(islice(made, BATCH)), []):
        _add(writers, written["header_instance"], [_header(number, header) for number, header in chunk])
        _add(writers, written["header_series"], [_series(number, header) for number, header in chunk])
        _add(writers, truth, [{"sop_uid": str(number), "upi": h.upi, "written": h.written} for number, h in chunk])
    for writer in writers.values():
        writer.close()
    zones = Zones(config, "identifiable")
    # The session of the settings, as the job has it; whoever asks for one later gets it too.
    spark = open_session(config, zones)
    for name, file in written.items():
        tables.append(_declared(spark.read.parquet(str(file)), name), zones, "identifiable", name)
    return config


def _event(number: int, upi: str) -> dict[str, Any]:
    return {"event_key": str(number), "row_key": str(number), "source": "smr01", "person_id": upi, "scheme": "chi", "kind": "admission"}


def _header(number: int, made: identities.Made) -> dict[str, Any]:
    return {"sop_uid": str(number), "content_sha256": str(number), "template_id": str(number), "differences": "{}", **made.header}


def _series(number: int, made: identities.Made) -> dict[str, Any]:
    return {"template_id": str(number), "elements": identities.template(made.elements)}


def _parquet(file: Path, rows: Iterator[dict[str, Any]]) -> None:
    writers: dict[Path, Any] = {}
    for chunk in iter(lambda: list(islice(rows, BATCH)), []):
        _add(writers, file, chunk)
    writers[file].close()


def _add(writers: dict[Path, Any], file: Path, rows: list[dict[str, Any]]) -> None:
    found = pa.Table.from_pylist(rows, schema=writers[file].schema if file in writers else None)
    if file not in writers:
        writers[file] = pq.ParquetWriter(file, found.schema)
    writers[file].write_table(found)


def _declared(rows: DataFrame, name: str) -> DataFrame:
    """The rows with every column of a table, a plain default where they have none and null may not be."""
    defaults = {"string": F.lit("made"), "boolean": F.lit(True), "date": F.lit("2020-01-01").cast("date")}
    declared = table("identifiable", name)
    types = {field.name: field.dataType for field in declared.spark_type().fields}
    missing = {c.name: defaults[c.type] if not c.nullable else F.lit(None) for c in declared.columns if c.name not in rows.columns}
    return rows.withColumns({n: value.cast(types[n]) for n, value in missing.items()}).select(*declared.names)


def from_nothing(config: Config) -> None:
    """`pictures link` where there is no crosswalk."""
    zones = Zones(config, "identifiable")
    for name in ("crosswalk", "person_merge", "link_candidate", "run"):
        shutil.rmtree(zones.table("identifiable", name, "write"), ignore_errors=True)
    run_job("link", config, "identifiable", link.run)


def plain_join(config: Config, home: Path) -> None:
    """PatientID joined with the register, written to Delta."""
    spark, zones = measure.local_session(), Zones(config, "identifiable")
    headers = tables.read(spark, zones, "identifiable", "header_instance").select("patient_id_raw").distinct()
    person = tables.read(spark, zones, "identifiable", "person").select(F.col("person_id").alias("patient_id_raw"), "upi")
    headers.join(person, "patient_id_raw", "left").write.format("delta").mode("overwrite").save(str(home / "joined"))


def judged(config: Config, home: Path) -> Counter[tuple[str, str, str]]:
    """Headers by (how PatientID was written, the method or reason of its link, verdict): right, wrong, missed or rightly_none."""
    spark, zones = measure.local_session(), Zones(config, "identifiable")
    headers = tables.read(spark, zones, "identifiable", "header_instance").select("sop_uid", evidence.evidence_id().alias("evidence_id"))
    links = history.current(tables.read(spark, zones, "identifiable", "crosswalk")).where("source = 'dicom'")
    links = links.select("evidence_id", F.col("upi").alias("found"), F.coalesce("method", "unlinked_reason").alias("how"))
    truth = spark.read.parquet(str(home / "truth.parquet"))
    none, same = F.col("found").isNull(), F.col("found") == F.col("upi")
    verdict = F.when(none & F.col("upi").isNull(), "rightly_none").when(none, "missed").when(same, "right").otherwise("wrong")
    rows = truth.join(headers, "sop_uid").join(links, "evidence_id").withColumn("verdict", verdict)
    return Counter({(r.written, r.how, r.verdict): r["count"] for r in rows.groupBy("written", "how", "verdict").count().collect()})


def quality(config: Config, home: Path) -> list[str]:
    """Three Markdown tables: by rule, by the probability from which one would link, and by what was wrong with the header."""
    found = judged(config, home)
    linkable = sum(n for (_, _, verdict), n in found.items() if verdict != "rightly_none")
    none = {verdict: sum(n for (_, _, v), n in found.items() if v == verdict) for verdict in ("right", "wrong", "missed", "rightly_none")}
    lines = [f"{sum(none.values()):,} headers.", "", "| rule | links | right | precision | recall |", "|---|--:|--:|--:|--:|"]
    meant = sum(n for (written, _, verdict), n in found.items() if not _nobody(written))
    for rule in ("exact", "alias", "nested", "probabilistic", "all"):
        right, wrong = (sum(n for (_, how, v), n in found.items() if v == want and how == rule) for want in ("right", "wrong"))
        if rule == "all":
            right, wrong = none["right"], none["wrong"]
        lines.append(f"| {rule} | {right + wrong:,} | {right:,} | {share(right, right + wrong)} | {share(right, meant)} |")
    lines += ["", *thresholds(config, home)]
    lines += ["", "| header | n | right | wrong | for review | ambiguous | unlinked | recall |", "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for written in sorted({written for written, _, _ in found}):
        rows = {(how, v): n for (w, how, v), n in found.items() if w == written}
        total, right, wrong = sum(rows.values()), *(sum(n for (_, v), n in rows.items() if v == want) for want in ("right", "wrong"))
        review, ambiguous = (sum(n for (how, _), n in rows.items() if how == want) for want in ("needs_review", "ambiguous"))
        recall = "nobody to find" if _nobody(written) else share(right, total)
        left = total - right - wrong - review - ambiguous
        lines.append(f"| {written} | {total:,} | {right:,} | {wrong:,} | {review:,} | {ambiguous:,} | {left:,} | {recall} |")
    assert linkable >= meant
    return lines


def thresholds(config: Config, home: Path) -> list[str]:
    """A Markdown table: what would be linked by score from each of some probabilities on, of the headers that no identifier decided."""
    spark, zones = measure.local_session(), Zones(config, "identifiable")
    headers = tables.read(spark, zones, "identifiable", "header_instance").select("sop_uid", evidence.evidence_id().alias("evidence_id"))
    best = tables.read(spark, zones, "identifiable", "link_candidate").where("place = 1 AND verdict != 'ambiguous'")
    truth = spark.read.parquet(str(home / "truth.parquet"))
    scored = truth.join(headers, "sop_uid").join(best.select("evidence_id", F.col("upi").alias("found"), "probability"), "evidence_id")
    same = F.coalesce(F.col("found") == F.col("upi"), F.lit(False))
    lines = ["| from | links | right | wrong | precision |", "|---|--:|--:|--:|--:|"]
    for threshold in THRESHOLDS:
        counted = (
            scored.where(F.col("probability") >= threshold).agg(F.count_if(same).alias("right"), F.count(F.lit(1)).alias("all")).first()
        )
        right, every = (counted["right"], counted["all"]) if counted is not None else (0, 0)
        lines.append(f"| {threshold} | {every:,} | {right:,} | {every - right:,} | {share(right, every)} |")
    return lines


def _nobody(written: str) -> bool:
    return written in ("not_registered", "newborn", "temporary", "test_patient", "phantom")


def share(part: int, whole: int) -> str:
    """A share in percent with its 95 % interval after Wilson (1927)."""
    if not whole:
        return "none"
    z, p = 1.959964, part / whole
    middle, width = p + z * z / (2 * whole), z * math.sqrt(p * (1 - p) / whole + z * z / (4 * whole * whole))
    low, high = ((middle + sign * width) / (1 + z * z / whole) for sign in (-1, 1))
    return f"{p:.2%} ({max(low, 0.0):.2%} to {min(high, 1.0):.2%})"


if __name__ == "__main__":
    sys.exit(main())
