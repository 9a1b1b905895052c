"""A register and the headers of its people, clean and dirty, with who each header truly means: what linkage is measured and trained on.

Enters: seed and number of people. Leaves: rows of ``person``, ``header_instance`` and ``header_series``, and a truth row for each header.
Pure; one pass, a person at a time. Who a header means is known because it was made from that person, never by comparing anything.
Every share is a constant here, so that a quality table says what it was measured on.
"""

import json
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate, islice
from random import Random
from typing import Any

from pictures_spark.synthetic.people import chi_number, invented_words, mistyped, postcode

# How PatientID is written: share of headers.
WRITTEN = {
    "chi": 0.79,
    "spaced": 0.03,
    "lost_zero": 0.02,
    "older_number": 0.03,
    "someone_else": 0.002,
    "wrong_digit": 0.03,
    "nested": 0.025,
    "hospital": 0.025,
    "missing": 0.03,
    "not_registered": 0.01,
    "newborn": 0.003,
    "temporary": 0.002,
    "test_patient": 0.002,
    "phantom": 0.001,
}
# What else is wrong with a header, each on its own.
NAMES = {"typo": 0.05, "turned": 0.015, "initial": 0.03, "no_forename": 0.02, "no_name": 0.02, "other_surname": 0.015}
DATES = {"missing": 0.03, "day_month": 0.015, "typo": 0.015}
SEXES = {"missing": 0.03, "wrong": 0.01}
TWINS, TWIN_SWAPPED, HAS_POSTCODE, MOVED = 0.03, 0.02, 0.4, 0.3
SECOND_HEADER = 0.3
_BORN = (date(1925, 1, 1), date(2025, 1, 1))
_SURNAMES, _FORENAMES = 4000, 600


@dataclass(frozen=True)
class Resident:
    """Somebody in the register."""

    upi: str
    older: str | None
    surname: str
    forename: str
    birth: date
    sex: str
    postcode: str


@dataclass(frozen=True)
class Made:
    """A header with its truth: ``upi`` is who it means (None: nobody in the register), ``written`` what is wrong with its PatientID."""

    header: dict[str, Any]
    elements: dict[str, Any]
    upi: str | None
    written: str


def _picker(words: list[str]) -> Any:
    """Draws words as often as names are met: the n-th with weight 1 / (n + 10)."""
    sums = list(accumulate(1 / (place + 10) for place in range(len(words))))
    return lambda rng: words[bisect(sums, rng.random() * sums[-1])]


def _chosen(rng: Random, shares: dict[str, float]) -> str | None:
    at = rng.random()
    for name, share in shares.items():
        at -= share
        if at < 0:
            return name
    return None


def residents(seed: int, count: int) -> Iterator[Resident]:
    """The people: some are twins, of one surname, birth date and postcode; some had another number before."""
    rng = Random(f"identities {seed}")
    words = [word.upper() for word in islice(invented_words(Random("names")), _SURNAMES + _FORENAMES)]
    surname, forename = _picker(words[:_SURNAMES]), _picker(words[_SURNAMES:])
    used: set[str] = set()

    def number(birth: date, sex: str) -> str:
        while (found := chi_number(birth, sex, rng)) in used:
            birth += timedelta(days=1)
        used.add(found)
        return found

    sibling: Resident | None = None
    for _ in range(count):
        sex = rng.choice("MF")
        if sibling is not None:
            birth, family, home = sibling.birth, sibling.surname, sibling.postcode
        else:
            birth = _BORN[0] + timedelta(days=rng.randrange((_BORN[1] - _BORN[0]).days))
            family, home = surname(rng), postcode(rng)
        older = number(birth, sex) if rng.random() < WRITTEN["older_number"] * 2 else None
        given = forename(rng)
        while sibling is not None and given == sibling.forename:
            given = forename(rng)
        made = Resident(number(birth, sex), older, family, given, birth, sex, home)
        sibling = made if sibling is None and rng.random() < TWINS / 2 else None
        yield made


def person_rows(who: Resident) -> list[dict[str, Any]]:
    """The rows of ``person``."""
    row = {"upi": who.upi, "scheme": "chi", "forename": who.forename, "surname": who.surname, "birth_date": who.birth, "sex": who.sex}
    row |= {"postcode": who.postcode, "file_sha256": "0" * 64}
    return [{**row, "person_id": number, "current": number == who.upi} for number in (who.upi, who.older) if number is not None]


def headers(seed: int, people: list[Resident]) -> Iterator[Made]:
    """One or two headers for each person, dirty by the shares above, and those of people whom the register does not have."""
    rng = Random(f"headers {seed}")
    words = [word.upper() for word in islice(invented_words(Random("names")), _SURNAMES)]
    taken = {number for who in people for number in (who.upi, who.older)}
    for place, who in enumerate(people):
        for _ in range(2 if rng.random() < SECOND_HEADER else 1):
            twin = next((t for t in people[max(place - 1, 0) : place + 2] if t is not who and _twins(t, who)), None)
            yield _header(rng, who, twin, people[rng.randrange(len(people))], words, taken)


def _twins(one: Resident, other: Resident) -> bool:
    return one.birth == other.birth and one.surname == other.surname and one.postcode == other.postcode


def _header(rng: Random, who: Resident, twin: Resident | None, anybody: Resident, words: list[str], taken: set[str | None]) -> Made:
    written = _chosen(rng, WRITTEN) or "chi"
    if twin is not None and rng.random() < TWIN_SWAPPED:
        written = "twin_swapped"
    if written == "older_number" and who.older is None:
        written = "chi"
    surname, forename = _name(rng, who, words)
    born, sex = _birth(rng, who.birth), _sex(rng, who.sex)
    home = postcode(rng) if rng.random() < MOVED else who.postcode
    name: str = f"{surname}^{forename}" if forename else surname
    elements: dict[str, Any] = {"00101040": {"vr": "LO", "Value": [home]}} if rng.random() < HAS_POSTCODE else {}
    meant: str | None = who.upi
    hospital = f"H{rng.randrange(10**6, 10**7)}"
    match written:
        case "spaced":
            identifier = f"{who.upi[:6]} {who.upi[6:]}"
        case "lost_zero":
            identifier = who.upi.lstrip("0") if who.upi[0] == "0" and who.upi[1] != "0" else who.upi
        case "older_number":
            identifier = who.older or who.upi
        case "someone_else":
            identifier = anybody.upi
        case "twin_swapped" if twin is not None:
            identifier = twin.upi
        case "wrong_digit":
            identifier = _mistyped(rng, who.upi)
        case "nested":
            identifier = hospital
            other = {"00100020": {"vr": "LO", "Value": [who.upi]}}
            elements["00101002"] = {"vr": "SQ", "Value": [other]}
        case "hospital":
            identifier = hospital
        case "missing":
            identifier = ""
        case "not_registered":
            birth = _BORN[0] + timedelta(days=rng.randrange((_BORN[1] - _BORN[0]).days))
            while (identifier := chi_number(birth, sex or "M", rng)) in taken:
                birth += timedelta(days=1)
            born, meant = birth, None
            name = f"{rng.choice(words)}^{forename or 'X'}"
            elements = {}
        case "newborn":
            # The mother's number, on a child that has none yet.
            identifier, name, born, meant = who.upi, f"{who.surname}^BABY", date(2025, 3, 1) + timedelta(days=rng.randrange(300)), None
            sex = rng.choice("MF")
        case "temporary":
            identifier, name, born, meant = f"TEMP{hospital[1:]}", "UNKNOWN^MALE", None, None
        case "test_patient":
            identifier, name, meant = rng.choice((who.upi, "TEST1")), rng.choice(("TEST^PATIENT", "ZZZTEST^ONE")), None
        case "phantom":
            identifier, name, born, meant = rng.choice(("PHANTOM", "QA 1")), rng.choice(("PHANTOM^ACR", "QA^DAILY")), None, None
        case _:
            identifier = who.upi
    said = {"patient_id_raw": identifier, "patient_name": name, "patient_birth_date": born, "patient_sex": sex}
    return Made(said, elements, meant, written)


def _name(rng: Random, who: Resident, words: list[str]) -> tuple[str, str]:
    match _chosen(rng, NAMES):
        case "typo" if rng.random() < 0.5:
            return _slip(rng, who.surname), who.forename
        case "typo":
            return who.surname, _slip(rng, who.forename)
        case "turned":
            return who.forename, who.surname
        case "initial":
            return who.surname, who.forename[0]
        case "no_forename":
            return who.surname, ""
        case "no_name":
            return "", ""
        case "other_surname":
            return rng.choice(words), who.forename
    return who.surname, who.forename


def _slip(rng: Random, word: str) -> str:
    """A letter left out, doubled, replaced, or two changed places."""
    at = rng.randrange(len(word) - 1)
    kind = rng.randrange(4)
    middle = ("", word[at] * 2, rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), word[at + 1] + word[at])[kind]
    return word[:at] + middle + word[at + (2 if kind == 3 else 1) :]


def _birth(rng: Random, birth: date) -> date | None:
    match _chosen(rng, DATES):
        case "missing":
            return None
        case "day_month" if birth.day <= 12:
            return birth.replace(month=birth.day, day=birth.month)
        case "typo":
            return (
                birth.replace(day=birth.day % 28 + 1) if rng.random() < 0.6 else birth.replace(year=birth.year - 10, day=min(birth.day, 28))
            )
    return birth


def _sex(rng: Random, sex: str) -> str | None:
    match _chosen(rng, SEXES):
        case "missing":
            return None
        case "wrong":
            return "F" if sex == "M" else "M"
    return sex


def _mistyped(rng: Random, number: str) -> str:
    """A number with a wrong digit anywhere that makes it fail its check; see `people.mistyped`."""
    if rng.random() < 0.3:
        return mistyped(number)
    at = rng.randrange(10)
    return number[:at] + str((int(number[at]) + rng.randrange(1, 10)) % 10) + number[at + 1 :]


def template(elements: dict[str, Any]) -> str:
    """The elements as ``header_series`` keeps them."""
    return json.dumps(elements, separators=(",", ":"))
