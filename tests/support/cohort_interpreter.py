"""The cohort language read naively: lists of dictionaries, one day at a time, and no SQL.

Written from the meaning of the language (docstrings of `pictures_spark.cohort.model`, DESIGN), not from the compiler, so that where the
two agree they are probably both right. Slow on purpose: a window is the set of its days.
"""

from datetime import date, timedelta

Tables = dict[str, list[dict]]
PARENTS = {"patient": [], "study": ["patient"], "series": ["study", "patient"], "image": ["series", "study", "patient"]}
DAY = timedelta(days=1)
FOR_EVER = date(2010, 12, 31)  # later than anything that tests put into a table


def interpret(question, codes, tables: Tables) -> list[dict]:
    """One row per unit: unit_id, patient_id, answers (population, each step, the pick if there is one) and passed."""
    rows = []
    for unit in units(question, tables):
        answers = [population(question, unit, tables)]
        for step in question.steps:
            answers.append(answer(question, step.predicate, unit, codes, tables))
        policies = ["exclude", *(step.unknown for step in question.steps)]
        passed = 0
        for said, policy in zip(answers, policies, strict=True):
            if said is False or (said is None and policy == "exclude"):
                break
            passed += 1
        rows.append({"unit": unit, "unit_id": unit["id"], "patient_id": unit["patient_id"], "answers": answers, "passed": passed})
    if question.pick is not None:
        pick(question, rows, tables)
    return rows


def units(question, tables: Tables) -> list[dict]:
    found = []
    for row in tables[question.unit]:
        if question.unit == "patient" and row["merged_into"] is not None:
            continue
        if question.unit == "image":
            twins = [other["locator_id"] for other in tables["image"] if other["image_id"] == row["image_id"]]
            if row["locator_id"] != min(twins):
                continue
        above = [(question.unit, row)]
        for parent in PARENTS[question.unit]:
            name = f"{parent}_id"
            above.append((parent, next((p for p in tables[parent] if p[name] == row[name] and row[name] is not None), None)))
        unit = {"id": row[f"{question.unit}_id"], "patient_id": row["patient_id"], "above": above}
        unit["index"] = question.index if not isinstance(question.index, str) else look_up(unit, question.index)
        found.append(unit)
    return found


def look_up(unit: dict, name: str):
    """A value of the unit or of what it belongs to, None in every way of being missing."""
    from pictures_spark.schema import table

    if name == "age_at":
        name = "age_years"
    for level, row in unit["above"]:
        declared = table("deidentified", level)
        if name in declared.by_name:
            value = row[name] if row is not None else None
            closed = declared.by_name[name].vocabulary is not None and not declared.by_name[name].empty_is_value
            return None if closed and value in ("unknown", []) else value
    raise AssertionError(name)


def population(question, unit: dict, tables: Tables) -> bool | None:
    if question.population == "all":
        return True
    if unit["patient_id"] is None:
        return False
    if question.population == "linked":
        return True
    if unit["index"] is None:
        return None
    return unit["index"] in resident_days(unit, tables) and alive(unit, tables, unit["index"])


def alive(unit: dict, tables: Tables, day: date) -> bool:
    """From the month of birth, whose day is not known, to the day of death; always where neither is known."""
    for person in tables["patient"]:
        if person["patient_id"] == unit["patient_id"]:
            born = person["birth_month"]
            if born is not None and day < date(int(born[:4]), int(born[5:]), 1):
                return False
            return person["death_date"] is None or day <= person["death_date"]
    return True


def resident_days(unit: dict, tables: Tables) -> set[date]:
    days: set[date] = set()
    for row in tables["residence"]:
        if row["patient_id"] == unit["patient_id"]:
            days |= span(row["from_date"], row["to_date"] or FOR_EVER)
    return days


def span(first: date, last: date) -> set[date]:
    return {first + DAY * n for n in range((last - first).days + 1)}


def all_of(answers: list[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True


def answer(question, predicate, unit: dict, codes, tables: Tables) -> bool | None:
    kind = type(predicate).__name__
    if kind == "Where":
        return all_of([test(t, look_up(unit, t.column)) for t in predicate.tests])
    if kind == "First":
        return first(predicate.events, unit, codes, tables)
    found = has(predicate.events, unit, codes, tables)
    if kind == "Has" or found is None:
        return found
    return not found


def test(t, value) -> bool | None:
    if t.operator == "is_missing":
        return (value is None) == t.values[0]
    if value is None:
        return None
    wanted = t.values
    match t.operator:
        case "eq" | "in":
            return any(w in value for w in wanted) if isinstance(value, list) else value in wanted
        case "ne":
            return not any(w in value for w in wanted) if isinstance(value, list) else value not in wanted
        case "lt":
            return value < wanted[0]
        case "le":
            return value <= wanted[0]
        case "gt":
            return value > wanted[0]
        case "ge":
            return value >= wanted[0]
        case "between":
            return wanted[0] <= value <= wanted[1]
    raise AssertionError(t.operator)


def event_days(events, unit: dict, codes, tables: Tables) -> set[date]:
    days = set()
    for row in tables["event"]:
        if row["patient_id"] != unit["patient_id"] or unit["patient_id"] is None or row["kind"] not in events.kinds:
            continue
        if not events.codes or any(in_list(row, codes[name]) for name in events.codes):
            days.add(row["date"])
    return days


def in_list(row: dict, codelist) -> bool:
    if row["code"] is None or row["system"] != codelist.system:
        return False
    if codelist.expand == "exact":
        return row["code"] in codelist.codes
    return any(row["code"].startswith(code) for code in codelist.codes)


def covered_days(events, tables: Tables) -> set[date]:
    """Days that every source covers which can hold one of the kinds."""
    covers = []
    for row in tables["source_cover"]:
        if set(row["kinds"]) & set(events.kinds):
            covers.append(span(row["from_date"], row["to_date"] - DAY * (row["lag_days"] or 0)))
    return set.intersection(*covers) if covers else set()


def in_window(events, unit: dict, day: date) -> bool:
    low, high = events.window.low, events.window.high
    if (low is not None or high is not None) and unit["index"] is None:
        return False
    return (low is None or day >= unit["index"] + DAY * low) and (high is None or day <= unit["index"] + DAY * high)


def observed(events, unit: dict, tables: Tables) -> bool:
    """Whether an event in the window would be known of: every day the person lived of it is covered, and lived where the records are."""
    if unit["patient_id"] is None:
        return False
    covered = covered_days(events, tables)
    low, high = events.window.low, events.window.high
    if (unit["index"] is None and (low is not None or high is not None)) or not covered:
        return low is not None and high is not None and unit["index"] is not None and not_alive_in(events, unit, tables)
    first_day = min(covered) if low is None else unit["index"] + DAY * low
    last_day = max(covered) if high is None else unit["index"] + DAY * high
    window = span(first_day, last_day)
    if not window:
        return False
    here = resident_days(unit, tables)
    return all(day in covered and day in here for day in window if alive(unit, tables, day))


def not_alive_in(events, unit: dict, tables: Tables) -> bool:
    window = span(unit["index"] + DAY * events.window.low, unit["index"] + DAY * events.window.high)
    return not any(alive(unit, tables, day) for day in window)


def has(events, unit: dict, codes, tables: Tables) -> bool | None:
    days = [day for day in event_days(events, unit, codes, tables) if in_window(events, unit, day)]
    if len(days) >= events.at_least:
        return True
    return False if observed(events, unit, tables) else None


def first(events, unit: dict, codes, tables: Tables) -> bool | None:
    days = event_days(events, unit, codes, tables)
    if days and in_window(events, unit, min(days)):
        return True
    low = events.window.low
    if days and low is not None and unit["index"] is not None and min(days) < unit["index"] + DAY * low:
        return False
    return False if observed(events, unit, tables) else None


def pick(question, rows: list[dict], tables: Tables) -> None:
    """Add the pick's answer to every row, and let the first survivor of each group pass."""
    last = 1 + len(question.steps)
    name = f"{question.pick.one_per}_id"
    chosen = set()
    survivors = [row for row in rows if row["passed"] == last]
    for group in {look_up(row["unit"], name) for row in survivors} - {None}:
        left = [row for row in survivors if look_up(row["unit"], name) == group]
        for order in question.pick.order:
            present = [row for row in left if look_up(row["unit"], order.column) is not None]
            if present:
                best = (max if order.descending else min)(look_up(row["unit"], order.column) for row in present)
                left = [row for row in present if look_up(row["unit"], order.column) == best]
        chosen.add(min(row["unit_id"] for row in left))
    for row in rows:
        survived = row["passed"] == last
        lost = survived and look_up(row["unit"], name) is None
        row["answers"].append(None if lost else row["unit_id"] in chosen and survived)
        row["passed"] += survived and row["unit_id"] in chosen
