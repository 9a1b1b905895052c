"""Findings of report texts: ours against a peer, on planted and on hand-labelled texts.

    python benchmarks/findings.py [--n 4000] [--tables]

The planted texts are those of the synthetic archive's generator (schemas/synthetic/reports.yaml), whose truth is by construction; the
hand-labelled ones are tests/radiology/held_out.csv, written before the rules. The peer is medspaCy with its own ConText rules where that is
installed, else NegEx (Chapman et al., J Biomed Inform 2001; 34: 301-310) in its published form: triggers, a window of five words, no
sections. Both are given the same words to look for. A finding counts as right where finding, polarity, certainty and subject are; NegEx
knows polarity only, so the lines findings_polarity_* compare what both can tell.

--tables prints the quality per finding and attribute with 95 % Wilson intervals, as docs/report-findings.md has it.
"""

import argparse
import csv
import json
import re
from collections.abc import Callable, Iterable
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from random import Random

import measure

from pictures_spark.config import load_config
from pictures_spark.radiology.findings import Finding, findings, nlp_version
from pictures_spark.radiology.quality import labels, scores, table
from pictures_spark.resources import load_schema
from pictures_spark.synthetic.people import population
from pictures_spark.synthetic.reports import report
from pictures_spark.synthetic.samples import sample_facts
from pictures_spark.synthetic.scans import studies

HELD_OUT = Path(__file__).parent.parent / "tests" / "radiology" / "held_out.csv"
_BEFORE = "no|not|without|denies|negative for|absence of|free of|ruled out|rules out|resolved|never|nor|neither"
_AFTER = "unlikely|not seen|is excluded|was ruled out|has resolved|have resolved|has been excluded|is not present|absent"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4_000, help="planted texts")
    parser.add_argument("--tables", action="store_true", help="quality per finding and attribute")
    arguments = parser.parse_args()
    texts = {"planted": planted(arguments.n), "held_out": held_out()}
    peer_name, peer = ("medspacy", medspacy()) if find_spec("medspacy") else ("NegEx", negex)
    for which, pairs in texts.items():
        mine = [(findings(text), true) for text, true in pairs]
        theirs = [(peer(text), true) for text, true in pairs]
        ours, others = scores(mine)[0], scores(theirs)[0]
        _line(f"findings_precision ({which})", ours.precision, others.precision, peer_name, "share", len(pairs))
        _line(f"findings_recall ({which})", ours.recall, others.recall, peer_name, "share", len(pairs))
        ours, others = (scores([(_polarity(found), _polarity(true)) for found, true in side])[0] for side in (mine, theirs))
        _line(f"findings_polarity_precision ({which})", ours.precision, others.precision, peer_name, "share", len(pairs))
        _line(f"findings_polarity_recall ({which})", ours.recall, others.recall, peer_name, "share", len(pairs))
        if arguments.tables:
            print(f"\nRules {nlp_version()}, {len(pairs)} texts ({which})\n", *table(scores(mine)), "", sep="\n")
    sample = [text for text, _ in texts["planted"]][:2_000]
    seconds = measure.alternate(lambda: [findings(text) for text in sample], lambda: [peer(text) for text in sample])
    print(measure.line("findings_per_second", len(sample) / seconds[0], len(sample) / seconds[1], peer_name, "reports/s", len(sample)))


def planted(count: int) -> list[tuple[str, frozenset[Finding]]]:
    """So many synthetic reports with their truth."""
    settings = load_config()["synth"]
    people = population(settings["seed"], settings["people"], settings["imaged"], date(2008, 1, 1), set(sample_facts()[0]))
    planned = studies(settings["seed"], people, settings["max_frames"])
    made = []
    for number in range(count):
        text, truth = report(Random(f"benchmark/{number}"), planned[number % len(planned)], "Reference")
        made.append((text, frozenset(Finding(name, *told, subject) for (name, subject), told in truth.items())))
    return made


def held_out() -> list[tuple[str, frozenset[Finding]]]:
    """The hand-labelled texts."""
    with HELD_OUT.open(encoding="utf-8", newline="") as handle:
        return [(row["text"], labels(row["labels"])) for row in csv.DictReader(handle)]


def negex(text: str) -> list[Finding]:
    """What NegEx says: a finding is negated where a trigger stands within five words before it, or a trigger of the other kind after it."""
    told: dict[str, str] = {}
    for sentence in re.split(r"[.!?\n]+", text.lower().replace("-", " ")):
        for name, pattern in _TARGETS.items():
            for match in pattern.finditer(sentence):
                before = " ".join(sentence[: match.start()].split()[-6:])
                after = " ".join(sentence[match.end() :].split()[:5])
                negated = re.search(rf"\b({_BEFORE})\b", before) or re.search(rf"\b({_AFTER})\b", after)
                if told.get(name) != "affirmed":
                    told[name] = "negated" if negated else "affirmed"
    return [Finding(name, polarity, "certain", "patient") for name, polarity in told.items()]


def medspacy() -> Callable[[str], list[Finding]]:
    """medspaCy with its shipped sentence splitter and ConText rules."""
    import medspacy as library
    from medspacy.ner import TargetRule

    pipeline = library.load(medspacy_enable={"medspacy_pyrush", "medspacy_target_matcher", "medspacy_context"})
    pipeline.get_pipe("medspacy_target_matcher").add([TargetRule(word, name) for name, words in _words().items() for word in words])

    def read(text: str) -> list[Finding]:
        best: dict[tuple[str, str], Finding] = {}
        for entity in pipeline(text).ents:
            if entity._.is_historical or entity._.is_hypothetical:
                continue
            subject = "family" if entity._.is_family else "patient"
            said = ("negated" if entity._.is_negated else "affirmed", "possible" if entity._.is_uncertain else "certain")
            found = Finding(entity.label_, *said, subject)
            kept = best.get((found.finding, subject))
            if kept is None or (found.polarity, found.certainty) < (kept.polarity, kept.certainty):
                best[(found.finding, subject)] = found
        return list(best.values())

    return read


def _words() -> dict[str, list[str]]:
    """Finding -> the plain words and abbreviations to look for."""
    declared = load_schema("reports/findings.yaml")["targets"]
    found = {name: [*target["words"], *map(str.lower, target.get("short", ()))] for name, target in declared.items()}
    plain = {name: [re.sub(r"\[[^\]]*\] ?", "", word) for word in words] for name, words in found.items()}
    return {name: sorted({spelt for word in words for spelt in (word, word.replace("aem", "em"))}) for name, words in plain.items()}


_TARGETS = {
    name: re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(words, key=len, reverse=True)))
    for name, words in _words().items()
}


def _polarity(found: Iterable[Finding]) -> set[Finding]:
    return {Finding(one.finding, one.polarity, "certain", "patient") for one in found if one.subject == "patient"}


def _line(name: str, ours: float, peer: float, peer_name: str, unit: str, n: int) -> None:
    told = json.loads(measure.line(name, 1, 1, peer_name, unit, n))
    print(json.dumps(told | {"ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 3)}))


if __name__ == "__main__":
    main()
