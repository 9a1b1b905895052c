"""The findings that the text of a radiology report speaks of, each with polarity, certainty and subject.

Pure: text in, findings out, the rules are data (`pictures_spark.radiology.rules`). One pass over the words with bounded look-back, so the
time grows with the length of the text only; no text whatever raises. The text stays where it is: what leaves are words of closed lists.

A *mention* is one phrase of a finding in one sentence. Of the mentions of one finding about one subject the latest part of the report
counts (the report, then each addendum), and in it the strongest: affirmed before negated, certain before possible. Sentences on why or how
the scan was done, on former examinations, and of what might happen (`elsewhere`) say nothing of these images and give no finding.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from pictures_spark.radiology.rules import Modifier, Nothing, Rules, Target, Terminator, longest, rules, shortened
from pictures_spark.radiology.words import QUESTION, STOP, Token, tokens

# Words of a sentence that has no end.
_LONGEST_SENTENCE = 200
_LONGEST_WORD = 30
_LINE_BREAK = "\\.br\\"  # how HL7 v2 writes one
_BULLETS = "-*•–·>"
_RANK = {("affirmed", "certain"): 3, ("affirmed", "possible"): 2, ("negated", "certain"): 1, ("negated", "possible"): 0}
_NEGATIONS = ("negated", "negated_possible")


class Finding(NamedTuple):
    """What a report says of one finding about one subject; values are those of the vocabularies of these names."""

    finding: str
    polarity: str
    certainty: str
    subject: str


class _Sentence(NamedTuple):
    """Words of one sentence, the section it stands in, and its part: 0 for the report, 1 for the first addendum, and so on."""

    words: list[Token]
    section: str
    part: int


def nlp_version() -> str:
    """Declared number and hash of the rules and of this code: what it is never changes what it means."""
    return rules().version


def findings(text: str | None) -> list[Finding]:
    """What a report says, sorted; nothing of a missing text.

    Examples
    --------
    >>> findings("Clinical history: fall ?fracture. \\nNo fracture. Small effusion cannot be excluded.")
    [Finding(finding='effusion', polarity='affirmed', certainty='possible', subject='patient'), \
Finding(finding='fracture', polarity='negated', certainty='certain', subject='patient')]
    """
    if not text:
        return []
    rule = rules()
    best: dict[tuple[str, str], tuple[int, int, Finding]] = {}
    for sentence in _sentences(rule, text):
        if sentence.section == "elsewhere":
            continue
        for found in _mentions(rule, sentence):
            key = (found.finding, found.subject)
            weighed = (sentence.part, _RANK[(found.polarity, found.certainty)], found)
            if key not in best or weighed[:2] > best[key][:2]:
                best[key] = weighed
    return sorted(found for _, _, found in best.values())


# Sentences and sections


def _sentences(rule: Rules, text: str) -> Iterator[_Sentence]:
    """The sentences of a text. A line end is the end of a sentence unless the line plainly goes on."""
    section, part = "findings", 0
    # An empty line ends a section that has begun; a line end one whose heading stands in that line.
    inline = begun = False
    pending: list[Token] = []
    before = ""
    for line in text.replace(_LINE_BREAK, "\n").splitlines():
        tidy = line.strip().lstrip(_BULLETS).strip()
        if not tidy:
            yield from _flush(pending, section, part)
            pending = []
            if begun:
                section, inline, begun = "findings", False, False
            before = ""
            continue
        goes_on = _goes_on(rule, before, pending, tidy) and tidy == line.strip()
        if not goes_on:
            yield from _flush(pending, section, part)
            pending = []
            if inline and not (section == "elsewhere" and tidy.startswith("?")):
                section, inline, begun = "findings", False, False
        words = tokens(tidy)
        start = place = 0
        while place < len(words):
            at_start = place == start and not pending
            heading = _heading(rule, words, place, at_start)
            if heading is not None:
                yield from _flush(pending + words[start:place], section, part)
                pending = []
                end, section = heading
                if section == "addendum":
                    section, part = "findings", part + 1
                inline, begun = end < len(words), False
                start = place = end
                continue
            begun = True
            place += 1
            if words[place - 1].stops or place - start + len(pending) >= _LONGEST_SENTENCE:
                yield from _flush(pending + words[start:place], section, part)
                pending, start = [], place
        pending += words[start:]
        before = tidy
    yield from _flush(pending, section, part)


def _flush(words: list[Token], section: str, part: int) -> Iterator[_Sentence]:
    if words:
        yield _Sentence(words, section, part)


def _goes_on(rule: Rules, before: str, pending: list[Token], line: str) -> bool:
    """Whether a line continues the sentence before it."""
    if not pending:
        return False
    return line[0].islower() or pending[-1].word in rule.goes_on or len(before) >= rule.long_line


def _heading(rule: Rules, words: list[Token], place: int, at_start: bool) -> tuple[int, str] | None:
    """(where its section begins, section) of a heading that stands there: with a colon after it, or filling its line."""
    word = words[place].word
    if at_start and word in rule.examination:
        for end in range(place + 1, min(place + 2 + rule.examination_more, len(words))):
            if words[end].word == ":":
                return end + 1, "findings"
            if words[end].stops:
                break
    if word not in rule.headings:
        return None
    end, section = longest(rule.headings, [token.word for token in words[place : place + 8]], 0)
    if section is None:
        return None
    end += place
    after = words[end].word if end < len(words) else None
    if section == "addendum" and at_start:
        for colon in range(end, min(end + rule.addendum_words, len(words))):
            if words[colon].word == ":":
                # A time of day has a colon too.
                if colon + 1 < len(words) and words[colon + 1].word.isdigit() and words[colon - 1].word.isdigit():
                    continue
                return colon + 1, section
        return end, section
    if after == ":":
        return end + 1, section
    if at_start and (after == "-" or (after is None and place == 0)):
        return end + (after == "-"), section
    return None


# Mentions


def _mentions(rule: Rules, sentence: _Sentence) -> Iterator[Finding]:
    """What one sentence says, once per target in it."""
    raw = [token.raw for token in sentence.words]
    words = [_corrected(token.word) for token in sentence.words]
    # The end of a sentence is a mark of its own, which phrases may ask for.
    words = [*(words[:-1] if words[-1] == STOP else words), "$"]
    spans: list[tuple[int, int]] = []
    names: list[tuple[str, ...]] = []
    # Per target: meaning -> distance; of one meaning the nearest.
    said: list[dict[str, tuple[int, int]]] = []
    active: dict[str, tuple[int, int]] = {}
    # Targets from here on are within the reach of a backward modifier.
    first = 0
    place = 0
    while place < len(words):
        end, entry = longest(rule.phrases, words, place) if words[place] in rule.phrases else (place, None)
        if isinstance(entry, Target) and entry.capitals and not _in_capitals(raw[place:end]):
            entry = None
        match entry:
            case None:
                end = place + 1
            case Nothing():
                pass
            case Terminator(everything):
                if everything:
                    active.clear()
                    first = len(spans)
                else:
                    for meaning in _NEGATIONS:
                        active.pop(meaning, None)
            case Target(findings):
                spans.append((place, end))
                names.append(findings)
                said.append(
                    {meaning: (place - since, 1) for meaning, (since, reach) in active.items() if place - since <= reach},
                )
            case modifiers:
                for modifier in modifiers:
                    if modifier.direction != "forward":
                        _say_back(rule, modifier, place, words, spans, said, first)
                    if modifier.direction != "backward":
                        _start(active, modifier, place, end)
        place = end
    for found, meanings in zip(names, said, strict=True):
        yield from _told(found, meanings, sentence.section)


def _start(active: dict[str, tuple[int, int]], modifier: Modifier, place: int, end: int) -> None:
    """Begin the reach of a forward modifier. One of another kind ends a negation, but not where it follows at once (no possible …)."""
    if modifier.meaning == "possible":
        if any(active.get(meaning, (-1, 0))[0] == place for meaning in _NEGATIONS):
            return
        for meaning in _NEGATIONS:
            active.pop(meaning, None)
    elif modifier.meaning in _NEGATIONS:
        for meaning in (*_NEGATIONS, "possible", "elsewhere"):
            active.pop(meaning, None)
    active[modifier.meaning] = (end, modifier.reach)


def _say_back(
    rule: Rules,
    modifier: Modifier,
    place: int,
    words: list[str],
    spans: list[tuple[int, int]],
    said: list[dict[str, tuple[int, int]]],
    first: int,
) -> None:
    """Apply a backward modifier to the nearest target before it, and to those joined to that."""
    until = place
    for at in range(len(spans) - 1, first - 1, -1):
        start, end = spans[at]
        if place - end > modifier.reach:
            return
        if until != place:
            between = words[end:until]
            if not (set(between) <= rule.joins and rule.joins_with & set(between)):
                return
        said[at][modifier.meaning] = min(said[at].get(modifier.meaning, (place - end, 0)), (place - end, 0))
        until = start


def _told(names: tuple[str, ...], meanings: dict[str, tuple[int, int]], section: str) -> Iterator[Finding]:
    subject = "family" if section == "family" or "family" in meanings else "other" if "other" in meanings else "patient"
    if subject == "patient" and "elsewhere" in meanings:
        return
    decisive = {meaning: distance for meaning, distance in meanings.items() if meaning in (*_NEGATIONS, "possible")}
    nearest = min(decisive, key=lambda meaning: (decisive[meaning], meaning), default=None)
    polarity = "negated" if nearest in _NEGATIONS else "affirmed"
    certainty = "possible" if nearest in ("possible", "negated_possible") else "certain"
    for name in names:
        yield Finding(name, polarity, certainty, subject)


def _in_capitals(raw: list[str]) -> bool:
    """Whether an abbreviation is written as one; a small s of the plural may follow."""
    return all((word.removesuffix("s") or word).isupper() for word in raw)


@lru_cache(maxsize=65_536)
def _corrected(word: str) -> str:
    """A word that differs by one letter from a long word of a target, as that word."""
    rule = rules()
    if word == QUESTION or word in rule.known or not rule.shortest_typo - 1 <= len(word) <= _LONGEST_WORD or not word.isalpha():
        return word
    for short in sorted(shortened(word)):
        meant = rule.misspelt.get(short)
        if meant is not None and meant[0] == word[0] and _differ_by_one(word, meant):
            return meant
    return word


def _differ_by_one(word: str, other: str) -> bool:
    """Whether one letter left out, put in, exchanged or swapped with its neighbour makes one of the other (Damerau)."""
    same = next((n for n, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    a, b = word[same:], other[same:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0] and a[2:] == b[2:])
