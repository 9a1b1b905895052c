"""How fast extracts of health records are loaded: ours against named peers, on the same CSV files, in the same run.

    python benchmarks/records.py [--n 10000000] [--rounds 5] [--folder .cache/benchmarks]

The extracts are SMR01, PIS and labs (1 : 5 : 4), two files each; every fiftieth row is broken: a day that no calendar has, a code of no
system, a person who is not named, a number that is none. Ours is the whole job ``records`` into an empty zone: the rows as they came, the
typed events, quarantine, cover and report. It is checked in every round that each row is an event's or in quarantine.

The peers read the same files with two cores and keep one table per file kind, and no more:

- plain Spark: ``spark.read.csv`` and ``try_cast`` of what is a date or a number, to Delta; a broken value is null;
- DuckDB: ``read_csv`` with the same casts, to Parquet.
"""

import argparse
import shutil
import sys
from pathlib import Path

import duckdb
import numpy as np
import yaml
from measure import ROUNDS, line, medians

from pictures_spark import tables
from pictures_spark.config import Config, load_config
from pictures_spark.job import Job, run_job
from pictures_spark.keys import init_key
from pictures_spark.records import load
from pictures_spark.resources import conf_dir, load_yaml
from pictures_spark.zones import Zones

SHARES = {"smr01": 1, "pis": 5, "labs": 4}
FILES = 2
BROKEN_EVERY = 50
PEOPLE = 400_000
# A column of each source as DuckDB makes it from i, the number of the row; ``chi`` is a person's number. The last is what breaks a row.
_PICK = "list_extract({}, 1 + CAST(hash(i * 7 + {}) % {} AS INTEGER))"


def pick(values: list[str], salt: int) -> str:
    """One of some texts, by chance that follows from the row's number."""
    return _PICK.format(str(values), salt, len(values))


def day(form: str, salt: int, days: int = 4000, start: str = "DATE '2009-01-01'") -> str:
    """A day as text."""
    return f"strftime({start} + CAST(hash(i * 3 + {salt}) % {days} AS INTEGER), '{form}')"


ICD10 = ["I639", "I63.9", "I64X", "I10X", "E119", "G309D", "J189", "J449", "C34.9", "S7200", "N390", "R074"]
OPCS4 = ["W371Z942", "U211    ", "K634Y534", "", "", ""]
BNF = ["0208020V0AAAAAA", "0209000A0AAABAB", "0212000Y0AAADAD", "0601022B0AAABAB", "0407010H0AAAMAM", "21220000201"]
COLUMNS: dict[str, dict[str, str]] = {
    "smr01": {
        "LINK_NO": "CAST(10000000 + person AS VARCHAR)",
        "UPI_NUMBER": "chi",
        "CI_CHI_NUMBER": "chi",
        "CIS_MARKER": "CAST(i AS VARCHAR)",
        "ADMISSION_DATE": day("%Y%m%d", 1),
        "DISCHARGE_DATE": day("%Y%m%d", 1, start="DATE '2009-01-04'"),
        "MAIN_CONDITION": pick(ICD10, 2),
        **{f"OTHER_CONDITION_{n}": pick(ICD10 + [""] * 12 * n, 2 + n) for n in range(1, 6)},
        "MAIN_OPERATION": pick(OPCS4, 8),
        "DATE_OF_MAIN_OPERATION": day("%Y%m%d", 1),
        "SPECIALTY": pick(["A1", "A2", "AB", "C8"], 9),
        "LOCATION": pick(["T101H", "N101H", "S314H"], 10),
        "HBTREAT_CURRENTDATE": pick(["S08000015", "S08000024"], 11),
        "HBRES_CURRENTDATE": pick(["S08000015", "S08000024"], 12),
        "DATAZONE_2011": "'S010' || CAST(10000 + i % 3000 AS VARCHAR)",
        "SEX": pick(["1", "2"], 13),
        "DOB": "'19' || substr(chi, 5, 2) || substr(chi, 3, 2) || substr(chi, 1, 2)",
        "DISCHARGE_TRANSFER_TO": pick(["10", "12", "40", "50"], 14),
    },
    "pis": {
        "Pat UPI": "chi",
        "PI BNF Item Code": pick(BNF, 1),
        "PI Approved Name": pick(["WARFARIN SODIUM", "ASPIRIN", "SIMVASTATIN", "PARACETAMOL"], 1),
        "PD Prescribed Date": day("%d/%m/%Y", 2),
        "Disp Date": day("%d/%m/%Y", 2),
        "Paid Date": day("%d/%m/%Y", 2),
        "Paid Quantity": pick(["14", "28", "56", "84"], 3),
    },
    "labs": {
        "chi": "chi",
        "SampleDate": f"{day('%Y-%m-%d', 1)} || strftime(TIMESTAMP '2009-01-01' + to_minutes(i % 1440), ' %H:%M:%S')",
        "TestCode": pick(["EGFR", "CREA", "NA", "K", "HB", "CRP"], 2),
        "Result": "CASE WHEN i % 9 = 0 THEN '>60' WHEN i % 101 = 0 THEN 'Haemolysed' ELSE CAST(hash(i) % 900 / 10.0 AS VARCHAR) END",
        "QuantityUnit": pick(["ml/min", "umol/L", "mmol/L", "mmols/L", "g/L", "mg/L", "mg/l", ""], 2),
        "ReadCodeValue": pick(["451E.", "44J3.", "44I5.", "44I4.", "423..", "44CC."], 2),
        "ArithmeticComparator": "''",
        "RangeLowValue": pick(["60", "3.5", "115"], 2),
        "RangeHighValue": pick(["120", "5.3", "180"], 2),
    },
}
BROKEN = {
    "smr01": [("ADMISSION_DATE", "20150230"), ("MAIN_CONDITION", "?6!9"), ("UPI_NUMBER", "0000000000"), ("DISCHARGE_DATE", "19990101")],
    "pis": [("Disp Date", "30/02/2015"), ("PI BNF Item Code", "02X?"), ("Pat UPI", "")],
    "labs": [("SampleDate", "2015-02-30 10:00:00"), ("chi", "0101011239")],
}
# What the peers cast, and how: Spark's form of a day, and DuckDB's.
DATES = {
    "smr01": ({"ADMISSION_DATE", "DISCHARGE_DATE", "DATE_OF_MAIN_OPERATION", "DOB"}, "yyyyMMdd", "%Y%m%d"),
    "pis": ({"PD Prescribed Date", "Disp Date", "Paid Date"}, "dd/MM/yyyy", "%d/%m/%Y"),
    "labs": ({"SampleDate"}, "yyyy-MM-dd HH:mm:ss", "%Y-%m-%d %H:%M:%S"),
}
NUMBERS = {"Paid Quantity", "Result", "RangeLowValue", "RangeHighValue"}


def write(folder: Path, n: int) -> dict[str, int]:
    """The extracts of ``n`` rows, once; rows by source."""
    rows = {name: n * share // sum(SHARES.values()) for name, share in SHARES.items()}
    done = folder / "done"
    if done.is_file():
        return rows
    folder.mkdir(parents=True, exist_ok=True)
    numbers = chi_numbers()  # noqa: F841 - DuckDB finds it by its name
    with duckdb.connect(config={"threads": 2}) as db:
        db.execute("CREATE TABLE people AS SELECT column0 AS person, column1 AS chi FROM numbers")
        for name, count in rows.items():
            for part in range(FILES):
                first, last = count * part // FILES, count * (part + 1) // FILES
                columns = ", ".join(f'{_broken(name, column, made)} AS "{column}"' for column, made in COLUMNS[name].items())
                db.execute(
                    f"COPY (SELECT {columns} FROM range({first}, {last}) rows(i) JOIN people ON person = hash(i * 11) % {PEOPLE}) "
                    f"TO '{folder / f'{name}_{part}.csv'}' (HEADER)"
                )
    done.touch()
    return rows


def _broken(name: str, column: str, made: str) -> str:
    kinds = BROKEN[name]
    ways = [(at, text) for at, (broken, text) in enumerate(kinds) if broken == column]
    if name == "smr01" and column == "CI_CHI_NUMBER":
        ways = [(2, "")]
    cases = "".join(f" WHEN i % {BROKEN_EVERY} = 0 AND i // {BROKEN_EVERY} % {len(kinds)} = {at} THEN '{text}'" for at, text in ways)
    return f"CASE{cases} ELSE {made} END" if cases else made


def chi_numbers() -> dict[str, np.ndarray]:
    """Numbers that follow the scheme: a day of the calendar, three digits and a check digit."""
    rng = np.random.default_rng(1)
    count = PEOPLE * 2
    days = [rng.integers(1, 29, count), rng.integers(1, 13, count), rng.integers(20, 100, count), rng.integers(0, 1000, count)]
    nine = np.array([f"{d:02d}{m:02d}{y:02d}{k:03d}" for d, m, y, k in zip(*days, strict=True)])
    digits = nine.view("U1").reshape(count, 9).astype(np.int64)
    check = 11 - (digits * np.arange(10, 1, -1)).sum(axis=1) % 11
    good = np.unique(np.char.add(nine, (check % 11).astype("U2"))[check != 10])
    chosen = rng.permutation(good)[:PEOPLE]
    return {"column0": np.arange(PEOPLE), "column1": chosen.astype(object)}


def settings(home: Path, extracts: Path) -> Config:
    """The shipped settings with the three sources, the written extracts, and an empty home."""
    values = load_yaml(conf_dir() / "local.yaml")
    values["home"] = str(home)
    values["zones"] = {**values["zones"], "extracts": str(extracts)}
    values["records"]["sources"] = {name: values["records"]["sources"][name] for name in SHARES}
    home.mkdir(parents=True, exist_ok=True)
    path = home / "conf.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_config(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000_000, help="rows")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds that count, after one to warm up")
    parser.add_argument("--folder", type=Path, default=Path(".cache/benchmarks"), help="where the extracts are made and kept")
    given = parser.parse_args()
    folder = given.folder.resolve() / f"records-{given.n}"
    print(f"  .. extracts in {folder}", file=sys.stderr, flush=True)
    rows = write(folder, given.n)
    n, work = sum(rows.values()), folder / "work"
    jobs: list[Job] = []

    def fresh(name: str) -> Path:
        shutil.rmtree(work / name, ignore_errors=True)
        return work / name

    def ours() -> None:
        config = settings(work / "ours", folder)
        # Not the whole home: Spark's scratch space is in it.
        shutil.rmtree(work / "ours" / "identifiable" / "tables", ignore_errors=True)
        zones = Zones(config, "identifiable")
        if not jobs:
            init_key(zones, config["keys"]["key_id"])

        def heart(job: Job) -> None:
            load.run(job)
            jobs.append(job)

        report = run_job("records", config, "identifiable", heart)
        broken = sum(-(-count // BROKEN_EVERY) for count in rows.values())
        # A few rows have the key of another, by chance.
        loaded = report.counts["written"] + report.counts.get("skipped_duplicate", 0) + report.counts.get("skipped_superseded", 0)
        if report.counts["quarantined"] != broken or loaded != n - broken:
            sys.exit(f"rows are missing: {report.counts}, not {n - broken} and {broken}")
        if tables.read(jobs[-1].spark, zones, "identifiable", "quarantine").count() != broken:
            sys.exit("quarantine does not hold the rows that were refused")

    def plain_spark() -> None:
        from pyspark.sql import functions as F

        spark, target = jobs[-1].spark, fresh("spark")
        for name in SHARES:
            days, form, _ = DATES[name]
            schema = ", ".join(f"`{column}` string" for column in COLUMNS[name])
            read = spark.read.csv(str(folder / f"{name}_*.csv"), schema=schema, header=True)
            cast = [
                F.try_to_timestamp(F.col(f"`{column}`"), F.lit(form)).cast("timestamp_ntz" if "HH" in form else "date")
                if column in days
                else F.col(f"`{column}`").try_cast("double")
                if column in NUMBERS
                else F.col(f"`{column}`")
                for column in COLUMNS[name]
            ]
            named = [value.alias(column.lower().replace(" ", "_")) for value, column in zip(cast, COLUMNS[name], strict=True)]
            read.select(named).write.format("delta").save(str(target / name))

    def plain_duckdb() -> None:
        target = fresh("duckdb")
        target.mkdir(parents=True)
        with duckdb.connect(config={"threads": 2}) as db:
            for name in SHARES:
                days, _, form = DATES[name]
                cast = [
                    f'try_strptime("{column}", \'{form}\') AS "{column}"'
                    if column in days
                    else f'TRY_CAST("{column}" AS DOUBLE) AS "{column}"'
                    if column in NUMBERS
                    else f'"{column}"'
                    for column in COLUMNS[name]
                ]
                read = f"read_csv('{folder}/{name}_*.csv', header=true, all_varchar=true, quote='\"', escape='\"', delim=',')"
                db.execute(f"COPY (SELECT {', '.join(cast)} FROM {read}) TO '{target / name}.parquet' (COMPRESSION zstd)")

    seconds = medians([ours, plain_spark, plain_duckdb], given.rounds)
    shutil.rmtree(work, ignore_errors=True)
    rates = [60 * n / taken for taken in seconds]
    print(line("records_load", rates[0], rates[1], "spark.read.csv and casts to Delta", "rows/min", n))
    print(line("records_load_vs_duckdb", rates[0], rates[2], "DuckDB read_csv and casts to Parquet", "rows/min", n))


if __name__ == "__main__":
    main()
