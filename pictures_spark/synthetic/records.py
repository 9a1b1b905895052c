"""The health-record extracts of the synthetic people, column by column as the sources deliver them.

Enters: people, the days that each source holds (settings) and schemas/synthetic/records.yaml. Leaves: rows of text. Pure; driver.
Broken rows are added, never made of good ones, so that what is true of a person stays true; each is listed in ``Extract.faults``.
"""

import calendar
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from pictures_spark.resources import load_schema
from pictures_spark.synthetic.people import Person, chi_number, day_between

COLUMNS: dict[str, list[str]] = {
    "chi": [
        "CHI", "UPI_NUMBER", "FORENAME", "SURNAME", "DATE_OF_BIRTH", "SEX", "POSTCODE", "HEALTH_BOARD", "SIMD_QUINTILE", "SIMD_EDITION",
        "DATE_TRANSFER_IN", "DATE_TRANSFER_OUT",
    ],
    "smr01": [
        "LINK_NO", "UPI_NUMBER", "CI_CHI_NUMBER", "CIS_MARKER", "ADMISSION_DATE", "DISCHARGE_DATE", "MAIN_CONDITION",
        *(f"OTHER_CONDITION_{n}" for n in range(1, 6)), "MAIN_OPERATION", "DATE_OF_MAIN_OPERATION", "SPECIALTY", "LOCATION",
        "HBTREAT_CURRENTDATE", "HBRES_CURRENTDATE", "DATAZONE_2011", "SEX", "DOB", "DISCHARGE_TRANSFER_TO",
    ],
    "deaths": [
        "UPI_NUMBER", "CHI", "DOB", "SEX", "DATE_OF_DEATH", "UNDERLYING_CAUSE_OF_DEATH", *(f"CAUSE_OF_DEATH_CODE_{n}" for n in range(10)),
    ],
    "pis": ["Pat UPI", "PI BNF Item Code", "PI Approved Name", "PD Prescribed Date", "Disp Date", "Paid Date", "Paid Quantity"],
    "labs": [
        "chi", "SampleDate", "TestCode", "Result", "QuantityUnit", "ReadCodeValue", "ArithmeticComparator", "RangeLowValue",
        "RangeHighValue",
    ],
    "reports": ["CHI", "REPORT_ID", "ACCESSION_NUMBER", "EXAM_DATE", "EXAM_NAME", "REPORT_DATE", "REPORT_STATUS", "REPORT_TEXT"],
}  # fmt: skip
# What is broken in a row that is added: a day that no calendar has, a code of no system, a person who is not named.
FAULTS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "chi": [("bad_date", {"DATE_OF_BIRTH": "30/02/1950"}), ("no_identifier", {"CHI": "", "UPI_NUMBER": ""})],
    "smr01": [
        ("bad_date", {"ADMISSION_DATE": "20150230"}),
        ("bad_code", {"MAIN_CONDITION": "?6!9"}),
        ("no_identifier", {"UPI_NUMBER": "", "CI_CHI_NUMBER": ""}),
    ],
    "deaths": [("bad_date", {"DATE_OF_DEATH": "20150230"})],
    "pis": [
        ("bad_date", {"Disp Date": "30/02/2015"}),
        ("bad_code", {"PI BNF Item Code": "02X?"}),
        ("no_identifier", {"Pat UPI": ""}),
    ],
    "labs": [("bad_date", {"SampleDate": "2015-02-30 10:00:00"}), ("no_identifier", {"chi": ""})],
}
Row = dict[str, str]
Days = tuple[date, date]


@dataclass
class Extract:
    """One CSV file: its columns, rows in order, and which rows (from 1) are broken on purpose and how."""

    source: str
    rows: list[Row]
    faults: list[tuple[int, str]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The header row."""
        return COLUMNS[self.source]


def extracts(seed: int, people: list[Person], cover: dict[str, Days]) -> list[Extract]:
    """Every extract; ``cover`` says for each source the first and last day that it holds."""
    makers = {"chi": _chi, "smr01": _smr01, "deaths": _deaths, "pis": _pis, "labs": _labs}
    result = []
    for source, make in makers.items():
        rows = [row for person in people for row in make(Random(f"{seed}/{source}/{person.index}"), person, cover[source])]
        rng = Random(f"{seed}/{source}")
        if source in ("pis", "labs"):
            # People who are not in the register have records too.
            column = COLUMNS[source][0]
            rows += [{**row, column: _stranger(rng, people)} for row in _some(rng, rows, 3)]
        extract = Extract(source, sorted(rows, key=lambda row, names=COLUMNS[source]: [row.get(name, "") for name in names]))  # type: ignore[misc]
        _break(extract, rng)
        result.append(extract)
    return result


def _stranger(rng: Random, people: list[Person]) -> str:
    known = {chi for person in people for chi in person.chis}
    while (chi := chi_number(rng.choice(people).birth, rng.choice("MF"), rng)) in known:
        pass
    return chi


def _some(rng: Random, rows: list[Row], count: int) -> list[Row]:
    """Rows to copy; never an anticoagulant, on which the truth of the example cohort rests."""
    good = [row for row in rows if not row.get("PI BNF Item Code", "").startswith("0208020")]
    return [dict(rng.choice(good)) for _ in range(count)] if good else []


def _break(extract: Extract, rng: Random) -> None:
    faults = FAULTS[extract.source]
    # Every kind of fault occurs once, where that is not more of a short extract than one row in 25.
    least = min(len(faults), len(extract.rows) // 25)
    count = max(least, round(load_schema("synthetic/records.yaml")["broken_share"] * len(extract.rows)))
    marked: list[tuple[Row, str]] = [(row, "") for row in extract.rows]
    for number, row in enumerate(_some(rng, extract.rows, count)):
        fault, change = faults[number % len(faults)]
        marked.insert(rng.randrange(len(marked) + 1), ({**row, **change}, fault))
    extract.rows = [row for row, _ in marked]
    extract.faults = [(number, fault) for number, (_, fault) in enumerate(marked, start=1) if fault]


def _compact(day: date) -> str:
    return f"{day:%Y%m%d}"


def _slashed(day: date | None) -> str:
    return f"{day:%d/%m/%Y}" if day else ""


def _resident_days(rng: Random, person: Person, days: Days, count: int) -> list[date]:
    """Up to ``count`` days on which the person lived here, in order."""
    return sorted(day for day in (day_between(rng, *days) for _ in range(count)) if person.lives_here(day))


def _chi(rng: Random, person: Person, days: Days) -> list[Row]:
    editions = load_schema("synthetic/records.yaml")["simd_editions"]
    rows = []
    for stay in person.residences:
        edition = editions[max(year for year in editions if year <= max(stay.start.year, min(editions)))]
        values = (
            stay.chi, person.chi, person.forename, person.surname, _slashed(person.birth), person.sex, stay.postcode, stay.board,
            str(stay.quintile), edition, _slashed(stay.start), _slashed(stay.end),
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS["chi"], values, strict=True)))
    return rows


def _smr01(rng: Random, person: Person, days: Days) -> list[Row]:
    lists = load_schema("synthetic/records.yaml")
    rows = []
    for stay, admitted in enumerate(_resident_days(rng, person, days, rng.choice([0, 0, 1, 1, 2, 3])), start=1):
        start = admitted
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            # The days of episodes meet; the last day of the extract and of life ends them.
            end = min(start + timedelta(days=rng.randrange(0, 9)), days[1], person.died or days[1])
            chosen = rng.choices(lists["diagnoses"], [d["weight"] for d in lists["diagnoses"]], k=rng.randrange(1, 5))
            codes = [code for d in chosen for code in (rng.choice(d["spellings"]), d.get("asterisk")) if code][:6]
            operated = rng.random() < 0.35
            home = next(r for r in person.residences if r.start <= admitted and (r.end is None or admitted <= r.end))
            row = {
                "LINK_NO": f"{10_000_000 + 7919 * (person.index + 1)}",
                "UPI_NUMBER": person.chi,
                "CI_CHI_NUMBER": person.chi_on(admitted),
                "CIS_MARKER": str(stay),
                "ADMISSION_DATE": _compact(start),
                "DISCHARGE_DATE": _compact(end),
                "MAIN_CONDITION": codes[0],
                "MAIN_OPERATION": rng.choice(lists["operations"]) if operated else "",
                "DATE_OF_MAIN_OPERATION": _compact(start) if operated else "",
                "SPECIALTY": rng.choice(lists["specialties"]),
                "LOCATION": rng.choice(lists["locations"]),
                "HBTREAT_CURRENTDATE": home.board,
                "HBRES_CURRENTDATE": home.board,
                "DATAZONE_2011": f"S010{rng.randrange(6506, 13482):05d}",
                "SEX": "1" if person.sex == "M" else "2",
                "DOB": _compact(person.birth),
                "DISCHARGE_TRANSFER_TO": rng.choice(lists["discharges"]),
            }
            rows.append(row | {f"OTHER_CONDITION_{n}": code for n, code in enumerate(codes[1:], start=1)})
            start = end
    return rows


def _deaths(rng: Random, person: Person, days: Days) -> list[Row]:
    if person.died is None or not days[0] <= person.died <= days[1]:
        return []
    causes = rng.sample(load_schema("synthetic/records.yaml")["death_causes"], k=rng.randrange(1, 4))
    row = {
        "UPI_NUMBER": person.chi,
        "CHI": person.chi_on(person.died),
        "DOB": _compact(person.birth),
        "SEX": "1" if person.sex == "M" else "2",
        "DATE_OF_DEATH": _compact(person.died),
        "UNDERLYING_CAUSE_OF_DEATH": causes[-1],
    }
    return [row | {f"CAUSE_OF_DEATH_CODE_{n}": code for n, code in enumerate(causes)}]


def _pis(rng: Random, person: Person, days: Days) -> list[Row]:
    lists = load_schema("synthetic/records.yaml")
    rows = []
    if person.first_scan and "anticoagulant" in person.scenario:
        for before in person.scenario["anticoagulant"]:
            rows.append(_dispensing(rng, person, rng.choice(lists["anticoagulants"]), person.first_scan - timedelta(days=before)))
    elif not person.scenario and rng.random() < 0.15:
        drug = rng.choice(lists["anticoagulants"])
        rows += [_dispensing(rng, person, drug, day) for day in _resident_days(rng, person, days, 6)]
    for drug in rng.choices(lists["drugs"], [d["weight"] for d in lists["drugs"]], k=rng.randrange(0, 4)):
        for day in _resident_days(rng, person, days, rng.randrange(1, 6)):
            rows.append(_dispensing(rng, person, drug, day))
    return [row for row in rows if row]


def _dispensing(rng: Random, person: Person, drug: dict[str, Any], day: date) -> Row:
    paid = day.replace(day=calendar.monthrange(day.year, day.month)[1])
    prescribed = day - timedelta(days=min(rng.randrange(0, 4), day.timetuple().tm_yday - 1))
    values = (
        person.chi_on(day), drug["item"], drug["name"], _slashed(prescribed), _slashed(day), _slashed(paid),
        str(rng.choice([14, 28, 56, 84])),
    )  # fmt: skip
    return dict(zip(COLUMNS["pis"], values, strict=True))


def _labs(rng: Random, person: Person, days: Days) -> list[Row]:
    lists = load_schema("synthetic/records.yaml")
    rows = []
    for day in _resident_days(rng, person, days, rng.choice([0, 1, 1, 2, 3])):
        time = f"{rng.randrange(7, 19):02d}:{rng.randrange(60):02d}:00"
        for test in rng.sample(lists["labs"], k=rng.randrange(1, 5)):
            # The mean of three even draws is near enough to a bell, and the same on every machine.
            value = test["mean"] + test["spread"] * sum(rng.randrange(-100, 101) for _ in range(3)) / 150
            result, comparator = f"{max(value, 0.1):.{test.get('decimals', 0)}f}", ""
            if value > test.get("above", 1e9) and rng.random() < 0.7:
                result = f">{test['above']}"
            elif value < test.get("below", -1e9):
                result, comparator = str(test["below"]), "<"
            elif rng.random() < 0.02:
                result = rng.choice(lists["texts"])
            unit = rng.choices([test["unit"], test["misspelt"], ""], [90, 6, 4])[0]
            chi = person.chi_on(day)
            # Spreadsheets eat leading zeros; laboratories write groups.
            written = rng.choices([chi, chi.removeprefix("0"), f"{chi[:6]} {chi[6:]}"], [96, 2, 2])[0]
            values = (
                written, f"{day:%Y-%m-%d} {time}", test["test"], result, unit, test["read"], comparator, str(test["low"]),
                str(test["high"]),
            )  # fmt: skip
            rows.append(dict(zip(COLUMNS["labs"], values, strict=True)))
    return rows
