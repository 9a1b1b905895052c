"""What a freeze says beside its members: counts of patients, studies, series and images at every step, and breakdowns of the members.

What enters is the plan's rows (`Plan.flags`) as a relation, and the tables of the release under their names with `PREFIX`. The SQL is the
same text on every engine.

An object of a higher level (the study of series) is kept where any of its units is. It is unknown at a step where no unit of it that
reached the step has the answer yes, and some have the answer unknown. Objects of a lower level go with their unit. So at the unit's own
level these are the numbers of the attrition.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pictures_spark.cohort import domain
from pictures_spark.cohort.compile import PREFIX, Plan

LEVELS = ("patient", "study", "series", "image")
# Years of a band of ages.
_BAND = 10


@dataclass(frozen=True)
class Count:
    """One step at one level; as in `pictures_spark.cohort.attrition.Level`."""

    step_index: int
    level: str
    kept: int
    failed: int
    unknown: int


@dataclass(frozen=True)
class Part:
    """Members of one value of a breakdown; of several values in one unit, each counts it."""

    breakdown: str
    value: str
    units: int
    patients: int


def tables(plan: Plan) -> tuple[str, ...]:
    """The tables that a freeze reads: those of the plan and those of its outputs."""
    more = {"series", *(["study"] if plan.unit == "patient" else []), *(["image"] if plan.unit == "image" else []), "patient", "residence"}
    return tuple(sorted({*plan.tables, *more}))


def counts(plan: Plan, flags: str, first: Callable[[str], Sequence[Any]]) -> tuple[Count, ...]:
    """Counts of all levels at every step.

    Parameters
    ----------
    flags : relation with the plan's rows.
    first : what an engine answers to a query of one row.
    """
    found = []
    for level in LEVELS:
        row = [int(value or 0) for value in first(_level_sql(plan, flags, level))]
        kept, unknown = row[: len(plan.steps)], row[len(plan.steps) :]
        for index, step in enumerate(plan.steps):
            removed = kept[index - 1] - kept[index] if index else 0
            failed = removed - unknown[index] if step.unknown == "exclude" else removed
            found.append(Count(index, level, kept[index], failed, unknown[index]))
    return tuple(sorted(found, key=lambda count: (count.step_index, LEVELS.index(count.level))))


def _level_sql(plan: Plan, flags: str, level: str) -> str:
    steps = range(len(plan.steps))
    own, this = LEVELS.index(plan.unit), LEVELS.index(level)
    if this >= own:
        weight = "1" if this == own else f"{level}_count"
        source = flags if this == own else _below(plan.unit, flags)
        kept = [f"SUM(CASE WHEN passed >= {i} THEN {weight} ELSE 0 END)" for i in steps]
        unknown = [f"SUM(CASE WHEN {_reached(i)} AND {_bit('unknowns', i)} THEN {weight} ELSE 0 END)" for i in steps]
        return f"SELECT {', '.join(kept + unknown)} FROM {source}"
    some = [f"MAX(CASE WHEN {_reached(i)} AND {_bit('unknowns', i)} THEN 1 ELSE 0 END) AS some_{i}" for i in steps]
    none = [f"MAX(CASE WHEN {_reached(i)} AND {_bit('holds', i)} THEN 1 ELSE 0 END) AS yes_{i}" for i in steps]
    source = _above(plan.unit, level, flags)
    objects = f"SELECT MAX(passed) AS passed, {', '.join(some + none)} FROM {source} WHERE object_id IS NOT NULL GROUP BY object_id"
    kept = [f"SUM(CASE WHEN passed >= {i} THEN 1 ELSE 0 END)" for i in steps]
    unknown = [f"SUM(CASE WHEN some_{i} = 1 AND yes_{i} = 0 THEN 1 ELSE 0 END)" for i in steps]
    return f"SELECT {', '.join(kept + unknown)} FROM ({objects}) AS objects"


def _reached(index: int) -> str:
    return f"passed >= {index - 1}"


def _bit(column: str, index: int) -> str:
    return f"({column} & {1 << index}) <> 0"


def _above(unit: str, level: str, flags: str) -> str:
    """The flags with the id of the object that each unit belongs to."""
    if level == "patient":
        return f"(SELECT passed, holds, unknowns, patient_id AS object_id FROM {flags}) AS placed"
    key = domain.key(level)
    return (
        f"(SELECT {flags}.passed, {flags}.holds, {flags}.unknowns, own.object_id FROM {flags} LEFT JOIN "
        f"(SELECT {domain.key(unit)} AS unit_key, MIN({key}) AS object_id FROM {PREFIX}{unit} GROUP BY {domain.key(unit)}) AS own "
        f"ON own.unit_key = {flags}.unit_id) AS placed"
    )


def _below(unit: str, flags: str) -> str:
    """The flags with how many studies, series and images each unit has."""
    key = domain.key(unit)
    counted = f"SELECT {key} AS unit_key, COUNT(*) AS series_count, SUM(image_count) AS image_count FROM {PREFIX}series GROUP BY {key}"
    joined = f"{flags} LEFT JOIN ({counted}) AS below ON below.unit_key = {flags}.unit_id"
    columns = "below.series_count, below.image_count"
    if unit == "patient":
        studies = f"SELECT {key} AS study_key, COUNT(*) AS study_count FROM {PREFIX}study GROUP BY {key}"
        joined += f" LEFT JOIN ({studies}) AS studies ON studies.study_key = {flags}.unit_id"
        columns += ", studies.study_count"
    return f"(SELECT {flags}.passed, {flags}.holds, {flags}.unknowns, {columns} FROM {joined}) AS placed"


# Breakdowns


def breakdowns(unit: str) -> tuple[str, ...]:
    """Names of what the members of a unit are broken down by; patients have no age without a scan."""
    names = ("modality", "year", "health_board", "manufacturer", "sex", "age_band")
    return tuple(name for name in names if unit != "patient" or name != "age_band")


def values_sql(unit: str, name: str, flags: str) -> str:
    """Each unit's values of a breakdown, distinct, as text: columns ``unit_id`` and ``value``; null where it is not known."""
    key = domain.key(unit)
    match name:
        case "modality" if unit == "image":
            return f"SELECT DISTINCT image_id AS unit_id, modality AS value FROM {PREFIX}image"
        case "modality":
            return f"SELECT DISTINCT {key} AS unit_id, modality AS value FROM {PREFIX}series"
        case "manufacturer" if unit == "image":
            return (
                f"SELECT DISTINCT image.image_id AS unit_id, series.manufacturer_norm AS value FROM {PREFIX}image AS image "
                f"JOIN {PREFIX}series AS series ON series.series_id = image.series_id"
            )
        case "manufacturer":
            return f"SELECT DISTINCT {key} AS unit_id, manufacturer_norm AS value FROM {PREFIX}series"
        case "year":
            year = "CAST(EXTRACT(YEAR FROM day) AS VARCHAR)"
            return f"SELECT unit_id, {year} AS value FROM ({_days(unit, flags)}) AS dated"
        case "sex":
            return f"SELECT unit_id, sex AS value FROM {flags} JOIN {PREFIX}patient AS person ON person.patient_id = {flags}.patient_id"
        case "health_board":
            lives = "dated.day >= home.from_date AND (dated.day <= home.to_date OR home.to_date IS NULL)"
            return (
                f"SELECT {flags}.unit_id, MIN(home.health_board) AS value FROM {flags} JOIN ({_days(unit, flags)}) AS dated "
                f"ON dated.unit_id = {flags}.unit_id JOIN {PREFIX}residence AS home "
                f"ON home.patient_id = {flags}.patient_id AND {lives} GROUP BY {flags}.unit_id"
            )
        case _:
            low = f"CAST(FLOOR(MIN(age_years) / {_BAND}) * {_BAND} AS INTEGER)"
            band = f"CONCAT(CAST({low} AS VARCHAR), '-', CAST({low} + {_BAND - 1} AS VARCHAR))"
            return (
                f"SELECT {key} AS unit_id, CASE WHEN MIN(age_years) IS NOT NULL THEN {band} END AS value FROM {PREFIX}{unit} GROUP BY {key}"
            )


def _days(unit: str, flags: str) -> str:
    """The day that a unit is from: its scan date, of patients the index date."""
    if unit == "patient":
        return f"SELECT unit_id, index_date AS day FROM {flags}"
    return f"SELECT {domain.key(unit)} AS unit_id, MIN(scan_date) AS day FROM {PREFIX}{unit} GROUP BY {domain.key(unit)}"


def parts_sql(plan: Plan, name: str, flags: str) -> str:
    """Members of each value: value, units, patients; in order of the values."""
    return (
        f"SELECT COALESCE(found.value, 'unknown') AS value, COUNT(DISTINCT {flags}.unit_id), COUNT(DISTINCT {flags}.patient_id) "
        f"FROM {flags} LEFT JOIN ({values_sql(plan.unit, name, flags)}) AS found ON found.unit_id = {flags}.unit_id "
        f"WHERE {flags}.passed = {plan.last} GROUP BY COALESCE(found.value, 'unknown') ORDER BY 1"
    )


def parts(plan: Plan, flags: str, rows: Callable[[str], Iterable[Sequence[Any]]]) -> tuple[Part, ...]:
    """Every breakdown of the members; ``rows`` is what an engine answers to a query."""
    return tuple(
        Part(name, str(value), int(units), int(patients))
        for name in breakdowns(plan.unit)
        for value, units, patients in rows(parts_sql(plan, name, flags))
    )


def persons_sql(plan: Plan, flags: str, values: Sequence[str] = ()) -> str:
    """Units of the flags by person, how far they got, what is unknown of them, and values of breakdowns.

    ``values`` are queries with columns ``unit_id`` and ``value``, as of `values_sql`.

    Columns ``subject`` (the person; of a scan that is linked to nobody the study), ``linked``, ``passed``, ``unknowns``, one per
    breakdown, and ``n``, how many units.
    """
    unit = plan.unit
    subject, joins = f"{flags}.patient_id", ""
    if unit in ("series", "image"):
        joins = (
            f" LEFT JOIN (SELECT {domain.key(unit)} AS unit_key, MIN(study_id) AS study_id FROM {PREFIX}{unit} "
            f"WHERE patient_id IS NULL GROUP BY {domain.key(unit)}) AS own ON own.unit_key = {flags}.unit_id"
        )
        subject = f"COALESCE({flags}.patient_id, own.study_id, {flags}.unit_id)"
    elif unit == "study":
        subject = f"COALESCE({flags}.patient_id, {flags}.unit_id)"
    for i, query in enumerate(values):
        joins += f" LEFT JOIN ({query}) AS by_{i} ON by_{i}.unit_id = {flags}.unit_id"
    columns = [f"{subject} AS subject", f"{flags}.patient_id IS NOT NULL AS linked", f"{flags}.passed", f"{flags}.unknowns"]
    columns += [f"COALESCE(by_{i}.value, 'unknown') AS value_{i}" for i in range(len(values))]
    places = ", ".join(str(i + 1) for i in range(len(columns)))
    return f"SELECT {', '.join(columns)}, COUNT(*) AS n FROM {flags}{joins} GROUP BY {places}"
