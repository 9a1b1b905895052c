"""``pictures import-idc``: the real series of NCI's Imaging Data Commons as a de-identified catalogue, with invented people behind it.

Enters: ``idc_index.parquet`` of the package ``idc-index-data`` (extra ``idc``), one row per public DICOM series. Leaves: patient,
residence, study, series, event, stay and source_cover as one release, so that cohorts can be asked at real scale.

What is real: series, studies, which of them are one patient's, dates, and every column that publish's rules tell of the headers the index
has (schemas/synthetic/idc.yaml ``columns``). What is drawn: columns listed there under ``drawn``, which the index does not have, and all
people: births (from PatientAge where it is told), sex where it is not, deaths, residence and events. Ids are SHA-256 of public UIDs,
without a key. Tables image, tag and study_tag are not made. DuckDB and numpy work on the driver, batch by batch; Spark writes.

Counts: ``seen`` and ``written`` are rows of all tables.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pictures_spark.deid import derive
from pictures_spark.errors import ConfigError
from pictures_spark.job import Job
from pictures_spark.keys import fingerprint
from pictures_spark.resources import code_fingerprint, load_schema
from pictures_spark.schema import table
from pictures_spark.synthetic import published
from pictures_spark.synthetic.draws import Draws, Whole, completed_years, day
from pictures_spark.synthetic.lives import NEVER, YEAR, Lives, People, lead
from pictures_spark.synthetic.nation import event_tables, moved, patient_table, residence_table, source_cover_table
from pictures_spark.synthetic.told import told

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "idc"
_BATCH = 5_000
_SERIES_BATCH = 200_000
_PROCESSES = 2
_IMAGES = ("image", "multiframe_image")
_ID = "substr(sha256('{kind}' || chr(31) || {value}), 1, 32)"
# A number of 60 bits, by which things of a row are drawn whatever its place in the file.
_NUMBER = "('0x' || substr(sha256({value}), 1, 15))::BIGINT"


def run(job: Job, events: int = 10_000_000, times: int = 1) -> None:
    """Import the index as one release.

    Parameters
    ----------
    events : at least so many events are made of the people.
    times : the whole catalogue so many times over, each copy with people and ids of its own; ``events`` are then those of all copies.

    Raises
    ------
    ConfigError
        The package is not installed, or the zone holds releases that are not this job's.
    """
    path, package = index_file()
    seed = job.config["synth"]["seed"]
    wanted = fingerprint(job.name, package, str(seed), str(events), str(times), code_fingerprint())
    with duckdb.connect() as connection:
        scratch = job.zones.path(published.ZONE, ".scratch", "duckdb", mode="write")
        scratch.mkdir(parents=True, exist_ok=True)
        connection.execute("SET temp_directory = $1", [str(scratch)])
        connection.execute("SET memory_limit = '3GB'")
        published.publish(job, pieces(connection, str(path), seed, events, times), PREFIX, wanted)


def index_file() -> "tuple[Path, str]":
    """Where the index is, and the version of the package.

    Raises
    ------
    ConfigError
        The package is not installed.
    """
    try:
        import idc_index_data

        path = idc_index_data.IDC_INDEX_PARQUET_FILEPATH
    except ImportError:
        path = None
    if path is None:
        raise ConfigError("import-idc needs the package idc-index-data: pip install 'pictures-spark[idc]'")
    return path, version("idc-index-data")


def pieces(connection: duckdb.DuckDBPyConnection, path: str, seed: int, events: int, times: int = 1) -> Iterator[tuple[str, pa.Table]]:
    """The tables, piece by piece; those of people first, because a scan after a death is known by it."""
    read(connection, path)
    _told(connection)
    cover = load_schema("synthetic/idc.yaml")["cover"]
    yield "source_cover", source_cover_table(cover["from"], cover["to"])
    for copy in range(times):
        draws = Draws(seed + copy)
        behind = _people(connection, draws, copy)
        yield from _records(behind, draws, events // times)
        yield from _studies(connection, behind, copy)
        yield from _series(connection, behind, draws, copy)


def read(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    """Tables ``headers`` (distinct, numbered), ``listed`` (one row per series) and ``studies`` from the index."""
    rule = load_schema("synthetic/idc.yaml")
    columns = ", ".join(f'"{name}"' for name in rule["columns"])
    connection.execute(f"CREATE TEMP TABLE raw AS SELECT * FROM read_parquet({_text(path)}) WHERE SeriesInstanceUID IS NOT NULL")
    connection.execute(
        f"CREATE TEMP TABLE headers AS SELECT row_number() OVER (ORDER BY {columns}) - 1 AS header, * "
        f"FROM (SELECT DISTINCT {columns} FROM raw)"
    )
    same = " AND ".join(f'raw."{name}" IS NOT DISTINCT FROM headers."{name}"' for name in rule["columns"])
    connection.execute(
        f"""CREATE TEMP TABLE listed AS SELECT SeriesInstanceUID AS series, StudyInstanceUID AS study, PatientID AS patient, header,
            collection_id AS collection, TRY_CAST(StudyDate AS DATE) AS study_date, TRY_CAST(SeriesDate AS DATE) AS series_date,
            PatientAge AS age, upper(trim(PatientSex)) AS sex, instanceCount AS images, headers."Modality" AS modality
            FROM raw JOIN headers ON {same}"""
    )
    connection.execute("DROP TABLE raw")
    connection.execute(
        """CREATE TEMP TABLE studies AS SELECT study, min(patient) AS patient, count(DISTINCT patient) AS patients,
           min(study_date) AS study_date, count(DISTINCT study_date) > 1 AS dates_differ, min(collection) AS collection,
           count(*) AS series_count, mode(header) AS header FROM listed GROUP BY study"""
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _told(connection: duckdb.DuckDBPyConnection) -> None:
    """Table ``told``: for each header what publish's rules tell of it, and of its study's description."""
    names = load_schema("synthetic/idc.yaml")["columns"]
    rows = connection.execute(f"SELECT {', '.join(_quoted(name) for name in names)} FROM headers ORDER BY header").fetchall()
    headers = [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows]
    pieces = [headers[at : at + 5_000] for at in range(0, len(headers), 5_000)]
    # A fresh interpreter, because a fork would share the JVM's sockets with Spark.
    if len(pieces) > 1:
        with ProcessPoolExecutor(_PROCESSES, get_context("spawn")) as pool:
            made = pa.concat_tables(list(pool.map(told_table, pieces)))
    else:
        made = told_table(headers)
    made = made.append_column("header", pa.array(np.arange(made.num_rows)))
    connection.register("made", made)
    connection.execute("CREATE TEMP TABLE told AS SELECT * FROM made")
    connection.unregister("made")


def told_table(headers: list[dict[str, Any]]) -> pa.Table:
    """`told` of each header, and ``study_described``, as columns of the declared types."""
    declared = table(published.ZONE, "series").by_name
    rows = [
        {**told(header), "study_described": sorted(derive.description_words(header.get("StudyDescription") or ""))} for header in headers
    ]
    types = {name: declared[name].arrow_type if name in declared else pa.list_(pa.string()) for name in (rows[0] if rows else ())}
    return pa.table({name: pa.array([row[name] for row in rows], type_) for name, type_ in types.items()})


def _quoted(name: str) -> str:
    return f'"{name}"'


@dataclass(frozen=True)
class Behind:
    """The people behind a copy of the catalogue: their names in the index, sorted, and their ids."""

    names: pa.Array
    ids: pa.Array
    people: People
    alive_on: Whole
    first: int
    last: int


def _people(connection: duckdb.DuckDBPyConnection, draws: Draws, copy: int) -> Behind:
    rule = load_schema("synthetic/idc.yaml")
    first, last = day(rule["cover"]["from"]), day(rule["cover"]["to"])
    found = connection.execute(
        f"""SELECT patient AS name, {_ID.format(kind="patient", value=_of("patient", copy))} AS id,
            {_NUMBER.format(value="patient")} AS number,
            arg_min(TRY_CAST(age[1:3] AS BIGINT), study_date) FILTER (regexp_full_match(age, '[0-9]{{3}}Y') AND age <> '000Y'
              AND study_date IS NOT NULL) AS age,
            min(study_date) FILTER (regexp_full_match(age, '[0-9]{{3}}Y') AND age <> '000Y') AS age_on,
            min(study_date) AS first_on, max(study_date) AS last_on,
            count(*) FILTER (sex = 'M') AS men, count(*) FILTER (sex = 'F') AS women
            FROM listed WHERE patient IS NOT NULL GROUP BY patient ORDER BY patient"""
    ).to_arrow_table()
    index = found.column("number").to_numpy()
    low, high = rule["ages"]
    first_on, last_on, age_on = (_days(found.column(name), first) for name in ("first_on", "last_on", "age_on"))
    age = found.column("age").fill_null(-1).to_numpy()
    told_age = np.where(age >= 0, age, draws.whole("age", index, low, high))
    birth = np.where(age >= 0, age_on, first_on) - (told_age * YEAR).astype(np.int64) - draws.whole("birthday", index, 1, 364)
    men, women = found.column("men").to_numpy(), found.column("women").to_numpy()
    male = np.where(men == women, draws.happens("male", index, 0.5), men > women)
    group = moved(draws, index, birth, male, first, last)
    return Behind(found.column("name").combine_chunks(), found.column("id").combine_chunks(), group, last_on, first, last)


def _of(name: str, copy: int) -> str:
    return f"{name} || '#{copy}'" if copy else name


def _days(column: pa.ChunkedArray, otherwise: int) -> Whole:
    return column.cast(pa.int32()).fill_null(otherwise).to_numpy().astype(np.int64)


def _part(group: People, at: slice | Whole) -> People:
    return People(**{name: values[at] for name, values in vars(group).items()})


def _records(behind: Behind, draws: Draws, events: int) -> Iterator[tuple[str, pa.Table]]:
    """Rows of patient, residence, event and stay; deaths are noted in ``behind``."""
    count = len(behind.people)
    if not count:
        return

    def lives(at: slice | Whole, busy: float, pace: float) -> Lives:
        return lead(draws, _part(behind.people, at), behind.alive_on[at], behind.first, behind.last, busy, pace)

    # How busy lives must be for so many events is told by some of them: chronic illness first, everyday events for what is left.
    # The people of a collection are alike and stand together, so some of all are asked, and a little more is made than they promise.
    probe, wanted = np.arange(0, count, -(-count // _BATCH)), events * 1.03 / count

    def each(busy: float, pace: float) -> float:
        return sum(len(event.who) for event in lives(probe, busy, pace).events) / len(probe)

    pace = max(each(0, 1) / (wanted * 0.8), 1.0)
    quiet = each(0, pace)
    busy = max((wanted - quiet) / max(each(1, pace) - quiet, 1e-9), 0.0)
    for start in range(0, count, _BATCH):
        at = slice(start, min(start + _BATCH, count))
        found = lives(at, busy, pace)
        ids = behind.ids[at]
        behind.people.death[at] = found.people.death
        event, stay = event_tables(draws, found, ids)
        yield "patient", patient_table(found.people, ids)
        yield "residence", residence_table(draws, found.people, ids, behind.last)
        yield "event", event
        yield "stay", stay


def _studies(connection: duckdb.DuckDBPyConnection, behind: Behind, copy: int) -> Iterator[tuple[str, pa.Table]]:
    earliest = load_schema("derive/series.yaml")["scan_date"]["earliest"]
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE scanned AS SELECT study, min(CASE WHEN series_date >= DATE '{earliest}' THEN series_date
            WHEN study_date >= DATE '{earliest}' THEN study_date END) AS scan_date FROM listed GROUP BY study"""
    )
    connection.register("behind", pa.table({"patient": behind.names, "id": behind.ids, "at": np.arange(len(behind.people))}))
    connection.execute("CREATE OR REPLACE TEMP TABLE known AS SELECT * FROM behind")
    connection.unregister("behind")
    found = connection.execute(
        f"""SELECT {_ID.format(kind="study", value=_of("studies.study", copy))} AS study_id,
            CASE WHEN patients = 1 THEN known.id END AS patient_id,
            CASE WHEN patients = 0 THEN 'no_identifier' WHEN patients > 1 THEN 'ambiguous' END AS unlinked_reason,
            study_date, collection AS site, scan_date, series_count, study_described AS description_norm, 0::BIGINT AS conflict_count,
            CASE WHEN dates_differ THEN ['study_date'] ELSE []::VARCHAR[] END AS conflict_flags, []::VARCHAR[] AS tag_conflicts,
            CASE WHEN patients = 1 THEN "at" END AS "at"
            FROM studies LEFT JOIN known USING (patient) JOIN scanned USING (study) JOIN told ON told.header = studies.header
            ORDER BY study_id"""
    ).to_arrow_table()
    yield "study", _aged(found, behind)


def _aged(found: pa.Table, behind: Behind) -> pa.Table:
    """Age, before_birth and after_death on scan_date, for the person at ``at``; null where there is no person or no date."""
    at = found.column("at").fill_null(0).to_numpy().astype(np.int64)
    scanned = _days(found.column("scan_date"), 0)
    known = (found.column("at").is_valid().to_numpy()) & (found.column("scan_date").is_valid().to_numpy())
    birth, death = behind.people.birth[at], behind.people.death[at]
    years = completed_years(birth, scanned)
    early = scanned < birth
    columns = {
        "age_years": pa.array(years, mask=~known | early | (years > 130)),
        "before_birth": pa.array(early, mask=~known),
        "after_death": pa.array((scanned > death) & (death < NEVER), mask=~known),
    }
    found = found.drop_columns(["at"])
    for name, values in columns.items():
        found = found.append_column(name, values)
    return found


@cache
def _drawn_columns() -> tuple[str, ...]:
    drawn = load_schema("synthetic/idc.yaml")["drawn"]
    return tuple(dict.fromkeys(name for columns in drawn.values() for name in columns))


def _series(connection: duckdb.DuckDBPyConnection, behind: Behind, draws: Draws, copy: int) -> Iterator[tuple[str, pa.Table]]:
    earliest = load_schema("derive/series.yaml")["scan_date"]["earliest"]
    families = ", ".join(_text(family) for family in _IMAGES)
    result = connection.execute(
        f"""SELECT {_ID.format(kind="series", value=_of("listed.series", copy))} AS series_id,
            {_NUMBER.format(value="listed.series")} AS number,
            {_ID.format(kind="study", value=_of("listed.study", copy))} AS study_id,
            CASE WHEN studies.patients = 1 THEN known.id END AS patient_id, CASE WHEN studies.patients = 1 THEN "at" END AS "at",
            CASE WHEN series_date >= DATE '{earliest}' THEN series_date WHEN listed.study_date >= DATE '{earliest}' THEN listed.study_date
              END AS scan_date,
            CASE WHEN series_date >= DATE '{earliest}' THEN 'SeriesDate' WHEN listed.study_date >= DATE '{earliest}' THEN 'StudyDate'
              END AS scan_date_source,
            images AS image_count, CASE WHEN sop_class_family IN ({families}) THEN images ELSE 0 END AS frame_count, images AS n_objects,
            0::BIGINT AS conflict_count, told.* EXCLUDE (header, study_described)
            FROM listed JOIN studies USING (study) LEFT JOIN known ON known.patient = studies.patient
            JOIN told ON told.header = listed.header
            ORDER BY patient_id, scan_date, series_id"""
    )
    for batch in result.to_arrow_reader(_SERIES_BATCH):
        yield "series", _with_drawn(_aged(pa.Table.from_batches([batch]), behind), draws)


def _with_drawn(found: pa.Table, draws: Draws) -> pa.Table:
    """The columns that the index does not have, drawn for images of the modalities that schemas/synthetic/idc.yaml lists."""
    number = found.column("number").to_numpy()
    modality = np.array(found.column("modality").to_pylist(), object)
    family = np.array(found.column("sop_class_family").to_pylist(), object)
    declared = table(published.ZONE, "series").by_name
    found = found.drop_columns(["number"])
    columns: dict[str, list[Any]] = {name: [None] * len(number) for name in _drawn_columns()}
    for name, by_column in load_schema("synthetic/idc.yaml")["drawn"].items():
        rows = np.flatnonzero((modality == name) & np.isin(family, _IMAGES))
        for column, weights in by_column.items():
            texts = list(weights)
            values = texts if column in ("orientation", "image_kind") else [float(text) for text in texts]
            for row, at in zip(rows.tolist(), draws.choice(f"idc/{column}", number[rows], list(weights.values())).tolist(), strict=True):
                columns[column][row] = values[at]
    thickness = columns.pop("slice_thickness")
    columns |= {"slice_thickness_min": thickness, "slice_thickness_max": thickness}
    for column, values in columns.items():
        drawn = pa.array(values, declared[column].arrow_type)
        at = found.column_names.index(column)
        # What a header tells stands.
        found = found.set_column(at, column, pc.coalesce(found.column(column), drawn))
    return found
