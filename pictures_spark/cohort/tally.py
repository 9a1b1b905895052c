"""What a freeze says beside its members: counts of patients, studies, series and images at every step, and breakdowns of the members.

What enters is the plan's rows (`Plan.flags`) as a relation, and the tables of the release under their names with `PREFIX`. The SQL is the
same text on every engine.

An object of a higher level (the study of series) is kept where any of its units is. It is unknown at a step where no unit of it that
reached the step has the answer yes, and some have the answer unknown. Objects of a lower level go with their unit. So at the unit's own
level these are the numbers of the attrition.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pictures_spark.cohort import domain
from pictures_spark.cohort.attrition import Level
from pictures_spark.cohort.compile import PREFIX, Plan

Rows = Callable[[str], Iterable[Sequence[Any]]]
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


def counts(plan: Plan, flags: str, rows: Rows) -> tuple[Count, ...]:
    """Counts of all levels at every step.

    Parameters
    ----------
    flags : relation with the plan's rows.
    rows : what an engine answers to a query.
    """
    own = LEVELS.index(plan.unit)
    # For each level: last step that was survived, steps that are unknown, and how many there are.
    found: dict[str, list[tuple[int, int, int]]] = {level: [] for level in LEVELS}
    for passed, unsure, *numbers in rows(_own_sql(plan, flags)):
        for level, n in zip(LEVELS[own:], numbers, strict=True):
            found[level].append((passed, unsure, int(n or 0)))
    for level in LEVELS[:own]:
        found[level] = [(passed, unsure, n) for passed, unsure, n in rows(_above_sql(plan, flags, level))]
    return tuple(count for index in range(len(plan.steps)) for count in _at(plan, found, index))


def attrition(plan: Plan, counted: Iterable[Count]) -> tuple[Level, ...]:
    """The attrition, out of the counts of all levels: the same as `pictures_spark.cohort.attrition.levels` counts from the rows."""
    at = {(count.step_index, count.level): count for count in counted}
    found = []
    for index, step in enumerate(plan.steps):
        own, patients = at[index, plan.unit], at[index, "patient"]
        found.append(Level(index, step.id, step.sentence, own.kept, own.failed, own.unknown, patients.kept))
    return tuple(found)


def _at(plan: Plan, found: Mapping[str, list[tuple[int, int, int]]], index: int) -> Iterator[Count]:
    for level, numbers in found.items():
        before, kept = (sum(n for passed, _, n in numbers if passed >= step) for step in (index - 1, index))
        unknown = sum(n for passed, unsure, n in numbers if passed >= index - 1 and unsure & (1 << index)) if index else 0
        failed = before - kept - (unknown if plan.steps[index].unknown == "exclude" else 0) if index else 0
        yield Count(index, level, kept, failed, unknown)


def _own_sql(plan: Plan, flags: str) -> str:
    """Units, and what belongs to them, by how far they got and the steps they reached that are unknown."""
    below = LEVELS[LEVELS.index(plan.unit) + 1 :]
    numbers = ["COUNT(*)", *(f"SUM({level}_count)" for level in below)]
    unsure = f"(unknowns & {_reached(plan)})"
    return f"SELECT passed, {unsure} AS unsure, {', '.join(numbers)} FROM {_below(plan.unit, flags)} GROUP BY passed, {unsure}"


def _above_sql(plan: Plan, flags: str, level: str) -> str:
    """The same of the objects of a higher level: unknown where no unit says yes."""
    some, yes = (f"BIT_OR({column} & {_reached(plan)})" for column in ("unknowns", "holds"))
    objects = (
        f"SELECT MAX(passed) AS passed, {some} & ~{yes} AS unsure FROM {flags} "
        f"WHERE {domain.key(level)} IS NOT NULL GROUP BY {domain.key(level)}"
    )
    return f"SELECT passed, unsure, COUNT(*) FROM ({objects}) AS objects GROUP BY passed, unsure"


def _reached(plan: Plan) -> str:
    """Bits of the steps that a unit reached: those that it survived, and the next."""
    return f"CASE passed {' '.join(f'WHEN {i} THEN {(1 << (i + 2)) - 1}' for i in range(plan.last))} ELSE {(1 << (plan.last + 1)) - 1} END"


def _below(unit: str, flags: str) -> str:
    """The flags with how many studies, series and images each unit has."""
    if unit in ("series", "image"):
        return flags
    key = domain.key(unit)
    counted = f"SELECT {key} AS unit_key, COUNT(*) AS series_count, SUM(image_count) AS image_count FROM {PREFIX}series GROUP BY {key}"
    columns = "below.series_count, below.image_count"
    joined = f"{flags} LEFT JOIN ({counted}) AS below ON below.unit_key = {flags}.unit_id"
    if unit == "patient":
        studies = f"SELECT {key} AS study_key, COUNT(*) AS study_count FROM {PREFIX}study GROUP BY {key}"
        joined += f" LEFT JOIN ({studies}) AS studies ON studies.study_key = {flags}.unit_id"
        columns += ", studies.study_count"
    return f"(SELECT {flags}.passed, {flags}.unknowns, {columns} FROM {joined}) AS placed"


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


def parts(plan: Plan, flags: str, rows: Rows) -> tuple[Part, ...]:
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
