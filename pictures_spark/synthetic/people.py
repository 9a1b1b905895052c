"""Who the synthetic people are: names, CHI numbers, birth dates, where they lived and when they died.

Enters: seed, how many, the scenarios of schemas/synthetic/. Leaves: `Person` records that records.py and scans.py build on. Pure; driver.
Everything is drawn with `random.Random` seeded by text, so that one person never depends on how many others there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from pictures_spark.resources import load_schema

# No birth date may come nearer than this to a scan or event date: projects move dates by up to 180 days, and the leak test
# searches what they receive for birth dates.
CLEARANCE = timedelta(days=181)


@dataclass(frozen=True)
class Residence:
    """A stretch of living in the area, as one row of the register."""

    chi: str
    start: date
    end: date | None
    board: str
    postcode: str
    quintile: int


@dataclass(frozen=True)
class Person:
    """One synthetic person. ``chi`` is the current number and the UPI; ``older_chi`` was merged into it."""

    index: int
    forename: str
    surname: str
    birth: date
    sex: str
    chi: str
    older_chi: str | None
    died: date | None
    first_scan: date | None
    residences: tuple[Residence, ...]
    scenario: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def chis(self) -> list[str]:
        """All CHI numbers, the current one first."""
        return [self.chi, *([self.older_chi] if self.older_chi else [])]

    @property
    def header_name(self) -> str:
        """The name as a DICOM PN value."""
        return f"{self.surname.upper()}^{self.forename.upper()}"

    def chi_on(self, day: date) -> str:
        """The number that was in use on a day."""
        if self.older_chi and any(r.chi == self.older_chi and r.end and day <= r.end for r in self.residences):
            return self.older_chi
        return self.chi

    def lives_here(self, day: date) -> bool:
        """Whether the person was alive and resident on a day."""
        alive = self.birth <= day and (self.died is None or day <= self.died)
        return alive and any(r.start <= day and (r.end is None or day <= r.end) for r in self.residences)


def check_digit(nine: str) -> str | None:
    """The tenth digit of a CHI number: weights 10 to 2, modulus 11; None where no digit fits and the number is never issued.

    >>> check_digit("010190123")
    '2'
    """
    rest = 11 - sum(int(digit) * weight for digit, weight in zip(nine, range(10, 1, -1), strict=True)) % 11
    return None if rest == 10 else str(rest % 11)


def mistyped(chi: str) -> str:
    """The number with another last digit that fits neither modulus 11 nor modulus 10 (Luhn), by which numbers are issued from 2026.

    >>> mistyped("0101901232")
    '0101901233'
    """
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(chi[:9])]
    luhn = -sum(value - 9 if value > 9 else value for value in doubled) % 10
    return chi[:9] + next(str(digit % 10) for digit in range(int(chi[9]) + 1, int(chi[9]) + 10) if digit % 10 != luhn)


def chi_number(birth: date, sex: str, rng: Random) -> str:
    """A valid CHI number: DDMMYY, two digits, one that is odd for men, and the check digit."""
    while True:
        nine = f"{birth:%d%m%y}{rng.randrange(100):02d}{rng.choice('13579' if sex == 'M' else '02468')}"
        if check := check_digit(nine):
            return nine + check


def invented_words(rng: Random) -> Iterator[str]:
    """Endless words that differ from each other, of syllables that no language in the data uses; schemas/synthetic/words.yaml."""
    parts = load_schema("synthetic/words.yaml")
    used = set()
    while True:
        word = ""
        while len(word) < parts["shortest"]:
            word += rng.choice(parts["onsets"]) + rng.choice(parts["vowels"]) + rng.choice(parts["codas"])
        if word not in used:
            used.add(word)
            yield word.capitalize()


def postcode(rng: Random) -> str:
    """A postcode in an area that does not exist."""
    area = rng.choice(load_schema("synthetic/words.yaml")["postcode_areas"])
    return f"{area}{rng.randrange(10, 100)} {rng.randrange(1, 10)}{rng.choice('ABDEFGHJLNPQRSTUWXYZ')}{rng.choice('ABDEFGHJLNPQRSTUWXYZ')}"


def population(seed: int, count: int, imaged: int, start: date, reserved: set[date]) -> list[Person]:
    """The people, those with images first and of those the scenarios first.

    Parameters
    ----------
    start : first day of the register.
    reserved : dates that no birth date may come near.
    """
    plan = load_schema("synthetic/scenarios.yaml")
    words = invented_words(Random(f"{seed}/words"))
    reserved = reserved | {date.fromisoformat(day) for day in plan["births"]["reserved"]}
    taken: set[str] = set()
    people = []
    for index in range(count):
        scenario = plan["scenarios"][index] if index < min(imaged, len(plan["scenarios"])) else {}
        person = _person(Random(f"{seed}/people/{index}"), index, scenario, index < imaged, words, start, reserved, taken)
        taken.update(person.chis)
        people.append(person)
    return people


def _person(
    rng: Random, index: int, scenario: dict, imaged: bool, words: Iterator[str], start: date, reserved: set[date], taken: set[str]
) -> Person:
    sex = rng.choice("MF")
    birth, scan = _birth_and_scan(rng, scenario, imaged, reserved)
    died = None
    if "dead_days_before" in scenario and scan:
        died = scan - timedelta(days=scenario["dead_days_before"])
    elif not scenario and rng.random() < 0.12:
        died = day_between(rng, date(2010, 6, 1), date(2019, 11, 30))
        if scan and scan >= died:
            scan = day_between(rng, _scan_days()[0], died - timedelta(days=1))
    chi = _unused(rng, birth, sex, taken)
    older = None
    if scenario.get("identifier") == "older" or (not scenario and rng.random() < 0.03):
        older = _unused(rng, birth, sex, taken | {chi})
    residences = _residences(rng, scenario, chi, older, scan, start)
    return Person(index, next(words), next(words), birth, sex, chi, older, died, scan if imaged else None, residences, scenario)


def _unused(rng: Random, birth: date, sex: str, taken: set[str]) -> str:
    while (chi := chi_number(birth, sex, rng)) in taken:
        pass
    return chi


def _scan_days() -> tuple[date, date]:
    days = load_schema("synthetic/scenarios.yaml")["scans"]
    return date.fromisoformat(days["from"]), date.fromisoformat(days["to"])


def day_between(rng: Random, first: date, last: date) -> date:
    """A day of a closed range."""
    return first + timedelta(days=rng.randrange((last - first).days + 1))


def _birth_and_scan(rng: Random, scenario: dict, imaged: bool, reserved: set[date]) -> tuple[date, date | None]:
    if "born" in scenario:
        return date.fromisoformat(scenario["born"]), date.fromisoformat(scenario["scanned"])
    births = load_schema("synthetic/scenarios.yaml")["births"]
    first, last = date.fromisoformat(births["from"]), date.fromisoformat(births["to"])
    while True:
        scan = day_between(rng, *_scan_days()) if imaged else None
        if scan and "age" in scenario:
            years, days = scenario["age"]
            birthday = scan - timedelta(days=days)
            if (birthday.month, birthday.day) == (2, 29):
                continue
            birth = birthday.replace(year=birthday.year - years)
        else:
            # Most patients are old: of two birth dates the earlier is taken.
            birth = min(day_between(rng, first, last), day_between(rng, first, last))
        zero_fits = scenario.get("identifier") != "lost_zero" or birth.day < 10
        if birth.day != 1 and (birth.month, birth.day) != (2, 29) and zero_fits and all(abs(birth - day) > CLEARANCE for day in reserved):
            return birth, scan


def _residences(rng: Random, scenario: dict, chi: str, older: str | None, scan: date | None, start: date) -> tuple[Residence, ...]:
    """Stretches of residence, by kind: the whole time, arrived late, left, or left and returned; a merge of numbers splits a stretch."""
    kind = scenario.get("residence") or ("whole" if scenario else rng.choices(["whole", "arrived", "left", "returned"], [80, 8, 7, 5])[0])
    centre = scan if scenario and scan else day_between(rng, date(2011, 1, 1), date(2018, 12, 31))
    near, far = timedelta(days=rng.randrange(8, 20)), timedelta(days=rng.randrange(300, 500))
    kinds: dict[str, list[tuple[date, date | None]]] = {
        "whole": [(start, None)],
        "arrived": [(centre + near, None)],
        "left": [(start, centre - near)],
        "returned": [(start, centre - far), (centre - far + timedelta(days=120), None)],
    }
    stretches = kinds[kind]
    if older:
        first, end = stretches[0]
        middle = day_between(rng, first, end or date(2019, 6, 30))
        stretches[:1] = [(first, middle), (middle + timedelta(days=1), end)]
    elif kind == "whole" and rng.random() < 0.15:
        moved = day_between(rng, date(2009, 1, 1), date(2019, 6, 30))
        stretches = [(start, moved), (moved + timedelta(days=1), None)]
    boards = load_schema("synthetic/records.yaml")["health_boards"]
    return tuple(
        Residence(older if older and number == 0 else chi, first, end, rng.choice(boards), postcode(rng), rng.randrange(1, 6))
        for number, (first, end) in enumerate(stretches)
    )
