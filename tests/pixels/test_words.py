"""What texts mean: markers, kinds of pages, a patient's own words however a reader has spoilt them."""

from datetime import date

import pytest

from pictures_spark.pixels.words import is_marker, kind_of, matches

OWN = {"name": ["MACTAVISH^MORAG", None], "number": ["0104501236", "ACC2015"], "date": [date(1950, 4, 1), None]}


@pytest.mark.parametrize("text", ["R", "l", "R MLO", "rcc", "PA ERECT", "10 cm", "5mm", "2.5 cm", "Supine"])
def test_markers_are_whole_strings(text):
    assert is_marker(text)


@pytest.mark.parametrize("text", ["R SMITH", "MLO 1950", "LEE", "1234", "SUPINE R JONES", "10 cmx", ""])
def test_other_texts_are_no_markers(text):
    assert not is_marker(text)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("MACTAVISH, M", ["name"]),
        ("MACTAV1SH", ["name"]),
        ("ACTAVISH", ["name"]),
        ("Morag", ["name"]),
        # A CHI number begins with the birth date.
        ("CHI 010 450 1236", ["date", "number"]),
        ("O1O45O1236", ["number"]),
        ("0104501286", ["date", "number"]),
        ("DOB 01/04/1950", ["date"]),
        ("1 Apr", []),
        ("01-APR-50", ["date"]),
        ("MacTavish 01.04.1950", ["date", "name"]),
        ("MACDONALD", []),
        ("CONTRAST 120 KV", []),
        ("", []),
    ],
)
def test_own_words_are_told_from_others(text, kinds):
    assert matches(text, OWN) == kinds


def test_nothing_known_matches_nothing():
    assert matches("MACTAVISH", {}) == []
    assert matches("MACTAVISH", {"name": [None, "", "^^"], "number": ["", "X1"], "date": [None]}) == []


def test_kinds_of_pages():
    filling = ["1.25"] * 6
    assert kind_of(["CTDIvol 12.1", "DLP (mGy.cm) 512", *filling]) == "dose_report"
    assert kind_of(["Surname: X", "Date of Birth", *filling]) == "form"
    assert kind_of(["Surname: X", *filling]) == "text"
    assert kind_of(["CTDIvol", "DLP"]) == "text"
