"""What was scanned: studies, series and images with their identifiers, before any byte of them exists.

Enters: people and schemas/synthetic/protocols.yaml and scenarios.yaml. Leaves: `Study` records that headers.py, pictures.py, archive.py
and truth.py all read, so that the truth is known before the archive is written. Pure; driver.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from pictures_spark.errors import ConfigError
from pictures_spark.resources import load_schema
from pictures_spark.synthetic.people import Person, chi_number, day_between, invented_words, mistyped


@dataclass(frozen=True)
class Hospital:
    """Where a study was done, with names that only this generator makes."""

    institution: str
    address: str
    physicians: tuple[str, ...]
    stations: dict[str, str]
    serials: dict[str, str]


@dataclass
class Series:
    """A series that is going to be written. ``burned`` is what its pictures say, one text per line; empty for nothing."""

    number: int
    uid: str
    protocol: dict[str, Any]
    device: tuple[str, str]
    syntax: str
    images: int
    burned: tuple[str, ...]
    header: dict[str, str | None]
    picked: bool
    fixed: bool

    @property
    def frames(self) -> int:
        """Frames of one image."""
        return int(self.protocol.get("frames", 1))

    @property
    def sop_uids(self) -> list[str]:
        """UIDs of the images, in order."""
        return [f"{self.uid}.{number}" for number in range(1, self.images + 1)]


@dataclass
class Study:
    """A study that is going to be written. ``chi`` is the number of the person that the header should lead to, None if there is none."""

    person: Person
    uid: str
    accession: str
    day: date
    patient_id: str | None
    hospital_number: str
    chi: str | None
    hospital: Hospital
    layout: str
    copies: str
    seed: str
    series: list[Series] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Frames of all images."""
        return sum(series.images * series.frames for series in self.series)


def uid_root(seed: int) -> str:
    """Root of all UIDs of a seed, in the form of PS3.5 B.2 with arcs below."""
    return f"2.25.{int.from_bytes(hashlib.sha256(f'pictures-spark synthetic {seed}'.encode()).digest()[:12], 'big')}"


def hospitals(seed: int) -> list[Hospital]:
    """Three hospitals with staff and machines."""
    rng = Random(f"{seed}/hospitals")
    words = invented_words(rng)
    kinds = load_schema("synthetic/protocols.yaml")["devices"]
    return [
        Hospital(
            institution=f"{next(words)} Infirmary",
            address=f"{rng.randrange(1, 90)} {next(words)} Road",
            physicians=tuple(f"{next(words)}^{next(words)}" for _ in range(3)),
            stations={kind: f"{next(words).upper()}{kind}" for kind in kinds},
            serials={kind: f"SN{next(words).upper()}{rng.randrange(1000)}"[:16] for kind in kinds},
        )
        for _ in range(3)
    ]


def studies(seed: int, people: list[Person], max_frames: int) -> list[Study]:
    """All studies, in order of people, with no more than ``max_frames`` frames in total.

    Raises
    ------
    ConfigError
        The scenarios alone need more frames.
    """
    imaged = [person for person in people if person.first_scan]
    planned: list[Study] = []
    houses = hospitals(seed)
    for person in imaged:
        planned += _of_scenario(seed, person, houses, len(planned)) if person.scenario else _by_chance(seed, person, houses, len(planned))
    shrink(planned, max_frames)
    return planned


def shrink(planned: list[Study], max_frames: int) -> None:
    """Take images from the largest series, then whole studies from the end, until the rest fits; scenarios stay as they are.

    Raises
    ------
    ConfigError
        The scenarios alone need more frames.
    """
    excess = sum(study.frames for study in planned) - max_frames
    free = [series for study in planned for series in study.series if not series.fixed]
    while excess > 0 and free and (largest := max(free, key=lambda series: series.images)).images > 1:
        largest.images -= 1
        excess -= largest.frames
    while excess > 0:
        if not planned or planned[-1].series[0].fixed:
            raise ConfigError("synth.max_frames is too small for the scenarios of that many imaged people: raise it or lower synth.imaged")
        excess -= planned.pop().frames


def _of_scenario(seed: int, person: Person, houses: list[Hospital], number: int) -> Iterator[Study]:
    assert person.first_scan is not None
    for order, wanted in enumerate(person.scenario["studies"]):
        rng = Random(f"{seed}/scans/{person.index}/{order}")
        day = person.first_scan + timedelta(days=wanted.get("days_after", 0))
        study = _study(seed, rng, person, houses, number + order, order, day)
        for position, series in enumerate(wanted["series"], start=1):
            study.series.append(_series(rng, study, position, series["protocol"], series))
        yield study


def _by_chance(seed: int, person: Person, houses: list[Hospital], number: int) -> Iterator[Study]:
    assert person.first_scan is not None
    protocols = load_schema("synthetic/protocols.yaml")["protocols"]
    names, weights = list(protocols), [protocol["weight"] for protocol in protocols.values()]
    day = person.first_scan
    for order in range(2):
        rng = Random(f"{seed}/scans/{person.index}/{order}")
        if order and rng.random() < 0.75:
            return
        study = _study(seed, rng, person, houses, number + order, order, day)
        study.series.append(_series(rng, study, 1, rng.choices(names, weights)[0], {}))
        yield study
        last = min(
            date.fromisoformat(load_schema("synthetic/scenarios.yaml")["scans"]["to"]), (person.died or date.max) - timedelta(days=1)
        )
        if last <= day:
            return
        day = day_between(rng, day + timedelta(days=1), last)


def _study(seed: int, rng: Random, person: Person, houses: list[Hospital], number: int, order: int, day: date) -> Study:
    layouts = load_schema("synthetic/scenarios.yaml")["layouts"]
    hospital_number = f"H{person.surname[:4].upper()}{rng.randrange(10**6, 10**7)}"
    patient_id, chi = _identifier(rng, person, day, hospital_number)
    return Study(
        person=person,
        uid=f"{uid_root(seed)}.{person.index + 1}.{order + 1}",
        accession=f"Z{rng.choice('ABCDEFGH')}{rng.randrange(10**9, 10**10)}",
        day=day,
        patient_id=patient_id,
        hospital_number=hospital_number,
        chi=chi,
        hospital=rng.choice(houses),
        layout=layouts[number % len(layouts)],
        copies=person.scenario.get("copies", "none"),
        seed=f"{seed}/pictures/{person.index}/{order}",
    )


def _identifier(rng: Random, person: Person, day: date, hospital_number: str) -> tuple[str | None, str | None]:
    """What stands in PatientID, and the CHI number of the person whom the images show (None: not in the register)."""
    chi = person.chi_on(day)
    match person.scenario.get("identifier") or rng.choices(["chi", "spaces"], [97, 3])[0]:
        case "chi":
            return chi, chi
        case "spaces":
            return f"{chi[:6]} {chi[6:]}", chi
        case "lost_zero":
            return chi.removeprefix("0"), chi
        case "older":
            return person.older_chi, person.older_chi
        case "hospital":
            return hospital_number, chi
        case "wrong_check":
            return mistyped(chi), chi
        case "unknown":
            while (stranger := chi_number(person.birth, person.sex, rng)) in person.chis:
                pass
            return stranger, None
    return None, chi


def _series(rng: Random, study: Study, number: int, name: str, wanted: dict[str, Any]) -> Series:
    plan = load_schema("synthetic/protocols.yaml")
    protocol = plan["protocols"][name]
    images = wanted.get("images") or rng.randrange(protocol["images"][0], protocol["images"][1] + 1)
    drawn = rng.random() < protocol["burned"]
    person = study.person
    lines = (
        f"{person.surname} {person.forename}".upper(),
        rng.choice([f"CHI {person.chi}", f"DOB {person.birth:%d/%m/%Y}", f"ID {study.hospital_number}"]),
    )
    return Series(
        number=number,
        uid=f"{study.uid}.{number}",
        protocol=protocol,
        device=tuple(rng.choice(plan["devices"][protocol["modality"]])),
        syntax=wanted.get("syntax") or rng.choice(protocol["syntax"]),
        images=images,
        burned=lines if wanted.get("burned", drawn and not wanted) else (),
        header=dict(wanted.get("header", {})),
        picked=wanted.get("picked", False),
        fixed=bool(wanted),
    )
