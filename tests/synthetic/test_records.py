"""The extracts: columns as promised, rows that hold together, and as many faults as were planted."""

from collections import Counter
from datetime import datetime

import pytest

COLUMNS = {
    "chi": "CHI,UPI_NUMBER,FORENAME,SURNAME,DATE_OF_BIRTH,SEX,POSTCODE,HEALTH_BOARD,SIMD_QUINTILE,SIMD_EDITION,DATE_TRANSFER_IN,"
    "DATE_TRANSFER_OUT",
    "smr01": "LINK_NO,UPI_NUMBER,CI_CHI_NUMBER,CIS_MARKER,ADMISSION_DATE,DISCHARGE_DATE,MAIN_CONDITION,OTHER_CONDITION_1,OTHER_CONDITION_2,"
    "OTHER_CONDITION_3,OTHER_CONDITION_4,OTHER_CONDITION_5,MAIN_OPERATION,DATE_OF_MAIN_OPERATION,SPECIALTY,LOCATION,HBTREAT_CURRENTDATE,"
    "HBRES_CURRENTDATE,DATAZONE_2011,SEX,DOB,DISCHARGE_TRANSFER_TO",
    "deaths": "UPI_NUMBER,CHI,DOB,SEX,DATE_OF_DEATH,UNDERLYING_CAUSE_OF_DEATH," + ",".join(f"CAUSE_OF_DEATH_CODE_{n}" for n in range(10)),
    "pis": "Pat UPI,PI BNF Item Code,PI Approved Name,PD Prescribed Date,Disp Date,Paid Date,Paid Quantity",
    "labs": "chi,SampleDate,TestCode,Result,QuantityUnit,ReadCodeValue,ArithmeticComparator,RangeLowValue,RangeHighValue",
    "truth/people": "chi,upi,forename,surname,birth_date,sex,postcode,merged_into_upi",
    "truth/scans": "chi,patient_id_in_header,accession,study_uid,series_uid,sop_uid,modality,locator,burned_in_text,cohort_example",
    "truth/canaries": "kind,value",
    "truth/faults": "source,row,fault",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_those_of_the_source(made, name):
    header = (made.extracts / f"{name}.csv").read_text(encoding="utf-8").split("\n", 1)[0]
    assert header == COLUMNS[name]


def good(made, source):
    """Rows that are not broken on purpose."""
    broken = {int(row["row"]) for row in made.rows("truth/faults") if row["source"] == source}
    return [row for number, row in enumerate(made.rows(source), start=1) if number not in broken]


def test_planted_faults_are_where_the_truth_says(made):
    for fault in made.rows("truth/faults"):
        row = made.rows(fault["source"])[int(fault["row"]) - 1]
        values = list(row.values())
        match fault["fault"]:
            case "bad_date":
                assert any("0230" in value or "30/02/" in value or "-02-30" in value for value in values)
            case "bad_code":
                assert any("?" in value for value in values)
            case "no_identifier":
                names = {
                    "chi": ("CHI", "UPI_NUMBER"),
                    "smr01": ("UPI_NUMBER", "CI_CHI_NUMBER"),
                    "pis": ("Pat UPI",),
                    "labs": ("chi",),
                    "reports": ("CHI",),
                }
                assert not any(row[name] for name in names[fault["source"]])
            case other:
                pytest.fail(f"an unknown kind of fault: {other}")
    kinds = {(row["source"], row["fault"]) for row in made.rows("truth/faults")}
    assert kinds >= {(source, "bad_date") for source in ("chi", "smr01", "pis", "labs")}
    assert kinds >= {("smr01", "bad_code"), ("pis", "bad_code"), ("pis", "no_identifier")}


def test_few_rows_are_broken(made):
    for source in ("chi", "smr01", "deaths", "pis", "labs"):
        rows = len(made.rows(source))
        assert rows - len(good(made, source)) <= 0.05 * rows


@pytest.mark.parametrize(
    ("source", "column", "form"),
    [
        ("smr01", "ADMISSION_DATE", "%Y%m%d"),
        ("deaths", "DATE_OF_DEATH", "%Y%m%d"),
        ("pis", "Disp Date", "%d/%m/%Y"),
        ("labs", "SampleDate", "%Y-%m-%d %H:%M:%S"),
    ],
)
def test_dates_lie_in_the_cover_of_the_source(made, source, column, form):
    cover = made.config["records"]["sources"][source]
    days = [datetime.strptime(row[column], form).date().isoformat() for row in good(made, source)]
    assert days
    assert cover["from_date"] <= min(days)
    assert max(days) <= cover["to_date"]


def test_stays_have_episodes_that_meet(made):
    stays = {}
    for row in good(made, "smr01"):
        stays.setdefault((row["LINK_NO"], row["CIS_MARKER"]), []).append((row["ADMISSION_DATE"], row["DISCHARGE_DATE"]))
        assert row["MAIN_CONDITION"]
        assert len(row["MAIN_OPERATION"]) in (0, 8)
    assert any(len(episodes) > 1 for episodes in stays.values())
    # A broken row is a copy of a good one, so what holds for the good ones may be told twice.
    for episodes in stays.values():
        ordered = sorted(set(episodes))
        assert all(start <= end for start, end in ordered)
        assert {start for start, _ in ordered[1:]} <= {end for _, end in ordered}
    spellings = {row[name] for row in good(made, "smr01") for name in row if "CONDITION" in name}
    assert any("." in code for code in spellings)
    assert any(code.endswith("D") for code in spellings)
    assert any(code.endswith("A") for code in spellings)
    assert "I64X" in spellings


def test_dispensings_are_of_every_group_and_paid_at_the_end_of_the_month(made):
    rows = good(made, "pis")
    groups = Counter(row["PI BNF Item Code"][:4] for row in rows)
    assert {"0208", "0209", "0212"} <= set(groups)
    for row in rows:
        prescribed, dispensed, paid = (datetime.strptime(row[n], "%d/%m/%Y") for n in ("PD Prescribed Date", "Disp Date", "Paid Date"))
        assert len(row["PI BNF Item Code"]) == 15
        assert prescribed <= dispensed <= paid
        assert (paid.year, paid.month) == (dispensed.year, dispensed.month)


def test_results_have_the_trouble_that_results_have(made):
    rows = good(made, "labs")
    assert ">60" in {row["Result"] for row in rows if row["TestCode"] == "EGFR"}
    assert "" in {row["QuantityUnit"] for row in rows if row["TestCode"] != "INR"}


def test_nothing_happens_to_the_dead(made):
    died = {row["UPI_NUMBER"]: row["DATE_OF_DEATH"] for row in good(made, "deaths")}
    assert died
    for row in good(made, "smr01"):
        assert row["DISCHARGE_DATE"] <= died.get(row["UPI_NUMBER"], "9")
