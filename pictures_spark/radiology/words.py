"""A line of a report as words. Pure; one pass, so its time grows with the length of the line and with nothing else."""

import re
from typing import NamedTuple

# Numbers with their decimals, words of letters, question marks in a row, every other mark by itself. No alternative can begin where another
# gives up, so nothing is read twice.
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|\?+|[^\s]")
_APOSTROPHES = str.maketrans("", "", "'’‘`´")
_HYPHENS = re.compile(r"(?<=\w)[-‐‑](?=\w)")
_SAME = str.maketrans({"–": "-", "—": "-", "‐": "-", "‑": "-", "\u00a0": " ", "＃": "#"})
_ABBREVIATED = re.compile(r"\b([eE])\.([gG])\.|\b([iI])\.([eE])\.")
QUERY, QUESTION, STOP = "?", "?$", "."


class Token(NamedTuple):
    """A word as it stands (``raw``) and in small letters (``word``), and whether a sentence ends after it."""

    raw: str
    word: str
    stops: bool


def tokens(line: str) -> list[Token]:
    """The words of one line.

    A question mark before a word is ``?``, one after the last word of its sentence ``?$``. A full stop is no word.

    Examples
    --------
    >>> [token.word for token in tokens("?Small-vessel disease. Can't exclude #NOF?")]
    ['?', 'small', 'vessel', 'disease', '.', 'cant', 'exclude', '#', 'nof', '?$']
    """
    line = _ABBREVIATED.sub(lambda found: (found[1] or found[3]) + (found[2] or found[4]), line.translate(_SAME))
    line = _HYPHENS.sub(" ", line.translate(_APOSTROPHES)).rstrip()
    found: list[Token] = []
    for match in _TOKEN.finditer(line):
        raw = match[0]
        start, end = match.span()
        after = line[end : end + 1]
        if raw[0] == "?":
            # Whether it belongs to the word before it: it touches that, and nothing touches it.
            touches = start > 0 and not line[start - 1].isspace() and line[start - 1] not in "(,"
            question = not after or (touches and after.isspace())
            found.append(Token(raw, QUESTION if question else QUERY, question))
        elif raw in ".!":
            found.append(Token(raw, STOP, not (after.islower() or after.isdigit())))
        elif raw == "&":
            found.append(Token(raw, "and", False))
        else:
            found.append(Token(raw, raw.lower(), False))
    return found
