"""Free text without identifiers: the person's own, the file's staff, and whatever reads like one.

What enters: a text, and the identifiers that the zone and the file know. What leaves: the text without the spans that any rule finds, or,
under the rule *vocabulary*, only its known words. Pure; executors. Expressions are RE2's, so that no text takes more than linear time.

Each way to find an identifier is a rule with a name, so that a test can turn each one off and show that it matters.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

import re2

from pictures_spark.linkage.identity import normalise, scheme
from pictures_spark.resources import load_schema

Span = tuple[int, int]
# From this length on an identifier is looked for inside other words, across separators, and with one slip of the pen.
LONG = 6
# From this length on a shorter name is looked for in words that have little else in them; of the shortest, with one letter at most.
GLUED = 3
# One class, repeated: linear under Python's own engine too, whose calls cost less.
_WORDS = re.compile(r"[^\W_]+")
_WITH_APOSTROPHE = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)+")
# Letters of another character set whose declaration was lost (ISO 2022): they would be read as ASCII; and what no text holds.
_ESCAPED = re.compile(r"\x1b(?!\([BJ])[^\x1b]*(?:\x1b\([BJ])?|\x1b\([BJ]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_NOT_ASCII = re2.compile(r"[\pL\pN]*[^\x00-\x7f][\pL\pN]*")
_VOCABULARY_WORDS = re2.compile(r"[a-z0-9]+")
_LETTERS = re.compile(r"[A-Za-z]+")
# How letters that are not in ASCII, and that no accent makes of one that is, are spelt without them; a vowel with two dots or a ring is
# written with two letters as often as with one.
_TWO_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "æ": "ae", "œ": "oe", "ß": "ss", "þ": "th", "ð": "dh", "đ": "dj", "ł": "l"}
)
# Of ASCII: letters in one case, and what is neither letter nor digit.
_LOWER = bytes(range(256)).lower()
_NEITHER = bytes(code for code in range(128) if not chr(code).isalnum())
_ONE_LETTER = str.maketrans("øåæœßþðđłı", "oaaostddli")
MASK = "#"
# Left where something was taken away: "CT * contrast" must not read as "CT contrast".
HIDDEN = "*"


class Own(NamedTuple):
    """Words to look for, normalised: parts of names, and all of them."""

    names: frozenset[str]
    words: frozenset[str]


def own_words(names: Iterable[str], others: Iterable[str], shortest: int) -> Own:
    """The words of identifiers: names whole and in parts from two letters on; others whole from ``shortest`` letters or digits on, and
    their words unless they are in the vocabulary."""
    names, others = [spelt for name in names for spelt in spellings(name)], list(others)
    parts = frozenset(part for name in names for part in _split(name) if len(part) >= 2)
    wholes = {normal(each) for each in (*names, *others)}
    words = {part for other in others for part in _split(other) if len(part) >= shortest and not known_word(part)}
    return Own(parts, parts.union(words, (whole for whole in wholes if len(whole) >= shortest)))


class Scrub:
    """One person's and one file's identifiers, looked for in texts.

    Parameters
    ----------
    names : names of people, whole or in parts; every part is looked for, however short, from two letters on.
    others : numbers, addresses, places; whole from ``shortest`` letters or digits on, and their words unless they are in the vocabulary.
    rules : which rules to apply; all of them unless said.

    Examples
    --------
    >>> Scrub(["Quillfeather^Morwenna"], []).clean("CT of Morwenna Quilfeather, 12/03/2015")
    'CT of * , *'
    """

    def __init__(self, names: Iterable[str], others: Iterable[str], shortest: int = 4, rules: frozenset[str] | None = None) -> None:
        self._know(own_words(names, others, shortest), frozenset(RULES) if rules is None else rules)

    @classmethod
    def of(cls, owns: Iterable[Own]) -> "Scrub":
        """One that looks for the words of all of these."""
        made = cls.__new__(cls)
        names, words = zip(*owns, strict=True)
        made._know(Own(frozenset().union(*names), frozenset().union(*words)), frozenset(RULES))
        return made

    def _know(self, own: Own, rules: frozenset[str]) -> None:
        self.rules = rules
        self.names, self.words = own
        self.long = tuple(sorted(word for word in self.words if len(word) >= LONG))

    def spans(self, text: str) -> list[Span]:
        """Where identifiers are, in order, none overlapping another."""
        # Most texts match none of the expressions: all of them at once tell that in one pass.
        rules = RULES if _any_pattern().search(text) else OWN_RULES if self.words else {}
        found = sorted({_with_prefix(text, span) for name, rule in rules.items() if name in self.rules for span in rule(self, text)})
        merged: list[Span] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def near(self, word: str) -> bool:
        """Whether a word is a slip of the pen away from an identifier, the start of a name, or a short name with an initial or a number."""
        return self.is_glued(word) or (len(word) >= LONG - 1 and (self._is_slip(word) or self._starts_name(word)))

    def is_glued(self, word: str) -> bool:
        """Whether a word is short names and little else, as user names are: jsmith, smith01, janesmith, smithhead.

        Of a name of five letters anything may be beside it; of shorter ones, which are in many words, known words and a letter or two.
        """
        if word in self.words or self._short.search(word) is None or known_word(word):
            return False
        beside = _LETTERS.findall(self._short.sub(" ", word))
        names = sum(map(str.isalpha, word)) - sum(map(len, beside))
        unknown = sum(len(rest) for rest in beside if not known_word(rest))
        return unknown <= (1 if names == GLUED else 2) or any(len(name) == LONG - 1 for name in self._short.findall(word))

    @cached_property
    def _short(self) -> re.Pattern[str]:
        """The short names, longer ones first; made when it is first asked for, which many persons' files never do."""
        short = (own for own in self.words if GLUED <= len(own) < LONG and own.isalpha())
        return re.compile("|".join(map(re.escape, sorted(short, key=len, reverse=True))) or r"(?!)")

    def _is_slip(self, word: str) -> bool:
        first, last, size = word[0], word[-1], len(word)
        # A slip of the pen leaves the first or the last letter.
        return any((own[0] == first or own[-1] == last) and -1 <= len(own) - size <= 1 and one_slip(own, word) for own in self.long)

    def _starts_name(self, word: str) -> bool:
        return any(name.startswith(word) and len(name) > len(word) for name in self.names) and not known_word(word)

    def clean(self, text: str, vocabulary: bool = False, mask: bool = False) -> str:
        """The text without identifiers, in ASCII.

        Words that cannot be spelt in ASCII go as well: the rules cannot judge them. With ``vocabulary`` only known words and small numbers
        stay; with ``mask`` what goes is replaced by as many ``#``, so that offsets into the text hold.
        """
        text = plainly(text)
        spans = self.spans(text)
        if vocabulary:
            spans = sorted([*spans, *(m.span() for m in _WORDS.finditer(text) if not known_word(_plain(m.group())))])
        spans = sorted([*spans, *(m.span() for m in _NOT_ASCII.finditer(text))]) if not text.isascii() else spans
        parts, position = [], 0
        for start, end in spans:
            between = text[position:start]
            parts.append(between)
            if mask:
                parts.append(MASK * (end - max(start, position)))
            elif not parts[:-1] or any(character.isalnum() or character in ",;:=/" for character in between):
                parts.append(HIDDEN)
            position = max(position, end)
        parts.append(text[position:])
        result = "".join(parts)
        return result if mask else " ".join(result.split())


def plainly(text: str) -> str:
    """A text without control characters, and with a sign for each that a lost character set has left."""
    return _CONTROLS.sub(" ", _ESCAPED.sub(lambda match: "\ufffd" * len(match.group()), text))


def _with_prefix(text: str, span: Span) -> Span:
    """A span with the O', D' or the like that its first word starts with."""
    start, end = span
    if start >= 2 and text[start - 1] in "'\u2019" and text[start - 2].isalpha() and (start == 2 or not text[start - 3].isalnum()):
        return start - 2, end
    return span


@lru_cache(4096)
def words_of(text: str) -> tuple[tuple[str, Span], ...]:
    """The words of a text, as they are compared, and where each is; those with an apostrophe also as one."""
    return tuple((normal(match.group()), match.span()) for each in (_WORDS, _WITH_APOSTROPHE) for match in each.finditer(text))


@lru_cache(4096)
def joined_words(text: str) -> tuple[tuple[str, Span], ...]:
    """Words that follow one another and together are as short as a name that is not looked for across words: Mc Kay, S M I T H."""
    words = [(normal(match.group()), match.span()) for match in _WORDS.finditer(text)]
    found = []
    for first, (whole, (start, _)) in enumerate(words):
        for word, (_, end) in words[first + 1 :]:
            whole += word
            if len(whole) >= LONG:
                break
            if len(whole) > GLUED:
                found.append((whole, (start, end)))
    return tuple(found)


def _own_words(scrub: Scrub, text: str) -> Iterator[Span]:
    """Words, or a few of them together, that are an identifier, or part of a name."""
    for word, span in (*words_of(text), *joined_words(text)):
        if word in scrub.words:
            yield span


def _own_anywhere(scrub: Scrub, text: str) -> Iterator[Span]:
    """Identifiers inside words, and across whatever separates their parts; with all of the words they begin and end in, whose rest may be
    another name of the person."""
    whole = normal(text)
    if not any(word in whole for word in scrub.long):
        return
    letters, places = [], []
    for place, character in enumerate(text):
        for letter in normal(character):
            letters.append(letter)
            places.append(place)
    joined = "".join(letters)
    for word in scrub.long:
        start = joined.find(word)
        while start >= 0:
            first, behind = places[start], places[start + len(word) - 1] + 1
            while first and text[first - 1].isalnum():
                first -= 1
            while behind < len(text) and text[behind].isalnum():
                behind += 1
            yield first, behind
            start = joined.find(word, start + 1)


def _slips(scrub: Scrub, text: str) -> Iterator[Span]:
    """Words that are one slip of the pen away from an identifier: a letter more, less, other, or two transposed."""
    for word, span in words_of(text):
        if len(word) >= LONG - 1 and scrub._is_slip(word):
            yield span


def _glued(scrub: Scrub, text: str) -> Iterator[Span]:
    """Words that are a short name of the person and little else."""
    for word, span in words_of(text):
        if len(word) > GLUED and scrub.is_glued(word):
            yield span


def _cut_short(scrub: Scrub, text: str) -> Iterator[Span]:
    """Words that are the start of a name of the person, as fields and user names cut it."""
    for word, span in words_of(text):
        if len(word) >= LONG - 1 and scrub._starts_name(word):
            yield span


def _scheme_numbers(scrub: Scrub, text: str) -> Iterator[Span]:
    """Digits, in groups or not, that are a person identifier of a declared scheme: form and check digit."""
    for match in _compiled("grouped_digits").finditer(text):
        digits = "".join(character for character in match.group() if character.isdigit())
        places = [place for place, character in enumerate(match.group()) if character.isdigit()]
        for start in range(len(digits) - 9):
            if any(normalise(declared, digits[start : start + 10]).value is not None for declared in _schemes()):
                yield match.start() + places[start], match.start() + places[start + 9] + 1


def _pattern(name: str) -> Callable[[Scrub, str], Iterator[Span]]:
    expression = re2.compile("(?i)" + load_schema("deid/scrub.yaml")["patterns"][name])
    return lambda scrub, text: (match.span() for match in expression.finditer(text))


OWN_RULES: dict[str, Callable[[Scrub, str], Iterator[Span]]] = {
    "own_words": _own_words,
    "own_anywhere": _own_anywhere,
    "slips": _slips,
    "glued": _glued,
    "cut_short": _cut_short,
}
RULES: dict[str, Callable[[Scrub, str], Iterator[Span]]] = {
    **OWN_RULES,
    "scheme_numbers": _scheme_numbers,
    **{name: _pattern(name) for name in load_schema("deid/scrub.yaml")["patterns"]},
}


def spellings(name: str) -> tuple[str, ...]:
    """A name as it is, and as keyboards without its letters spell it.

    Examples
    --------
    >>> spellings("J\u00f8rgensen"), spellings("Smith")
    (('J\u00f8rgensen', 'joergensen', 'jorgensen'), ('Smith',))
    """
    if name.isascii():
        return (name,)
    low = unicodedata.normalize("NFC", name).lower()
    return tuple(dict.fromkeys((name, low.translate(_TWO_LETTERS), low.translate(_ONE_LETTER))))


def one_slip(a: str, b: str) -> bool:
    """Whether two words differ by at most one letter inserted, left out or replaced, or by two neighbours transposed.

    Examples
    --------
    >>> one_slip("morwenna", "morwena"), one_slip("morwenna", "mrowenna"), one_slip("morwenna", "norwema")
    (True, True, False)
    """
    if a == b:
        return True
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    rest_a, rest_b = a[start:], b[start:]
    if len(a) == len(b):
        return rest_a[1:] == rest_b[1:] or (rest_a[:2] == rest_b[1::-1] and rest_a[2:] == rest_b[2:])
    return rest_a[1:] == rest_b if len(a) > len(b) else rest_a == rest_b[1:]


@lru_cache(1 << 14)
def known_word(word: str) -> bool:
    """Whether a word, in any case, is of the vocabulary or a number that may stay (schemas/deid/words.yaml)."""
    low = word.lower()
    return low in vocabulary() or _number().fullmatch(low) is not None


@lru_cache(1 << 14)
def known_code(value: str) -> bool:
    """Whether the letters of a code string are words that one may hold (schemas/deid/code_words.yaml, words.yaml); numbers are none.

    Examples
    --------
    >>> known_code("CSA MPR"), known_code("M_FFE"), known_code("C30"), known_code("QUILLFEATHER")
    (True, True, True, False)
    """
    return all(len(word) <= 2 or word.lower() in _code_words() or known_word(word) for word in _LETTERS.findall(value))


@cache
def _code_words() -> frozenset[str]:
    return frozenset(load_schema("deid/code_words.yaml")["words"].split())


@cache
def vocabulary() -> frozenset[str]:
    """Every word that a description may keep, in lower case."""
    from pydicom.sr._concepts_dict import concepts

    declared = load_schema("deid/words.yaml")
    words = set(declared["words"].split())
    for name in ("derive/descriptions.yaml", "derive/body_region.yaml"):
        words.update(word for phrase in _strings(load_schema(name)) for word in _VOCABULARY_WORDS.findall(phrase.lower()))
    groups = {int(name.removeprefix("CID")) for name in declared["context_groups"]}
    published: dict[str, Any] = concepts
    for codes in published.values():
        for values in codes.values():
            for meaning, cids, *_ in values.values():
                if groups.intersection(cids):
                    words.update(_VOCABULARY_WORDS.findall(meaning.lower()))
    return frozenset(word for word in words if not word.isdigit()) - set(declared["eponyms"])


def normal(value: str) -> str:
    """Letters and digits only, without accents, in one case."""
    if value.isascii():
        return value.encode().translate(_LOWER, _NEITHER).decode()
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", value).casefold()))


def _plain(word: str) -> str:
    return word if word.isascii() else "\0"


def _split(value: str) -> list[str]:
    return [normal(part) for part in _WORDS.findall(value)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield str(key)
            yield from _strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)


@cache
def _any_pattern() -> Any:
    declared = load_schema("deid/scrub.yaml")
    return re2.compile("(?i)" + "|".join(f"(?:{pattern})" for pattern in [*declared["patterns"].values(), declared["grouped_digits"]]))


@cache
def _compiled(name: str) -> Any:
    return re2.compile(load_schema("deid/scrub.yaml")[name])


@cache
def _number() -> Any:
    return re2.compile(load_schema("deid/words.yaml")["numbers"])


@cache
def _schemes() -> tuple[Any, ...]:
    return tuple(scheme(name) for name in load_schema("deid/scrub.yaml")["schemes"])
