"""Report and report_finding, and what a study's reports say of it, made from the record tables, the crosswalk and the studies.

What enters: tables of the identifiable zone at fixed versions, without the texts; `link_studies`. What leaves: frames with the columns of
the de-identified tables, except the provenance that publish adds. Executors do the work; nothing is collected.
"""

from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pictures_spark.deid.tables_people import Inputs, record_links
from pictures_spark.keys import KeyRef, pseudonym_udf
from pictures_spark.schema import table

_STUDY_COLUMNS = ("findings_affirmed", "findings_possible", "findings_negated")


def report(inputs: Inputs, studies: DataFrame, key: KeyRef) -> DataFrame:
    """One row per report, linked or not: the columns of table ``report`` and ``report_key``, with ``skip`` set where nobody is linked.

    A report belongs to the one study that has its accession number and its person. Accession numbers of several systems may be the same, so
    the number alone is not enough; and of several studies it cannot be told which.
    """
    reports = inputs["record_report"].select(
        "report_key", "person_id", "scheme", "report_date", "status", F.trim("accession_number").alias("accession")
    )
    linked = reports.join(record_links(inputs["crosswalk"]), ["scheme", "person_id"], "left")
    accession = pseudonym_udf(key, "accession")(F.when(F.col("accession") != "", F.col("accession")))
    linked = linked.withColumn("accession_id", accession)
    those = studies.select("accession_id", "study_id", F.col("patient_id").alias("study_patient")).where("accession_id IS NOT NULL")
    same = F.col("study_patient") == F.col("patient_id")
    pairs = linked.select("report_key", "accession_id", "patient_id").join(those, "accession_id")
    found = pairs.groupBy("report_key").agg(
        F.count_if(same).alias("matches"), F.min(F.when(same, F.col("study_id"))).alias("only"), F.count(F.lit(1)).alias("any")
    )
    joined = linked.join(found, "report_key", "left")
    why = (
        F.when(F.col("accession_id").isNull(), F.lit("no_accession"))
        .when(F.col("any").isNull(), F.lit("unknown_accession"))
        .when(F.col("matches") == 0, F.lit("other_person"))
        .when(F.col("matches") > 1, F.lit("several_studies"))
        .otherwise(F.lit("linked"))
    )
    skip = F.when(F.col("known").isNull(), F.lit("not_linked_yet")).when(F.col("patient_id").isNull(), F.lit("skipped_unlinked"))
    return joined.select(
        "report_key",
        pseudonym_udf(key, "report")("report_key").alias("report_id"),
        F.when(F.col("matches") == 1, F.col("only")).alias("study_id"),
        "patient_id",
        "report_date",
        "status",
        why.alias("study_link"),
        skip.alias("skip"),
        F.concat(F.array(F.lit("reports")), F.when(skip.isNotNull(), F.array(skip)).otherwise(F.array().cast("array<string>"))).alias(
            "counted"
        ),
    )


def report_finding(inputs: Inputs, reports: DataFrame) -> DataFrame:
    """What each report says; ``reports`` is `report` of linked people. Of a cancelled report nothing is told."""
    standing = reports.where(~F.col("status").eqNullSafe("cancelled")).select(
        "report_key", "report_id", "study_id", "patient_id", "report_date"
    )
    told = inputs["record_report_finding"].where("finding IS NOT NULL").drop("run_id", "text_hash")
    return told.join(standing, "report_key").select(*_columns("report_finding"), "report_date")


def study_findings(reports: DataFrame, findings: DataFrame) -> DataFrame:
    """study_id and what its reports say of the patient, as sorted sets; a row for every study with a report that was not cancelled.

    Of each finding the newest report that speaks of it counts; of reports of one day the one with the largest report_id.
    """
    read = reports.where(F.col("study_id").isNotNull() & ~F.col("status").eqNullSafe("cancelled")).select("study_id").distinct()
    newest = Window.partitionBy("study_id", "finding").orderBy(F.desc("report_date"), F.desc("report_id"))
    own = findings.where((F.col("subject") == "patient") & F.col("study_id").isNotNull())
    own = own.withColumn("nth", F.row_number().over(newest)).where("nth = 1")
    affirmed, possible = F.col("polarity") == "affirmed", F.col("certainty") == "possible"
    conditions = dict(zip(_STUDY_COLUMNS, (affirmed, affirmed & possible, ~affirmed), strict=True))
    sets = own.groupBy("study_id").agg(*[_set(condition).alias(name) for name, condition in conditions.items()])
    empty = F.array().cast("array<string>")
    filled = {name: F.coalesce(name, empty) for name in _STUDY_COLUMNS}
    return reduce(lambda frame, name: frame.withColumn(name, filled[name]), _STUDY_COLUMNS, read.join(sets, "study_id", "left"))


def _columns(name: str) -> list[str]:
    return [column.name for column in table("deidentified", name).own]


def _set(condition: Column) -> Column:
    return F.array_sort(F.collect_set(F.when(condition, F.col("finding"))))
