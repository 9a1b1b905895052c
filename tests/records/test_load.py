"""Extracts in, events out: against an independent reading with Python's csv module, with every fault, again, corrected and in pieces."""

import csv
import gzip
import io
import random
import re
from collections import Counter
from datetime import date, datetime

import pytest
from houses import only_chaos, settings

from pictures_spark import tables
from pictures_spark.errors import ConfigError, InputError, QuarantineLimitError
from pictures_spark.job import run_job
from pictures_spark.keys import init_key
from pictures_spark.records import load
from pictures_spark.records.load import masters
from pictures_spark.records.source import source
from pictures_spark.zones import Zones


def sound(nine):
    digit = 11 - sum(int(d) * w for d, w in zip(nine, range(10, 1, -1), strict=True)) % 11
    return None if digit == 10 else f"{nine}{digit % 11}"


CHI = [
    number
    for nine in ("010101123", "020202345", "030303456", "140445567", "250556677", "250556675", "171145001")
    if (number := sound(nine))
]
HEADERS = {name: [column.name for column in source(name).columns] for name in ("chi", "smr01", "deaths", "pis", "labs")}


def smr01(person=0, **cells):
    return {
        "LINK_NO": f"1000{person}", "UPI_NUMBER": CHI[person], "CI_CHI_NUMBER": "", "CIS_MARKER": "1", "ADMISSION_DATE": "20150301",
        "DISCHARGE_DATE": "20150304", "MAIN_CONDITION": "I639", "SPECIALTY": "A1", "LOCATION": "T101H", "SEX": "1", "DOB": "19010101",
    } | cells  # fmt: skip


def labs(person=0, **cells):
    row = {"chi": CHI[person], "SampleDate": "2015-03-02 10:15:00", "TestCode": "EGFR", "Result": "71", "QuantityUnit": "ml/min"}
    return row | {"ReadCodeValue": "451E."} | cells


def pis(person=0, **cells):
    return {
        "Pat UPI": CHI[person], "PI BNF Item Code": "0208020V0AAAAAA", "PD Prescribed Date": "01/03/2015", "Disp Date": "02/03/2015",
        "Paid Date": "31/03/2015", "Paid Quantity": "28",
    } | cells  # fmt: skip


def chi(person=0, **cells):
    return {
        "CHI": CHI[person], "UPI_NUMBER": CHI[person], "FORENAME": "Ann", "SURNAME": "Other", "DATE_OF_BIRTH": "01/01/1901", "SEX": "M",
        "HEALTH_BOARD": "S08000024", "SIMD_QUINTILE": "3", "SIMD_EDITION": "2016",
        "DATE_TRANSFER_IN": "01/01/2008", "DATE_TRANSFER_OUT": "",
    } | cells  # fmt: skip


def death(person=0, **cells):
    row = {"UPI_NUMBER": CHI[person], "CHI": "", "DATE_OF_DEATH": "20160229", "UNDERLYING_CAUSE_OF_DEATH": "I64X"}
    return row | {"CAUSE_OF_DEATH_CODE_0": "I64X", "CAUSE_OF_DEATH_CODE_3": "F009A"} | cells


def csv_text(name, rows, header=None):
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    header = header or HEADERS[name]
    writer.writerow(header)
    writer.writerows([row.get(column, "") for column in header] for row in rows)
    return out.getvalue()


@pytest.fixture(scope="module")
def make(tmp_path_factory, _session):
    """A house with extracts: settings, a way to write files, and a way to load them."""

    class House:
        def __init__(self, sources=("chi", "smr01", "deaths", "pis", "labs"), limit=1.0):
            home = tmp_path_factory.mktemp("records")
            self.config = settings(home, records={"quarantine_limit": limit})
            declared = self.config["records"]["sources"]
            self.config["records"]["sources"] = {name: declared[name] for name in sources}
            self.zones = Zones(self.config, "identifiable")
            self.folder = home / "extracts"
            self.folder.mkdir()
            init_key(self.zones, "k1")

        def write(self, name, content):
            (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

        def load(self):
            report = run_job("records", self.config, "identifiable", load.run)
            report.balance()
            return report

        def read(self, name):
            return tables.read(_session, self.zones, "identifiable", name).collect()

        def events(self):
            """What counts of the events: all but where and when they were loaded."""
            apart = ("run_id", "file_sha256")
            return sorted(str({k: v for k, v in row.asDict().items() if k not in apart}) for row in self.read("record_event"))

        def versions(self):
            names = [path.name for path in (self.config.home / "identifiable" / "tables").iterdir()]
            return {name: tables.version(_session, self.zones, "identifiable", name) for name in names}

    return House


# --- an independent reading: plain Python, one function per source -------------------------------------------------------------------


def ref_person(*texts):
    for text in texts:
        digits = re.sub(r"[ -]", "", text.strip())
        digits = digits.zfill(10) if len(digits) == 9 else digits
        if re.fullmatch("[0-9]{10}", digits) and sound(digits[:9]) == digits:
            try:
                datetime.strptime(digits[:4] + "20" + digits[4:6], "%d%m%Y")
            except ValueError:
                continue
            return digits
    return None


def ref_date(text, form="%Y%m%d"):
    try:
        return datetime.strptime(text, form).date()
    except ValueError:
        return None


def ref_icd(text):
    code = text.strip().upper().replace(".", "")
    found = re.fullmatch(r"([A-Z]\d\d\d?\d?)X?[AD]?", code)
    return found[1] if found else None


def ref_smr01(row):
    person, first, last = (
        ref_person(row["UPI_NUMBER"], row["CI_CHI_NUMBER"]),
        ref_date(row["ADMISSION_DATE"]),
        ref_date(row["DISCHARGE_DATE"]),
    )
    main = ref_icd(row["MAIN_CONDITION"])
    bad = not person or not first or (row["DISCHARGE_DATE"] and not last) or (row["MAIN_CONDITION"] and not main) or (last and last < first)
    operation = row["MAIN_OPERATION"].replace(".", "").rstrip()
    pair = [operation[at : at + 4].strip() for at in (0, 4)]
    if bad or any(code and not re.fullmatch("[A-HJ-Z][0-9]{2,3}", code) for code in pair):
        return None
    out = [("admission", person, None, None, None, first, last)]
    out += [("discharge", person, None, None, None, last, None)] if last else []
    codes = [main, *(ref_icd(row[f"OTHER_CONDITION_{n}"]) for n in range(1, 6))]
    out += [("diagnosis", person, "icd10", code, n, first, last) for n, code in enumerate(codes) if code]
    day = ref_date(row["DATE_OF_MAIN_OPERATION"]) or first
    return out + [("procedure", person, "opcs4", code, n, day, None) for n, code in enumerate(pair) if code]


def ref_labs(row):
    person = ref_person(row["chi"])
    day = ref_date(row["SampleDate"][:10], "%Y-%m-%d")
    if not person or not day or not row["Result"].strip():
        return None
    found = re.fullmatch(r"(<=|>=|<|>)?\s*(-?\d+(?:\.\d+)?)", row["Result"].strip())
    comparator = (found[1] if found else None) or row["ArithmeticComparator"] or None
    return [
        ("lab", person, "read2", row["ReadCodeValue"].rstrip("."), comparator, float(found[2]) if found else None, row["SampleDate"][11:])
    ]


def ref_pis(row):
    person, day = ref_person(row["Pat UPI"]), ref_date(row["Disp Date"] or row["PD Prescribed Date"], "%d/%m/%Y")
    return (
        [("dispensing", person, "bnf", row["PI BNF Item Code"], row["PI BNF Item Code"][:7], day, float(row["Paid Quantity"]))]
        if person and day
        else None
    )


@pytest.mark.spark
def test_events_are_those_of_an_independent_reading(make):
    rng = random.Random(5)
    dates = ["20150301", "20150228", "20150229", "20160229", "2015-03-01", "20151301", ""]
    icd = ["I639", "I63.9", "I64X", "G309D", "F00.9A", "?6!9", "", "i10"]
    people = [*CHI, CHI[0].lstrip("0"), f"{CHI[1][:6]} {CHI[1][6:]}", "", "0101011239", "A1"]
    operations = ["W371Z942", "W37.1Z94.2", "U211    ", "    Z942", "", "W3?1"]
    rows = {
        "smr01": [
            smr01(
                LINK_NO=str(n), UPI_NUMBER=rng.choice(people), CI_CHI_NUMBER=rng.choice([*CHI, ""]), ADMISSION_DATE=rng.choice(dates),
                DISCHARGE_DATE=rng.choice(dates), MAIN_CONDITION=rng.choice(icd), OTHER_CONDITION_2=rng.choice(icd),
                MAIN_OPERATION=rng.choice(operations), DATE_OF_MAIN_OPERATION=rng.choice(dates),
            ) for n in range(120)
        ],
        "labs": [
            labs(
                chi=rng.choice(people), SampleDate=f"2015-03-{n // 60 + 1:02d} 10:{n % 60:02d}:00" if n % 9 else "2015-02-30 10:00:00",
                Result=rng.choice(["71", ">60", "> 60", "<=5.5", "Haemolysed, see comment", "", "-0.5"]),
                ArithmeticComparator=rng.choice(["", "", "<"]), QuantityUnit=rng.choice(["ml/min", "g/dl", "furlong", ""]),
            ) for n in range(120)
        ],
        "pis": [
            pis(**{"Pat UPI": rng.choice(people), "Disp Date": rng.choice(["02/03/2015", "", "29/02/2016"]), "Paid Quantity": str(n)})
            for n in range(60)
        ],
    }  # fmt: skip
    house = make(sources=tuple(rows))
    expected, refused = Counter(), 0
    for name, reader in (("smr01", ref_smr01), ("labs", ref_labs), ("pis", ref_pis)):
        text = csv_text(name, rows[name])
        house.write(f"{name}.csv", text)
        for row in csv.DictReader(io.StringIO(text, newline="")):
            made = reader(row)
            refused += made is None
            expected.update(made or [])
    report = house.load()
    assert report.counts["quarantined"] == refused
    assert report.counts["written"] == 300 - refused
    found = Counter()
    for e in house.read("record_event"):
        if e.kind == "lab":
            found[(e.kind, e.person_id, e.system, e.code, e.comparator, e.value, e.time)] += 1
            standard = {"ml/min": ("mL/min", 1), "g/dl": ("g/L", 10)}.get(e.unit_raw, (None, None))
            assert e.unit_std == standard[0]
            assert e.value_std == (None if e.value is None or standard[1] is None else e.value * standard[1])
        elif e.kind == "dispensing":
            found[(e.kind, e.person_id, e.system, e.code, e.code_root, e.date, e.value)] += 1
        else:
            found[(e.kind, e.person_id, e.system, e.code, e.position, e.date, e.end_date)] += 1
            assert e.stay_key is not None
            assert e.code_root == (e.code[:3] if e.code else None)
    assert found == expected
    assert sum(found.values()) >= 150


@pytest.mark.spark
def test_every_fault_has_its_reason_and_good_rows_are_loaded(make):
    house = make()
    good_smr = [smr01(n, LINK_NO=f"2{n}") for n in range(3)]
    faulty = [
        (smr01(ADMISSION_DATE="20150230"), "bad_date"),
        (smr01(ADMISSION_DATE="2015-03-01"), "bad_date"),
        (smr01(ADMISSION_DATE="17010301"), "bad_date"),
        (smr01(ADMISSION_DATE=""), "missing_value"),
        (smr01(DISCHARGE_DATE="20150228"), "bad_order"),
        (smr01(MAIN_CONDITION="?6!9"), "bad_code"),
        (smr01(MAIN_OPERATION="W371Z942X"), "bad_code"),
        (smr01(UPI_NUMBER=""), "missing_person_id"),
        (smr01(UPI_NUMBER="0101011239"), "bad_person_id"),
        (smr01(SPECIALTY="caf\xe9"), "bad_encoding"),
        (smr01(SPECIALTY="A\0B"), "nul_byte"),
    ]
    rows = [row for row, _ in faulty] + good_smr + [smr01(4, LINK_NO="lost zero", UPI_NUMBER=CHI[0].lstrip("0"), LOCATION="x" * 100_000)]
    text = csv_text("smr01", rows).encode("cp1252") + b"too,few\r\n"
    house.write("smr01_a.csv", text)
    house.write("smr01_b.csv", csv_text("smr01", [smr01(1)], [name for name in HEADERS["smr01"] if name != "CIS_MARKER"]))
    house.write("smr01_c.csv", b"")
    house.write("smr01_d.csv", gzip.compress(csv_text("smr01", [smr01(2)]).encode())[:-6])
    house.write(
        "labs.csv", gzip.compress(csv_text("labs", [labs(), labs(1, Result=""), labs(2, SampleDate="2015-02-30 10:00:00")]).encode())
    )
    house.write("pis.csv", csv_text("pis", [pis(), pis(1, **{"Disp Date": "", "PD Prescribed Date": ""})], [*HEADERS["pis"], "surprise"]))
    house.write(
        "deaths.csv",
        csv_text("deaths", [death(), death(1, DATE_OF_DEATH="20150229"), death(2, CAUSE_OF_DEATH_CODE_0="?", UPI_NUMBER=CHI[2])]),
    )
    (house.folder / "truth").mkdir()
    house.write("truth/smr01.csv", csv_text("smr01", [smr01(3)]))

    report = house.load()
    reasons = Counter(reason for _, reason in faulty)
    reasons.update(["wrong_field_count", "missing_column", "missing_value", "bad_date", "no_event", "bad_date"])
    assert report.quarantined == {**reasons, "empty_file": 0, "truncated_file": 0}
    assert report.counts["written"] == len(good_smr) + 1 + 1 + 1 + 2
    assert report.details["files_quarantined"] == 3
    assert report.details["pis_columns_not_declared"] == 1
    assert report.details["deaths_values_left_out"] == 1

    quarantine = house.read("quarantine")
    assert Counter(row.reason for row in quarantine) == reasons + Counter(["empty_file", "truncated_file"])
    places = {row.locator: row for row in quarantine}
    assert places["smr01_a.csv#6"].reason == "bad_code"
    assert places["smr01_a.csv#6"].detail == "column MAIN_CONDITION does not have the shape of its coding system, or is not a listed value"
    assert places["smr01_b.csv"].detail == "the header lacks CIS_MARKER"
    assert places["pis.csv#2"].reason == "no_event"
    told = " ".join(f"{row.detail} {row.object_id}" for row in quarantine) + str(report)
    assert not any(number in told for number in CHI)
    assert len({row.object_id for row in quarantine}) == len(quarantine)

    kept = {(row.source, row.month, row.reason): row.row_count for row in house.read("record_contract")}
    assert kept[("smr01", "2015-03", "accepted")] == len(good_smr) + 1
    assert kept[("smr01", "2015-03", "bad_code")] == 2
    # Of a row without a day of admission the day of discharge is told.
    assert kept[("smr01", "2015-03", "bad_date")] == 3
    assert kept[("deaths", "2016-02", "value_left_out")] == 1
    assert kept[("labs", "2015-02", "no_rows")] == 0
    assert report.details["smr01_broken_type"] == 6

    raw = house.read("record_smr01")
    assert {row.row_number for row in raw} == set(range(1, len(rows) + 2))
    assert {row.location for row in raw if row.link_no == "lost zero"} == {"x" * 100_000}
    assert {row.person_id for row in house.read("record_event") if row.source == "smr01"} == set(CHI[:3])
    assert [e.code for e in house.read("record_event") if e.kind == "death_cause" and e.person_id == CHI[0]] == ["I64", "I64", "F009"]

    before = house.versions()
    again = house.load()
    assert house.versions() == before
    assert again.counts == {"seen": report.counts["seen"], "written": 0, "unchanged": report.counts["seen"], "quarantined": 0}


@pytest.mark.chaos
@only_chaos
@pytest.mark.spark
def test_corrections_duplicates_and_late_files(make):
    house = make(sources=("smr01", "chi"))
    older, newer = CHI[3], CHI[4]
    house.write(
        "chi1.csv",
        csv_text("chi", [chi(), chi(3, DATE_TRANSFER_OUT="31/12/2012"), chi(4, DATE_TRANSFER_IN="01/01/2013", UPI_NUMBER=newer)]),
    )
    first = [smr01(OTHER_CONDITION_1="E119", OTHER_CONDITION_2="I10X"), smr01(1), smr01(1), smr01(2), smr01(2, MAIN_CONDITION="J189")]
    house.write("smr01_1.csv", csv_text("smr01", first))
    report = house.load()
    # Of two that are equal one stands; of two that differ the later.
    assert report.counts == {"seen": 8, "written": 6, "unchanged": 0, "quarantined": 0, "skipped_duplicate": 1, "skipped_superseded": 1}
    by_person = {e.person_id: e.code for e in house.read("record_event") if e.kind == "diagnosis" and e.position == 0}
    assert by_person == {CHI[0]: "I639", CHI[1]: "I639", CHI[2]: "J189"}
    upis = {row.person_id: (row.upi, row.current) for row in house.read("person")}
    assert upis == {CHI[0]: (CHI[0], True), older: (older, True), newer: (newer, True)}

    # The older number was merged into the newer, the first row lost a diagnosis, and the second comes again as it was.
    house.write("chi2.csv", csv_text("chi", [chi(3, DATE_TRANSFER_OUT="31/12/2012", UPI_NUMBER=newer)]))
    house.write(
        "smr01_2.csv", csv_text("smr01", [smr01(MAIN_CONDITION="I619", OTHER_CONDITION_1="E119"), smr01(1), smr01(5, ADMISSION_DATE="bad")])
    )
    report = house.load()
    assert report.counts == {"seen": 12, "written": 2, "unchanged": 8, "quarantined": 1, "skipped_duplicate": 1}
    assert report.details["smr01_rows_replaced"] == 1
    events = house.read("record_event")
    assert [(e.position, e.code) for e in sorted(events, key=lambda e: e.event_key) if e.kind == "diagnosis" and e.person_id == CHI[0]] == [
        (0, "I619"),
        (1, "E119"),
    ]
    assert len({e.event_key for e in events}) == len(events) == 4 + 3 + 3
    upis = {row.person_id: (row.upi, row.current) for row in house.read("person")}
    assert upis == {CHI[0]: (CHI[0], True), older: (newer, False), newer: (newer, True)}
    residence = {(row.person_id, row.from_date): row.to_date for row in house.read("person_residence")}
    assert residence == {(CHI[0], date(2008, 1, 1)): None, (older, date(2008, 1, 1)): date(2012, 12, 31), (newer, date(2013, 1, 1)): None}

    # The same content in other pieces and another order gives the same events, people and cover.
    other = make(sources=("smr01", "chi"))
    other.write("chi1.csv", csv_text("chi", [chi(4, DATE_TRANSFER_IN="01/01/2013", UPI_NUMBER=newer)]))
    other.write(
        "chi2.csv", csv_text("chi", [chi(3, DATE_TRANSFER_OUT="31/12/2012", UPI_NUMBER=newer), chi()], list(reversed(HEADERS["chi"])))
    )
    other.write("smr01_1.csv", csv_text("smr01", [smr01(2, MAIN_CONDITION="J189")]))
    other.write(
        "smr01_2.csv", csv_text("smr01", [smr01(1), smr01(MAIN_CONDITION="I619", OTHER_CONDITION_1="E119")], sorted(HEADERS["smr01"]))
    )
    with pytest.MonkeyPatch.context() as patch:
        # And written by Spark, as on storage that is not mounted.
        patch.setattr(tables, "mounted", lambda *_: False)
        other.load()
    assert other.events() == house.events()
    people = [
        [tuple(row)[:-2] for row in sorted(h.read(t), key=str)]
        for h in (house, other)
        for t in ("person", "person_residence", "source_cover")
    ]
    assert [sorted(map(str, rows)) for rows in people[:3]] == [sorted(map(str, rows)) for rows in people[3:]]

    # Declarations that changed: everything is judged again, also rows of a file that is gone.
    (house.folder / "smr01_1.csv").unlink()
    before = house.events()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "schema_version", lambda name: f"other {name}")
        report = house.load()
        assert report.counts["unchanged"] == 0
        assert house.events() == before
        assert house.load().counts["written"] == 0


@pytest.mark.chaos
@only_chaos
@pytest.mark.spark
def test_a_run_that_was_stopped_is_made_good(make):
    house = make(sources=("smr01",))
    house.write("smr01.csv", csv_text("smr01", [smr01(), smr01(1)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "_accept", lambda *_: (_ for _ in ()).throw(OSError("stopped")))
        with pytest.raises(OSError, match="stopped"):
            house.load()
    assert house.read("record_file") == []
    stopped = house.events()
    report = house.load()
    assert report.counts["written"] == 2
    assert house.events() == stopped
    assert len(house.read("record_smr01")) == 2


@pytest.mark.spark
def test_too_much_quarantine_leaves_the_events_as_they_were(make):
    house = make(sources=("smr01",), limit=0.3)
    house.write("smr01.csv", csv_text("smr01", [smr01(), smr01(1, ADMISSION_DATE="bad")]))
    with pytest.raises(QuarantineLimitError, match="1 of 2 inputs"):
        house.load()
    assert house.read("record_event") == house.read("record_file") == []
    assert len(house.read("quarantine")) == 1


@pytest.mark.spark
def test_settings_that_cannot_work_are_refused(make):
    house = make(sources=("smr01",))
    with pytest.raises(InputError, match="no extract file matches"):
        house.load()
    house.config["records"]["sources"]["smr99"] = house.config["records"]["sources"]["smr01"]
    with pytest.raises(ConfigError, match="record source 'smr99' is not declared"):
        house.load()


@pytest.mark.parametrize(
    ("merges", "ends"),
    [
        ({}, {}),
        ({"a": "b"}, {"a": "b"}),
        ({"a": "b", "b": "c", "c": "d"}, {"a": "d", "b": "d", "c": "d"}),
        ({"a": "z", "b": "z"}, {"a": "z", "b": "z"}),
        ({"b": "a", "a": "b"}, {"a": "a", "b": "a"}),
        ({"x": "c", "c": "b", "b": "c"}, {"x": "b", "b": "b", "c": "b"}),
    ],
)
def test_merges_are_followed_to_their_end(merges, ends):
    assert masters(merges) == ends
