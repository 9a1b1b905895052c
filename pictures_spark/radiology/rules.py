"""The rules that read findings, from schemas/reports/, made ready: phrases in tries, so that a text is read once from left to right.

Pure; driver and executors. Faulty rules are refused as a whole before any text is read.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pictures_spark.errors import ConfigError
from pictures_spark.radiology.words import tokens
from pictures_spark.resources import load_schema, schemas_dir
from pictures_spark.schema import vocabulary

FILES = ("findings.yaml", "sections.yaml")
MEANINGS = ("negated", "negated_possible", "possible", "elsewhere", "family", "other")
SECTIONS = ("elsewhere", "family", "findings", "addendum")
# Marks that the tokeniser makes and phrases may hold.
_MARKS = ("$", "?", "?$")


@dataclass(frozen=True)
class Target:
    """What is looked for; a word may stand for several findings (hydropneumothorax). ``capitals``: counts in capitals only."""

    findings: tuple[str, ...]
    capitals: bool = False


@dataclass(frozen=True)
class Modifier:
    """What changes the targets near it."""

    meaning: str
    direction: Literal["forward", "backward", "both"]
    reach: int


@dataclass(frozen=True)
class Terminator:
    """Where a reach ends: that of everything, or of a negation only."""

    everything: bool


@dataclass(frozen=True)
class Nothing:
    """A phrase that only keeps its words from being part of another."""


Entry = Target | tuple[Modifier, ...] | Terminator | Nothing
Trie = dict[str | None, Any]


@dataclass(frozen=True)
class Rules:
    """All rules, ready to use. Tries are nested dictionaries by word; an entry stands under None."""

    version: str
    phrases: Trie
    headings: Trie
    examination: frozenset[str]
    examination_more: int
    addendum_words: int
    goes_on: frozenset[str]
    long_line: int
    joins: frozenset[str]
    joins_with: frozenset[str]
    shortest_typo: int
    known: frozenset[str]
    misspelt: dict[str, str]


def longest(trie: Trie, words: list[str], start: int) -> tuple[int, Any]:
    """End and entry of the longest phrase that starts there; (start, None) where none does."""
    end, entry = start, None
    node = trie
    for place in range(start, len(words)):
        if words[place] not in node:
            break
        node = node[words[place]]
        if None in node:
            end, entry = place + 1, node[None]
    return end, entry


def phrases_of(text: str, lists: dict[str, list[str]]) -> Iterator[str]:
    """Every phrase that a pattern stands for.

    Examples
    --------
    >>> list(phrases_of("[very] {colour} lamp", {"colour": ["red", "blue"]}))
    ['red lamp', 'blue lamp', 'very red lamp', 'very blue lamp']
    """
    optional = re.search(r"\[([^\[\]]*)\]", text)
    if optional:
        for inside in ("", optional[1]):
            yield from phrases_of(text[: optional.start()] + inside + text[optional.end() :], lists)
        return
    parts = re.split(r"\{(\w+)\}", text)
    choices = [lists[part] if place % 2 else [part] for place, part in enumerate(parts)]
    for chosen in product(*choices):
        yield " ".join("".join(chosen).split())


@cache
def rules() -> Rules:
    """The rules of schemas/reports/.

    Raises
    ------
    ConfigError
        They are faulty: all faults at once.
    """
    return rules_from(load_schema("reports/findings.yaml"), load_schema("reports/sections.yaml"))


def rules_from(findings: dict[str, Any], sections: dict[str, Any]) -> Rules:
    """Rules from their declarations.

    Raises
    ------
    ConfigError
        They are faulty: all faults at once.
    """
    faults = _faults(findings, sections)
    if faults:
        raise ConfigError(f"schemas/reports: {'; '.join(faults)}")
    lists = findings["lists"]
    spellings = [tuple(pair) for pair in findings["spellings"]]
    entries: dict[tuple[str, ...], Entry] = {}
    targets: dict[tuple[str, ...], set[str]] = {}
    capitals: dict[tuple[str, ...], set[str]] = {}
    words_of_targets: set[str] = set()

    def every(texts: Iterable[str]) -> Iterator[tuple[str, ...]]:
        for text in texts:
            for phrase in phrases_of(text, lists):
                for spelt in {phrase, _spelt(phrase, spellings)}:
                    yield _words(spelt)

    for phrase in every(findings["nothing"]):
        entries[phrase] = Nothing()
    for everything in (False, True):
        for phrase in every(findings["terminators"]["everything" if everything else "negation"]):
            entries[phrase] = Terminator(everything)
    for modifier in findings["modifiers"]:
        made = Modifier(modifier["meaning"], modifier["direction"], modifier["reach"])
        for phrase in every(modifier["phrases"]):
            before = entries.get(phrase)
            entries[phrase] = (*(before if isinstance(before, tuple) else ()), made)
    for name, target in findings["targets"].items():
        for phrase in every(target["words"]):
            targets.setdefault(phrase, set()).add(name)
            words_of_targets |= {word for word in phrase if len(word) >= findings["typos"]["shortest"]}
        for phrase in every(text.lower() for text in target.get("short", ())):
            capitals.setdefault(phrase, set()).add(name)
        for phrase in every(target.get("not", ())):
            entries[phrase] = Nothing()
    entries |= {phrase: Target(tuple(sorted(names)), capitals=True) for phrase, names in capitals.items()}
    entries |= {phrase: Target(tuple(sorted(names))) for phrase, names in targets.items()}
    headings = {
        _words(phrase): section for section, texts in sections["headings"].items() for text in texts for phrase in phrases_of(text, {})
    }
    return Rules(
        version=f"{findings['version']}.{sections['version']}-{_digest()}",
        phrases=_trie(entries),
        headings=_trie(headings),
        examination=frozenset(sections["examination"]["words"]),
        examination_more=sections["examination"]["more"],
        addendum_words=sections["addendum_words"],
        goes_on=frozenset(sections["goes_on"]),
        long_line=sections["long_line"],
        joins=frozenset(findings["joins"]),
        joins_with=frozenset(findings["joins_with"]),
        shortest_typo=findings["typos"]["shortest"],
        known=frozenset(word for phrase in entries for word in phrase),
        misspelt=_misspelt(words_of_targets),
    )


def _faults(findings: dict[str, Any], sections: dict[str, Any]) -> list[str]:
    faults = []
    if set(findings["targets"]) != set(vocabulary("finding")):
        faults.append("targets and the vocabulary finding must name the same findings")
    for modifier in findings["modifiers"]:
        if modifier["meaning"] not in MEANINGS:
            faults.append(f"meaning {modifier['meaning']!r} is not one of {', '.join(MEANINGS)}")
        if modifier["direction"] not in ("forward", "backward", "both"):
            faults.append(f"direction {modifier['direction']!r} is not forward, backward or both")
    for section in sections["headings"]:
        if section not in SECTIONS:
            faults.append(f"section {section!r} is not one of {', '.join(SECTIONS)}")
    texts = [text for modifier in findings["modifiers"] for text in modifier["phrases"]]
    texts += [*findings["nothing"], *findings["terminators"]["everything"], *findings["terminators"]["negation"]]
    texts += [text for target in findings["targets"].values() for name in ("words", "short", "not") for text in target.get(name, ())]
    named = {name for text in texts for name in re.findall(r"\{(\w+)\}", text)}
    return faults + [f"list {name} is not declared" for name in sorted(named - set(findings["lists"]))]


def _spelt(phrase: str, spellings: list[tuple[str, ...]]) -> str:
    for british, other in spellings:
        phrase = phrase.replace(british, other)
    return phrase


def _words(phrase: str) -> tuple[str, ...]:
    """A phrase as the tokeniser would give it; marks stand for themselves."""
    found: list[str] = []
    for piece in phrase.split():
        found += [piece] if piece in _MARKS else [token.word for token in tokens(piece)]
    return tuple(found)


def _trie(entries: dict[tuple[str, ...], Any]) -> Trie:
    root: Trie = {}
    for phrase, entry in entries.items():
        node = root
        for word in phrase:
            node = node.setdefault(word, {})
        node[None] = entry
    return root


def shortened(word: str) -> set[str]:
    """The word and all words that it becomes without one of its letters."""
    return {word, *(word[:place] + word[place + 1 :] for place in range(len(word)))}


def _misspelt(words: set[str]) -> dict[str, str]:
    """Shortened word -> word. Of several words with one short form the one that sorts first counts."""
    found: dict[str, str] = {}
    for word in sorted(words, reverse=True):
        found |= dict.fromkeys(shortened(word), word)
    return found


def _digest() -> str:
    """Hash of the rule files and of the code that reads them."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent
    for path in [
        *(schemas_dir() / "reports" / name for name in FILES),
        *(package / name for name in ("findings.py", "rules.py", "words.py")),
    ]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
