"""Radiology reports of the synthetic studies, and what is true of each by construction.

Enters: the studies and schemas/synthetic/reports.yaml. Leaves: rows of ``reports.csv`` and of ``truth/findings.csv``, and what of their
texts must never leak. Pure; driver. A report speaks of a finding of its patient once, or a second time in an addendum that revises it; so
its truth is what its sentences were chosen to say, and nothing is read to know it.
"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from pictures_spark.resources import load_schema
from pictures_spark.synthetic.people import invented_words
from pictures_spark.synthetic.records import Extract, Row
from pictures_spark.synthetic.scans import Study

SOURCE = "reports"
# (finding, subject) -> (polarity, certainty)
Truth = dict[tuple[str, str], tuple[str, str]]


@dataclass
class Reports:
    """The extract, its truth, and the words that occur in its texts only."""

    extract: Extract
    truth: list[Row] = field(default_factory=list)
    canaries: list[str] = field(default_factory=list)


def reports(seed: int, studies: list[Study]) -> Reports:
    """One report per study, some of them in two versions, and a few rows that are broken on purpose."""
    references = invented_words(Random(f"{seed}/report references"))
    made = Reports(Extract(SOURCE, []))
    shares = load_schema("synthetic/reports.yaml")["shares"]
    for number, study in enumerate(studies, start=1):
        rng = Random(f"{seed}/reports/{study.uid}")
        reference = next(references)
        text, truth = report(rng, study, reference)
        key = f"RPT{seed % 1000:03d}{number:07d}"
        signed = study.day + timedelta(days=rng.randrange(0, 5))
        row = {
            "CHI": study.person.chi_on(study.day),
            "REPORT_ID": key,
            "ACCESSION_NUMBER": "" if rng.random() < shares["no_accession"] else study.accession,
            "EXAM_DATE": f"{study.day:%d/%m/%Y}",
            "EXAM_NAME": _exam(study),
            "REPORT_DATE": f"{signed:%d/%m/%Y}",
            "REPORT_STATUS": "A" if "\n\n" in text else "F",
            "REPORT_TEXT": text,
        }
        if rng.random() < shares["preliminary"]:
            # An earlier version, whose findings must not count.
            before, _ = report(Random(f"{seed}/reports/{study.uid}/preliminary"), study, reference)
            made.extract.rows.append({**row, "REPORT_DATE": f"{study.day:%d/%m/%Y}", "REPORT_STATUS": "P", "REPORT_TEXT": before})
        made.extract.rows.append(row)
        made.canaries += [key, reference]
        for (finding, subject), (polarity, certainty) in sorted(truth.items()):
            said = (key, finding, polarity, certainty, subject)
            made.truth.append(dict(zip(("report_id", "finding", "polarity", "certainty", "subject"), said, strict=True)))
    if len(made.extract.rows) >= 25:
        first = made.extract.rows[0]
        for fault, change in (("bad_date", {"REPORT_DATE": "30/02/2015"}), ("no_identifier", {"CHI": ""})):
            made.extract.rows.append({**first, "REPORT_ID": f"{first['REPORT_ID']}{fault[0].upper()}", **change})
            made.extract.faults.append((len(made.extract.rows), fault))
    return made


def report(rng: Random, study: Study, reference: str) -> tuple[str, Truth]:
    """Text and truth of one report."""
    words = load_schema("synthetic/reports.yaml")
    shares, truth = words["shares"], {}
    regions = words["regions"]
    body = study.series[0].protocol["body"] if study.series else "OTHER"
    names = list(regions.get(body, regions["OTHER"]))
    rng.shuffle(names)

    def chance(name: str) -> bool:
        return rng.random() < shares[name]

    def said(finding: str, meaning: str, subject: str = "patient") -> None:
        truth[(finding, subject)] = ("affirmed" if meaning[0] == "+" else "negated", "possible" if meaning.endswith("?") else "certain")

    fill = _filler(rng, words, study, reference)
    sentences: list[str] = []
    spoken: list[str] = []
    for _ in range(rng.randrange(1, 4)):
        if len(names) > 1 and chance("pair"):
            kind = rng.choice(words["pairs"])
            first, second = names.pop(), names.pop()
            sentences.append(fill(rng.choice(kind["say"]), first, second))
            said(first, kind["is"][0])
            said(second, kind["is"][1])
            spoken += [first, second]
        elif names:
            kind = rng.choices(words["statements"], [one["weight"] for one in words["statements"]])[0]
            spoken.append(names.pop())
            sentences.append(fill(rng.choice(kind["say"]), spoken[-1]))
            said(spoken[-1], kind["is"])
        if chance("innocent"):
            sentences.append(rng.choice(words["innocent"]))
    if chance("family"):
        kind, finding = rng.choice(words["family"]), rng.choice(sorted(words["findings"]))
        sentences.insert(rng.randrange(len(sentences) + 1), fill(rng.choice(kind["say"]), finding))
        said(finding, kind["is"], "family")
    lines: list[str] = []
    if chance("opening"):
        lines.append(fill(rng.choice(words["openings"])))
    if chance("history"):
        about = fill(rng.choice(words["history"]), rng.choice(sorted(words["findings"])))
        lines.append(f"{rng.choice(words['headings']['history'])} {about}")
    heading = rng.choice(words["headings"]["findings"]).replace("{exam}", _exam(study))
    body_text = f"{heading} {' '.join(sentences)}"
    lines += textwrap.wrap(body_text, 72) if chance("wrapped") else [body_text]
    if chance("conclusion"):
        lines.append(f"{rng.choice(words['headings']['conclusion'])} {rng.choice(words['innocent'])}")
    lines.append(fill(rng.choice(words["closings"])))
    if chance("addendum"):
        kind = rng.choice(words["addenda"])
        finding = rng.choice([*spoken, *names])
        lines += ["", fill(f"{rng.choice(words['headings']['addendum'])} {rng.choice(kind['say'])}", finding)]
        said(finding, kind["is"])
    return "\n".join(lines), truth


def _filler(rng: Random, words: dict[str, Any], study: Study, reference: str) -> Callable[..., str]:
    """A function that fills the slots of a sentence."""
    person = study.person

    def noun(finding: str, form: str) -> str:
        listed = words["findings"][finding]
        return rng.choice(listed["typos"]) if rng.random() < words["misspelt"] else rng.choice(listed[form])

    def fill(sentence: str, finding: str = "mass", second: str = "mass") -> str:
        doctor = rng.choice(study.hospital.physicians).replace("^", " ")
        told = sentence.format(
            some=noun(finding, "some"), bare=noun(finding, "bare"), some2=noun(second, "some"), bare2=noun(second, "bare"),
            where=rng.choice(words["findings"][finding]["where"]), person=f"{person.forename} {person.surname}", chi=person.chi,
            birth=f"{person.birth:%d/%m/%Y}", date=f"{study.day:%d/%m/%Y}", doctor=doctor, reference=reference,
            relative=rng.choice(words["relatives"]),
        )  # fmt: skip
        told = " ".join(told.split()).replace(" .", ".").replace(" ,", ",")
        return told[0].upper() + told[1:]

    return fill


def _exam(study: Study) -> str:
    protocol = study.series[0].protocol if study.series else {"modality": "CR", "body": "OTHER"}
    return f"{'XR' if protocol['modality'] in ('CR', 'DX') else protocol['modality']} {protocol['body'].lower()}"
