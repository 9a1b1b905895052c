"""Study, series, image, tag, study_tag, image_feature and burned_in_text, made from the header and pixel tables.

What enters: tables of the identifiable zone at fixed versions. What leaves: frames with the columns of the de-identified tables, except the
provenance that publish adds; a column ``counted``, where there is one, names what to count in the report. Header values cross in one pass
over Arrow batches on executors (`derive_images`); the rest is Spark's own aggregation. Nothing is collected.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, reduce
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from pictures_spark.deid import derive
from pictures_spark.deid.derive_headers import tag_rules
from pictures_spark.deid.derive_images import (
    COMMON_COLUMNS,
    FACT_COLUMNS,
    NO_TIME,
    common_facts,
    image_columns,
    listed_columns,
    rolled_columns,
    safe_image,
    series_facts,
)
from pictures_spark.deid.tables_guard import copied, guard, withheld_names
from pictures_spark.errors import ConfigError
from pictures_spark.keys import KeyRef, pseudonym
from pictures_spark.linkage.evidence import evidence_id
from pictures_spark.pixels.boxes import covered
from pictures_spark.resources import load_schema
from pictures_spark.schema import Column as Declared
from pictures_spark.schema import Table, table
from pictures_spark.tables import accepts

Inputs = Mapping[str, DataFrame]
# Rows that are Python objects at a time.
_PYTHON_ROWS = 256


def safe_images(inputs: Inputs, commons: DataFrame, key: KeyRef) -> DataFrame:
    """One row per distinct content of an instance, as `derive_images.safe_image` makes it.

    ``sop_uid``, ``content_sha256`` and ``template_id`` are there to join with pixel and header tables, ``texts`` to tell the series' facts;
    none of them leaves.

    Parameters
    ----------
    commons : `common_elements`.
    """
    header = inputs["header_instance"].drop("run_id").join(_objects(inputs["object"]), "content_sha256", "left")
    header = _linked(header, inputs["crosswalk"])
    grouped = commons.where(F.col("shared_frames").isNotNull()).select("template_id", "shared_frames")
    header = header.join(grouped, "template_id", "left")
    tag_rules()  # a faulty list ends here, in one sentence

    def safe() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        # Study and series UIDs come again and again; each worker remembers the latest.
        secret, remembered = key.bytes(), lru_cache(4096)(pseudonym)

        def name(_: bytes, kind: str, value: str) -> str:
            return remembered(secret, kind, value) if kind not in ("image", "locator") else pseudonym(secret, kind, value)

        return lambda row: safe_image(row, secret, name)

    return _by_row(header, safe, image_columns())


def common_elements(header_series: DataFrame) -> DataFrame:
    """What the common elements of each series say: template_id, shared_frames, tags."""
    return _by_row(header_series.select("template_id", "elements"), lambda: common_facts, COMMON_COLUMNS)


def _by_row(frame: DataFrame, make: Callable[[], Callable[[Mapping[str, Any]], dict[str, Any]]], columns: str) -> DataFrame:
    """Each row through a Python function that ``make`` gives, on executors; ``columns`` is the DDL of what comes out."""
    schema: pa.Schema = to_arrow_schema(cast(StructType, StructType.fromDDL(columns)))

    def convert(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        function = make()
        for batch in batches:
            # Rows of a series hold its every position: as Python objects they take much more room than in Arrow.
            for start in range(0, batch.num_rows, _PYTHON_ROWS):
                rows = batch.slice(start, _PYTHON_ROWS).to_pylist()
                yield pa.RecordBatch.from_pylist([function(row) for row in rows], schema=schema)

    return frame.mapInArrow(convert, columns)


def _objects(objects: DataFrame) -> DataFrame:
    """content_sha256 -> how many readable archive objects hold it."""
    readable = objects.where((F.col("kind") == "dicom") & (F.col("status") == "catalogued"))
    return readable.groupBy(F.col("sha256").alias("content_sha256")).agg(F.count(F.lit(1)).alias("n_objects"))


def _links(crosswalk: DataFrame) -> DataFrame:
    """Identifier and evidence of a header -> its one person, or why it has none; several persons are ambiguous.

    ``said`` is null for links that hold for every header with the identifier.
    """
    rows = crosswalk.where(F.col("source") == "dicom").groupBy(F.col("source_id").alias("identifier"), F.col("evidence_id").alias("said"))
    people = rows.agg(F.min("patient_id").alias("low"), F.max("patient_id").alias("high"), F.min("unlinked_reason").alias("reason"))
    one = F.col("low") == F.col("high")
    why = F.when(F.col("low").isNull(), F.coalesce("reason", F.lit("unknown_person"))).when(~one, F.lit("ambiguous"))
    return people.select("identifier", "said", F.struct(F.when(one, F.col("low")).alias("linked"), why.alias("why_not")).alias("link"))


def _linked(header: DataFrame, crosswalk: DataFrame) -> DataFrame:
    """Headers with ``linked``, ``why_not`` and ``in_crosswalk``: by what the header says, else by its identifier alone."""
    links = _links(crosswalk)
    by_said = links.where(F.col("said").isNotNull()).select("said", F.col("link").alias("by_said"))
    by_id = links.where(F.col("said").isNull()).select("identifier", F.col("link").alias("by_id"))
    header = header.withColumns({"said": evidence_id(), "identifier": F.coalesce("patient_id_raw", F.lit(""))})
    found = header.join(by_said, "said", "left").join(by_id, "identifier", "left").withColumn("link", F.coalesce("by_said", "by_id"))
    columns = {"linked": F.col("link.linked"), "why_not": F.col("link.why_not"), "in_crosswalk": F.col("link").isNotNull()}
    return found.withColumns(columns).drop("said", "identifier", "by_said", "by_id", "link")


def rolled(declared: Table) -> list[Column]:
    """Aggregates of the columns with a roll-up: each under its name, and ``differs__<column>`` where values disagree.

    ``min``, ``max`` over all values; ``any``: the value met in most images, the smallest on a tie; ``first``: of the image with the
    lowest instance number (then id); ``set``: sorted distinct values; ``count``: how many distinct values. Missing values take no part.
    """
    found = []
    for column, _ in rolled_columns(declared.name):
        values = F.col(f"{declared.name}__{column.name}")
        low, high = F.min(F.array_min(values)), F.max(F.array_max(values))
        first, distinct = F.get(values, F.lit(0)), F.array_distinct(F.flatten(F.collect_set(values)))
        order = F.when(F.size(values) > 0, F.struct("image__instance_number", "image_id", "locator_id"))
        rollups = {
            "min": low,
            "max": high,
            "any": F.mode(first, True),
            "first": F.min_by(first, order),
            "set": F.array_sort(distinct),
            "count": F.size(distinct).cast("long"),
        }
        found.append(rollups[str(column.rollup)].alias(column.name))
        if column.rollup not in ("set", "count"):
            found.append((low != high).alias(f"differs__{column.name}"))
    return found


def _read_off(tags: DataFrame) -> DataFrame:
    """What `tag` says of each series: the columns of `listed_columns` as `rolled` would make them, ``facts``, ``tag_conflicts``."""
    found = [
        F.map_from_entries(F.collect_list(F.when(F.col("vr").isNull(), F.struct("keyword", "frequent_codes")))).alias("facts"),
        _tag_conflicts("series"),
    ]
    for column in listed_columns("series"):
        here = (F.col("keyword") == column.dicom) & F.col("vr").isNotNull()
        kind = "codes" if "string" in column.type else "numbers"
        values = _inside(column, kind)
        rollups = {
            "min": F.array_min(values),
            "max": F.array_max(values),
            "any": F.get(_inside(column, f"frequent_{kind}"), F.lit(0)),
            "set": values,
            "count": F.size(values).cast("long"),
        }
        found.append(F.any_value(F.when(here, rollups[str(column.rollup)]), True).cast(column.type).alias(column.name))
        if column.rollup not in ("set", "count"):
            found.append(F.bool_or(here & (F.size(values) > 1)).alias(f"differs__{column.name}"))
    return tags.groupBy("series_id").agg(*found)


def _inside(column: Declared, values: str) -> Column:
    return F.filter(values, lambda value: accepts(column, value))


def _tag_conflicts(*levels: str) -> Column:
    """Sorted keywords of the attributes that should say the same in all of a series or study, and do not."""
    same = [rule.keyword for rule in tag_rules() if rule.single and rule.level in ("study", *levels)]
    differs = F.col("keyword").isin(same) & (F.col("n_distinct") > 1)
    return F.array_sort(F.collect_set(F.when(differs, F.col("keyword")))).alias("tag_conflicts")


def _flags(frame: DataFrame, more: str | None = None) -> Column:
    """Sorted names of the columns whose ``differs__`` is true, and those in the array column ``more``."""
    names = [name.removeprefix("differs__") for name in frame.columns if name.startswith("differs__")]
    flags = F.array_compact(F.array(*[F.when(F.col(f"differs__{name}"), F.lit(name)) for name in names]))
    return F.array_sort(F.concat(flags, F.col(more)) if more else flags)


def link_studies(images: DataFrame) -> DataFrame:
    """One row per study: its roll-ups, and its person where all linked images name one and the same.

    Images of one study that name several people are linked to nobody (``ambiguous``): a scan under the wrong person is worse than one
    under none.
    """
    low, high = F.min("linked"), F.max("linked")
    frame = images.groupBy("study_id").agg(
        *rolled(table("deidentified", "study")),
        F.when(low == high, low).alias("patient_id"),
        F.when(low.isNull(), F.mode("unlinked_reason", True)).when(low != high, F.lit("ambiguous")).alias("unlinked_reason"),
        ((low != high) | (low.isNotNull() & F.bool_or(F.col("linked").isNull()))).alias("differs__patient_id"),
        F.size(F.collect_set("series_id")).cast("long").alias("series_count"),
        F.array_sort(F.array_distinct(F.flatten(F.collect_set("study_described")))).alias("description_norm"),
        F.count_if("conflict").alias("conflict_count"),
        F.count(F.lit(1)).alias("contents"),
        F.mode("sex", True).alias("sex"),
    )
    return frame.withColumn("conflict_flags", _flags(frame)).drop(*[name for name in frame.columns if name.startswith("differs__")])


def copies(images: DataFrame, studies: DataFrame, pixel_feature: DataFrame) -> DataFrame:
    """Series whose pixels, image by image, are those of an earlier series of the same person: series_id, dup_of.

    The one of the earliest scan date (then the lowest id) is what the others are duplicates of. A series takes part where every image with
    pixels has its hash and the person is known: two people's empty pictures may well be equal.
    """
    hashed = pixel_feature.where((F.col("feature") == "pixel_sha256") & (F.col("status") == "ok"))
    hashed = hashed.select("sop_uid", "content_sha256", F.col("value_text").alias("pixels"))
    with_pixels = images.where(F.col("image__frames") > 0).join(hashed, ["sop_uid", "content_sha256"], "left")
    content = F.sha2(F.concat_ws(",", F.array_sort(F.collect_list("pixels"))), 256)
    sets = with_pixels.groupBy("series_id").agg(
        F.mode("study_id", True).alias("study_id"),
        F.coalesce(F.min("scan.date"), F.lit("9999-12-31").cast("date")).alias("day"),
        F.when(F.count("pixels") == F.count(F.lit(1)), content).alias("pixels"),
    )
    linked = studies.where(F.col("patient_id").isNotNull()).select("study_id", "patient_id")
    alike = sets.where(F.col("pixels").isNotNull()).join(linked, "study_id").groupBy("patient_id", "pixels")
    ordered = alike.agg(F.array_sort(F.collect_list(F.struct("day", "series_id"))).alias("all")).where(F.size("all") > 1)
    first = F.get("all", F.lit(0)).series_id.alias("dup_of")
    return ordered.select(first, F.explode(F.slice("all", 2, F.size("all"))).alias("other")).select("dup_of", "other.series_id")


def series(images: DataFrame, tags: DataFrame, studies: DataFrame, people: DataFrame, duplicates: DataFrame) -> DataFrame:
    """One row per series; ``tags`` is `tag`, ``duplicates`` is `copies`."""
    lists = {
        "families": F.collect_list("family"),
        "planes": F.flatten(F.collect_list("planes")),
        "kinds": F.flatten(F.collect_list("kinds")),
        "regions": F.array_distinct(F.flatten(F.collect_set("regions"))),
        "agents": F.collect_set("agent"),
        "texts": F.array_distinct(F.flatten(F.collect_set("texts"))),
        "study_texts": F.array_distinct(F.flatten(F.collect_set("study_texts"))),
        "burned": F.collect_set("burned"),
        "portables": F.collect_set("portable"),
        "grids": F.array_distinct(F.flatten(F.collect_set("grids"))),
        # Two contents of one instance that lie in the same place are one slice.
        "places": F.collect_set(F.when(F.size("places") > 0, F.struct("image_id", "places"))),
        "unplaced": F.sum("unplaced"),
    }
    frame = images.groupBy("series_id").agg(
        *rolled(table("deidentified", "series")),
        *[values.alias(name) for name, values in lists.items()],
        F.mode("study_id", True).alias("study_id"),
        (F.min("study_id") != F.max("study_id")).alias("differs__study_id"),
        F.min("scan").alias("scan"),
        F.mode("manufacturer_norm", True).alias("manufacturer_norm"),
        (F.min("manufacturer_norm") != F.max("manufacturer_norm")).alias("differs__manufacturer_norm"),
        F.mode("model_norm", True).alias("model_norm"),
        (F.min("model_norm") != F.max("model_norm")).alias("differs__model_norm"),
        F.array_sort(F.array_distinct(F.flatten(F.collect_set("described")))).alias("description_norm"),
        F.array_sort(F.array_distinct(F.flatten(F.collect_set("protocol")))).alias("protocol_norm"),
        F.count_if("conflict").alias("conflict_count"),
        F.mode("field_tesla", True).alias("field_tesla"),
        (F.min("field_tesla") != F.max("field_tesla")).alias("differs__field_tesla"),
        F.size(F.collect_set("image_id")).cast("long").alias("image_count"),
        F.coalesce(F.sum("image__frames"), F.lit(0)).alias("frame_count"),
        F.sum("n_objects").alias("n_objects"),
    )
    order = F.array(*[F.lit(keyword) for keyword in load_schema("derive/series.yaml")["scan_date"]["order"]])
    frame = frame.join(studies.select("study_id", "patient_id"), "study_id", "left").join(_read_off(tags), "series_id", "left")
    frame = frame.join(duplicates, "series_id", "left")
    frame = frame.withColumn("tag_conflicts", F.coalesce("tag_conflicts", F.array().cast("array<string>")))
    frame = frame.withColumns(
        {
            "scan_date": F.col("scan.date"),
            "scan_time": guard(table("deidentified", "series").by_name["scan_time"], F.nullif(F.col("scan.time"), F.lit(NO_TIME))).value,
            "scan_date_source": F.get(order, F.col("scan.rank")),
        }
    )
    frame = with_ages(frame.drop("scan"), people, "series")
    kept = [name for name in frame.columns if name not in (*lists, "facts", *_told_by_facts())]
    out = ", ".join([f"`{field.name}` {field.dataType.simpleString()}" for field in frame.schema.fields if field.name in kept])
    told = _by_row(frame, lambda: lambda row: {**{name: row[name] for name in kept}, **series_facts(row)}, f"{out}, {FACT_COLUMNS}")
    return _only(told.withColumn("conflict_flags", _flags(told, "differs")), "series")


def _told_by_facts() -> list[str]:
    """Names of `FACT_COLUMNS`, two of which finish what was rolled up."""
    return cast(StructType, StructType.fromDDL(FACT_COLUMNS)).fieldNames()


def study(studies: DataFrame, study_tags: DataFrame, all_series: DataFrame, people: DataFrame, site: str, reported: DataFrame) -> DataFrame:
    """One row per study; its scan date is the earliest of its series. ``study_tags`` is `study_tag`, ``reported`` its reports' findings."""
    scans = all_series.groupBy("study_id").agg(F.min("scan_date").alias("scan_date"))
    conflicts = study_tags.groupBy("study_id").agg(_tag_conflicts())
    frame = studies.join(scans, "study_id", "left").join(conflicts, "study_id", "left").join(reported, "study_id", "left")
    frame = frame.withColumn("site", F.lit(site))
    frame = frame.withColumn("tag_conflicts", F.coalesce("tag_conflicts", F.array().cast("array<string>")))
    return _only(with_ages(frame, people, "study"), "study")


def image(images: DataFrame, studies: DataFrame, all_series: DataFrame) -> DataFrame:
    """One row per distinct content of an instance; its person is its study's, its scan date and age are its series'."""
    scans = all_series.select("series_id", "scan_date", "age_years", F.col("patient_id").alias("aged"))
    frame = images.join(studies.select("study_id", "patient_id"), "study_id", "left").join(scans, "series_id", "left")
    values = [F.col(name).alias(name.removeprefix("image__")) for name in frame.columns if name.startswith("image__")]
    age = F.when(F.col("patient_id") == F.col("aged"), F.col("age_years"))
    ids = ("image_id", "series_id", "study_id", "patient_id", "locator_id")
    return _only(frame.select(*ids, "scan_date", age.alias("age_years"), *values, "conflict"), "image")


def with_ages(frame: DataFrame, people: DataFrame, name: str) -> DataFrame:
    """Add age_years, before_birth and after_death of ``patient_id`` on ``scan_date``, for which ``people`` has the dates.

    All three are null where the scan is unlinked or undated; the age also before birth and above the declared range. Where no death is
    recorded, after_death is false.
    """
    joined = frame.join(people.select("patient_id", "birth_date", "death_date"), "patient_id", "left")
    day, born, died = F.col("scan_date"), F.col("birth_date"), F.col("death_date")
    age = guard(table("deidentified", name).by_name["age_years"], derive.age_years(born, day))
    dated = day.isNotNull() & F.col("patient_id").isNotNull()
    return joined.withColumns(
        {
            "age_years": age.value,
            "before_birth": day < born,
            "after_death": F.when(dated, F.coalesce(day > died, F.lit(False))),
            "counted": withheld_names(name, {"age_years": age}),
        }
    ).drop("birth_date", "death_date")


def tag(images: DataFrame, commons: DataFrame) -> DataFrame:
    """Distinct values per series of every listed attribute, and of every fact (``vr`` null), which are no rows of table ``tag``.

    Beside the columns of the table: ``numbers`` and ``codes`` (sorted), ``frequent_numbers`` and ``frequent_codes`` (those that most frames
    have first, the smallest on a tie), ``tallies`` and ``n_present`` (what `study_tag` adds up), and how many images had a value that was
    withheld (``n_withheld``).
    """
    templates = images.groupBy("template_id", "series_id").agg(F.count(F.lit(1)).alias("n"))
    shared = templates.join(commons.select("template_id", "tags"), "template_id").select("series_id", "n", F.explode("tags").alias("tag"))
    own = images.select("series_id", F.lit(1).alias("n"), F.explode("tags").alias("tag"))
    rows = shared.unionByName(own).select("series_id", "n", "tag.*")
    entry = "struct<number:double,code:string,n:bigint>"

    def entries(values: str, of: Callable[[Column], tuple[Column, Column]]) -> Column:
        made = F.transform(values, lambda value, i: F.struct(*of(value), F.col("n") * F.get("frames", i)))
        return made.cast(f"array<{entry}>")

    # The first entry counts the image itself, each other one a value that it has, by frames.
    every = F.concat(
        F.array(F.lit(None).cast(entry)),
        entries("numbers", lambda number: (number, F.lit(None).cast("string"))),
        entries("codes", lambda code: (F.lit(None).cast("double"), code)),
    )
    accepted = (F.size("numbers") > 0) | (F.size("codes") > 0)
    counted = rows.select("series_id", "keyword", "vr", "n", "withheld", accepted.alias("accepted"), F.explode(every).alias("value"))
    tallied = counted.groupBy("series_id", "keyword", "vr", "value.number", "value.code").agg(
        F.sum("value.n").alias("n"),
        F.sum(F.when(F.col("accepted"), F.col("n")).otherwise(0)).alias("present"),
        F.sum(F.when(F.col("withheld"), F.col("n")).otherwise(0)).alias("withheld"),
    )
    is_value = F.coalesce(F.col("number").isNotNull() | F.col("code").isNotNull(), F.lit(False))
    grouped = tallied.groupBy("series_id", "keyword", "vr").agg(
        F.collect_list(F.when(is_value, F.struct("number", "code", "n"))).alias("tallies"),
        F.sum(F.when(~is_value, F.col("present")).otherwise(0)).alias("n_present"),
        F.sum(F.when(~is_value, F.col("withheld")).otherwise(0)).alias("n_withheld"),
    )
    contents = images.groupBy("series_id").agg(F.count(F.lit(1)).alias("n_images"))
    return _told_values(grouped.join(contents, "series_id"))


def study_tag(tags: DataFrame, all_series: DataFrame, studies: DataFrame) -> DataFrame:
    """`tag` of all series of a study together, without facts."""
    rows = tags.where(F.col("vr").isNotNull() & (F.col("n_distinct") > 0)).join(all_series.select("series_id", "study_id"), "series_id")
    values = rows.select("study_id", "keyword", "vr", F.explode("tallies").alias("tally")).select("study_id", "keyword", "vr", "tally.*")
    tallied = values.groupBy("study_id", "keyword", "vr", "number", "code").agg(F.sum("n").alias("n"))
    tallies = tallied.groupBy("study_id", "keyword", "vr").agg(F.collect_list(F.struct("number", "code", "n")).alias("tallies"))
    present = rows.groupBy("study_id", "keyword").agg(F.sum("n_present").alias("n_present"))
    contents = studies.select("study_id", F.col("contents").alias("n_images"))
    return _told_values(tallies.join(present, ["study_id", "keyword"]).join(contents, "study_id"))


def _told_values(frame: DataFrame) -> DataFrame:
    """What ``tallies`` (number, code, how many frames have it), ``n_present`` and ``n_images`` tell of an attribute."""
    by_value = F.array_sort(F.transform("tallies", lambda t: F.struct(t.number, t.code)))
    by_count = F.array_sort(F.transform("tallies", lambda t: F.struct((-t.n).alias("n"), t.number, t.code)))

    def texts(numbers: str, codes: str) -> Column:
        # No exponent, no trailing zeros: one number, one text.
        return F.concat(F.transform(numbers, lambda n: F.call_function("format_number", n, F.lit("0.###############"))), F.col(codes))

    single = F.col("keyword").isin([rule.keyword for rule in tag_rules() if rule.single])
    frame = frame.withColumns(
        {
            "numbers": F.array_compact(F.transform(by_value, lambda v: v.number)),
            "codes": F.array_compact(F.transform(by_value, lambda v: v.code)),
            "frequent_numbers": F.array_compact(F.transform(by_count, lambda v: v.number)),
            "frequent_codes": F.array_compact(F.transform(by_count, lambda v: v.code)),
        }
    )
    return frame.withColumns(
        {
            "values": texts("numbers", "codes"),
            "n_distinct": (F.size("numbers") + F.size("codes")).cast("long"),
            # A header that has an attribute twice, at its top level and in functional groups, is counted once.
            "n_missing": F.greatest(F.col("n_images") - F.col("n_present"), F.lit(0)),
            "min": F.array_min("numbers"),
            "max": F.array_max("numbers"),
            "majority": F.when(single, F.get(texts("frequent_numbers", "frequent_codes"), F.lit(0))),
        }
    )


def tag_rows(tags: DataFrame, name: str = "tag") -> DataFrame:
    """The rows and columns of table ``tag`` or ``study_tag``."""
    return _only(tags.where(F.col("vr").isNotNull() & (F.col("n_distinct") > 0)), name)


def image_feature(images: DataFrame, pixel_feature: DataFrame, pixel_text: DataFrame) -> DataFrame:
    """The features that schemas/features.yaml publishes: of published images, and of their series by each feature's roll-up."""
    published = {f"{f['name']}@{f['version']}": f for f in load_schema("features.yaml")["features"] if f["publish"]}
    wanted = pixel_feature.where(F.concat_ws("@", "feature", "version").isin(list(published)))
    texts = [_text_area(images, pixel_text, entry) for entry in published.values() if entry["from"] == "text"]
    every = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), texts, wanted)
    frame = _of_images(images, every, table("deidentified", "image_feature")).withColumn("id", F.col("image_id"))
    of_images = [name for name, entry in published.items() if entry["level"] == "image"]
    own = frame.where(F.concat_ws("@", "feature", "version").isin(of_images))
    return _only(own.unionByName(_of_series(frame, published), allowMissingColumns=True), "image_feature")


def _text_area(images: DataFrame, pixel_text: DataFrame, entry: Mapping[str, Any]) -> DataFrame:
    """Rows of pixel_feature for the share of an image's samples that lie in a box of text."""
    box = F.struct("frame_from", "frame_to", "x0", "y0", "x1", "y1")
    in_pixels = (F.col("plane") == "pixel") & F.col("x0").isNotNull()
    found = pixel_text.groupBy("sop_uid", "content_sha256").agg(
        F.bool_or(F.col("verdict") == "not_determined").alias("unsure"), F.collect_list(F.when(in_pixels, box)).alias("boxes")
    )
    of = images.select("sop_uid", "content_sha256", *[F.col(f"image__{name}") for name in ("frames", "rows", "columns")])
    area = F.when(F.size("boxes") > 0, F.udf(lambda boxes: covered(map(tuple, boxes)), "long")("boxes")).otherwise(0)
    value = area / (F.col("image__frames") * F.col("image__rows") * F.col("image__columns"))
    # An image of unknown size, too, is one of which nothing is known.
    sure = ~F.col("unsure") & value.isNotNull()
    return found.join(of, ["sop_uid", "content_sha256"]).select(
        "sop_uid",
        "content_sha256",
        F.lit("image").alias("level"),
        F.lit(entry["name"]).alias("feature"),
        F.lit(entry["version"]).alias("version"),
        F.when(sure, value).alias("value"),
        F.lit(entry["unit"]).alias("unit"),
        F.when(sure, "ok").otherwise("failed").alias("status"),
        F.when(~sure, "text_not_determined").alias("reason"),
    )


def _of_series(frame: DataFrame, published: Mapping[str, Mapping[str, Any]]) -> DataFrame:
    """One row per series and feature: the roll-up of the images that have a value; failed, with a reason of theirs, where none has.

    Of several reasons that of most images, the first by name on a tie.
    """
    rules = F.create_map(*[F.lit(text) for name, entry in published.items() for text in (name, entry["rollup"])])
    value = F.when(F.col("status") == "ok", F.col("value"))
    ways = {"mean": F.mean, "median": F.median, "min": F.min, "max": F.max, "sum": F.sum}
    rolled = frame.groupBy("series_id", "feature", "version").agg(
        F.struct(*[way(value).alias(name) for name, way in ways.items()]).alias("by"),
        F.first("unit", True).alias("unit"),
        F.mode(F.when(F.col("status") != "ok", F.col("reason")), True).alias("why"),
    )
    rule = rules[F.concat_ws("@", "feature", "version")]
    chosen = F.coalesce(*[F.when(rule == name, F.col(f"by.{name}")) for name in ways])
    return rolled.select(
        F.lit("series").alias("level"),
        F.col("series_id").alias("id"),
        "series_id",
        "feature",
        "version",
        chosen.alias("value"),
        "unit",
        F.when(chosen.isNotNull(), "ok").otherwise("failed").alias("status"),
        F.when(chosen.isNull(), F.col("why")).alias("reason"),
        F.array().cast("array<string>").alias("counted"),
    )


def burned_in_text(images: DataFrame, pixel_text: DataFrame) -> DataFrame:
    """Boxes and verdicts of published images, never the text."""
    return _only(_of_images(images, pixel_text, table("deidentified", "burned_in_text")), "burned_in_text")


def _of_images(images: DataFrame, pixels: DataFrame, declared: Table) -> DataFrame:
    """Rows about the pixels of published images under the images' ids, with the columns that the table shares with its source."""
    ids = images.select("sop_uid", "content_sha256", "image_id", "locator_id", "series_id")
    frame = pixels.drop("run_id", "series_uid").join(ids, ["sop_uid", "content_sha256"])
    guards = copied(declared, frame, leave=("image_id", "locator_id", "series_id"))
    return frame.select(
        "image_id",
        "locator_id",
        "series_id",
        *[g.value.alias(name) for name, g in guards.items()],
        withheld_names(declared.name, guards).alias("counted"),
    )


def _only(frame: DataFrame, name: str) -> DataFrame:
    """The declared columns of a table, without the provenance that publish adds, and ``counted`` where it is there.

    Raises
    ------
    ConfigError
        A column is declared that nothing here makes.
    """
    wanted = [column.name for column in table("deidentified", name).own]
    unmade = [column for column in wanted if column not in frame.columns]
    if unmade:
        raise ConfigError(
            f"schemas/deidentified/{name}.yaml declares {', '.join(unmade)}, which publish does not make: "
            "give it a DICOM keyword and a rollup, or derive it in pictures_spark/deid/tables_images.py"
        )
    return frame.select(*wanted, *(["counted"] if "counted" in frame.columns else []))
