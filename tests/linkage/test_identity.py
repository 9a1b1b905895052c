"""Identity schemes: what is accepted, what is refused and why, and what check digits promise."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.errors import ConfigError
from pictures_spark.linkage.identity import Check, Identity, normalise, scheme, scheme_from

CHI = scheme("chi")
NHS = scheme("nhs")
MOD11, MOD10 = CHI.checks


def chi(nine, rule=11):
    """A CHI number from its first nine digits, by the textbook; None where mod 11 has no digit."""
    if rule == 11:
        digit = 11 - sum(int(d) * w for d, w in zip(nine, range(10, 1, -1), strict=True)) % 11
        return None if digit == 10 else f"{nine}{digit % 11}"
    doubled = [sum(map(int, str(int(d) * 2))) if at % 2 == 0 else int(d) for at, d in enumerate(nine)]
    return f"{nine}{-sum(doubled) % 10}"


@pytest.mark.parametrize(
    ("text", "value", "sex"),
    [
        ("0101011237", "0101011237", "M"),
        (" 0101011237\t", "0101011237", "M"),
        ("010101 1237", "0101011237", "M"),
        ("010101-1237", "0101011237", "M"),
        ("01 01 01 12 37", "0101011237", "M"),
        ("010101\u00a01237", "0101011237", "M"),
        # A spreadsheet ate the zero, or made it a number.
        ("101011237", "0101011237", "M"),
        ("101011237.0", "0101011237", "M"),
        ("0101011237.0", "0101011237", "M"),
        # 29 February of a leap year, and of '00, which was one in 2000.
        (chi("290248011"), chi("290248011"), "M"),
        (chi("290200106"), chi("290200106"), "F"),
    ],
)
def test_chi_is_accepted(text, value, sex):
    found = normalise(CHI, text)
    assert (found.value, found.reason, found.check, found.sex) == (value, None, "mod11", sex)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no_identifier"),
        ("", "no_identifier"),
        ("  ", "no_identifier"),
        ("XXXXXXXXXX", "no_identifier"),
        ("0000000000", "no_identifier"),
        ("9999999999", "no_identifier"),
        ("**********", "no_identifier"),
        ("A123456", "not_an_identifier"),
        ("01010112377", "not_an_identifier"),
        ("10101123", "not_an_identifier"),
        ("0101O11237", "not_an_identifier"),
        ("٠١٠١٠١١٢٣٧", "not_an_identifier"),
        # Days that no calendar has.
        ("3002011234", "not_an_identifier"),
        ("2902011234", "not_an_identifier"),
        ("0113011234", "not_an_identifier"),
        ("0101011238", "check_digit"),
        ("0101011236", "check_digit"),
        ("101011238", "check_digit"),
    ],
)
def test_chi_is_refused(text, reason):
    assert normalise(CHI, text) == Identity(None, reason)


def test_numbers_by_the_rule_of_2026_are_accepted():
    number = next(chi(f"01012612{n}", 10) for n in range(1, 10) if not MOD11.holds(chi(f"01012612{n}", 10)))
    assert normalise(CHI, number).check == "mod10"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("943 476 5919", None),
        ("9434765919", None),
        ("401 023 2137", None),
        ("4010232138", "check_digit"),
        ("0101011237", "not_an_identifier"),
    ],
)
def test_nhs_numbers(text, reason):
    # 943 476 5919 is the example of the NHS Data Dictionary, of a range that is not issued to people.
    found = normalise(NHS, text)
    expected = "not_an_identifier" if text.startswith("943") else reason
    assert found.reason == expected
    if text.startswith("943"):
        assert NHS.checks[0].holds("9434765919")


@given(st.dates(date(1900, 1, 1), date(2026, 12, 31)), st.integers(0, 999), st.integers(0, 9), st.integers(1, 9))
def test_mod_11_catches_every_wrong_digit_and_every_swap_of_neighbours(born, serial, place, step):
    number = chi(f"{born:%d%m%y}{serial:03d}")
    if number is None:
        return
    assert MOD11.holds(number)
    wrong = number[:place] + str((int(number[place]) + step) % 10) + number[place + 1 :]
    assert not MOD11.holds(wrong)
    if place < 9 and number[place] != number[place + 1]:
        swapped = number[:place] + number[place + 1] + number[place] + number[place + 2 :]
        assert not MOD11.holds(swapped)


@given(st.integers(0, 10**9 - 1), st.integers(0, 9), st.integers(1, 9))
def test_mod_10_catches_every_wrong_digit_and_swaps_but_for_0_and_9(nine, place, step):
    number = chi(f"{nine:09d}", 10)
    assert MOD10.holds(number)
    wrong = number[:place] + str((int(number[place]) + step) % 10) + number[place + 1 :]
    assert not MOD10.holds(wrong)
    if place < 9 and number[place] != number[place + 1] and {number[place], number[place + 1]} != {"0", "9"}:
        swapped = number[:place] + number[place + 1] + number[place] + number[place + 2 :]
        assert not MOD10.holds(swapped)


@given(st.text(alphabet="0123456789 -Xx.A", max_size=13))
def test_what_is_accepted_is_its_own_one_form(text):
    found = normalise(CHI, text)
    assert (found.value is None) != (found.reason is None)
    if found.value is not None:
        assert normalise(CHI, found.value) == found
        assert len(found.value) == 10


def test_another_scheme_needs_no_python():
    # A made-up hospital: letters, six digits, modulus 7; HN and leading zeros may be missing.
    declared = scheme_from(
        {
            "scheme": "hospital",
            "label": "hospital number",
            "steps": [
                {"upper": True},
                {"remove": "/ "},
                {"rewrite": {"pattern": "HN([0-9]+)", "with": "$1"}},
                {"pad_left": {"to": 6, "with": "0", "when": "[0-9]{1,5}"}},
            ],
            "masked": ["NONE"],
            "pattern": "[0-9]{6}",
            "checks": [{"name": "mod7", "modulus": 7, "weights": [6, 5, 4, 3, 2, 1], "fold": False}],
        }
    )
    good = next(f"{n:06d}" for n in range(1230, 1240) if Check("", 7, (6, 5, 4, 3, 2, 1), False).holds(f"{n:06d}"))
    assert normalise(declared, f"hn {good.lstrip('0')[:1]}/{good.lstrip('0')[1:]}").value == good
    assert normalise(declared, "none").reason == "no_identifier"
    assert normalise(declared, "HN12345678").reason == "not_an_identifier"
    assert normalise(declared, str(int(good) + 1)).reason == "check_digit"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown field colour"),
        ({"steps": [{"shout": True}]}, "shout is not a text step"),
        ({"pattern": None}, "needs pattern"),
    ],
)
def test_faulty_schemes_are_refused(change, message):
    raw = {"scheme": "s", "label": "l", "steps": [], "pattern": "[0-9]+"} | change
    raw = {name: value for name, value in raw.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        scheme_from(raw)


def test_an_undeclared_scheme_says_where_to_declare_it():
    with pytest.raises(ConfigError, match=r"add schemas/identity/passport\.yaml"):
        scheme("passport")


@pytest.mark.spark
def test_the_job_reads_identifiers_as_the_schemes_say(spark):
    import random

    from pictures_spark.linkage.link import read_as

    rng = random.Random(11)
    texts = [
        chi(f"{rng.randrange(1, 29):02d}{rng.randrange(1, 13):02d}{rng.randrange(100):02d}{rng.randrange(1000):03d}") for _ in range(150)
    ]
    texts = [text for text in texts if text]
    texts += [text[:5] + rng.choice("0123456789 -X") + text[6:] for text in texts]
    texts += (
        [text.lstrip("0") for text in texts[:150]]
        + [f"{text[:6]} {text[6:]}" for text in texts[:20]]
        + [f"{text}.0" for text in texts[:20]]
    )
    texts += [
        "",
        " ",
        "XXXX",
        "0000000000",
        "2902011234",
        "0101011237\n5",
        "4010232137",
        "٠١٠١٠١١٢٣٧",
        "\x00",
        "x" * 200,
        "9434765919",
        "943476 5918",
    ]
    rows = spark.createDataFrame([(at, text) for at, text in enumerate(texts)], "at long, source_id string")
    for names in (["chi", "nhs"], ["nhs", "chi"], ["nhs"]):
        got = {row.at: (row.scheme, row.person_id, row.reason) for row in read_as(rows, names).collect()}
        for at, text in enumerate(texts):
            told = {name: normalise(scheme(name), text) for name in names}
            fits = [name for name in names if told[name].reason is None] + [name for name in names if told[name].reason == "check_digit"]
            chosen = (fits or names)[0]
            assert got[at] == (chosen, told[chosen].value, told[chosen].reason), text
