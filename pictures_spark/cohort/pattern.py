"""Regular expressions that mean the same on every engine.

DuckDB has RE2, Spark has Java's, and they differ in more than speed: in what ``$``, ``.``, ``\\s`` and ``(?i)`` match, in look-around and
in back references. So a pattern is read here, and either written again in the words that both read alike or refused.

What is allowed: characters, ``.`` (any character but a line feed), ``[...]``, ``(...)``, ``(?:...)``, ``|``, ``*``, ``+``, ``?``,
``{m}``, ``{m,}``, ``{m,n}`` up to 100, ``^``, ``$`` (the ends of the text), ``\\d``, ``\\w``, ``\\s`` and their opposites, a backslash
before any punctuation, and ``(?i)`` at the beginning for letters A to Z in either case.
"""

_SETS = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\f\r "}
_PUNCTUATION = frozenset(r"""\.^$*+?()[]{}|/-"'#%&,:;<=>@_`~! """)
_MOST = 100


class PatternError(ValueError):
    """A pattern that no engine is asked: the message says what is wrong and what to write instead."""


def canonical(pattern: str) -> str:
    """The pattern as RE2 and Java's regular expressions read it alike; it is looked for anywhere in a text.

    Raises
    ------
    PatternError
        It has something that the engines read differently, or is no regular expression.

    Examples
    --------
    >>> canonical("(?i)^ab.$")
    '\\\\A[Aa][Bb][^\\\\n]\\\\z'
    """
    return _Reader(pattern).whole()


class _Reader:
    """One pass from left to right."""

    def __init__(self, pattern: str) -> None:
        self.ignore_case = pattern.startswith("(?i)")
        self.text = pattern.removeprefix("(?i)")
        self.at = 0

    def whole(self) -> str:
        if not self.text:
            raise PatternError("is empty: it would match every text")
        found = self._alternatives(0)
        if self.at < len(self.text):
            raise PatternError("has a ) without its (")
        return found

    def _alternatives(self, depth: int) -> str:
        if depth > 20:
            raise PatternError("is nested too deeply")
        found: list[str] = []
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] == "|":
                self.at += 1
                found.append("|")
                continue
            found.append(self._repeated(depth))
        return "".join(found)

    def _repeated(self, depth: int) -> str:
        atom, repeatable = self._atom(depth)
        sign = self.text[self.at : self.at + 1]
        if sign not in ("*", "+", "?", "{") or not sign:
            return atom
        if not repeatable:
            raise PatternError("repeats the beginning or the end of the text")
        self.at += 1
        count = sign if sign != "{" else self._count()
        if self.text[self.at : self.at + 1] in ("*", "+", "?", "{") and self.at < len(self.text):
            raise PatternError("repeats a repetition: put the inner one into (?:...), and leave out lazy and possessive marks")
        return atom + count

    def _count(self) -> str:
        end = self.text.find("}", self.at)
        inside = self.text[self.at : end] if end >= 0 else ""
        low, comma, high = inside.partition(",")
        if not (low.isdecimal() and low.isascii() and (not high or (high.isdecimal() and high.isascii()))):
            raise PatternError(r"has a { that is no count such as {2} or {1,3}: write \{ for the character")
        if int(low) > _MOST or (high and not int(low) <= int(high) <= _MOST):
            raise PatternError(f"repeats more than {_MOST} times, or from more to less")
        self.at = end + 1
        return "{" + str(int(low)) + comma + (str(int(high)) if high else "") + "}"

    def _atom(self, depth: int) -> tuple[str, bool]:
        char = self.text[self.at]
        self.at += 1
        match char:
            case "(":
                return self._group(depth), True
            case "[":
                return self._set(), True
            case ".":
                return r"[^\n]", True
            case "^":
                return r"\A", False
            case "$":
                return r"\z", False
            case "*" | "+" | "?" | "{":
                raise PatternError(f"has a {char} with nothing before it: write \\{char} for the character")
            case "]" | "}":
                raise PatternError(f"has a {char} alone: write \\{char} for the character")
            case "\\":
                name = self._escaped()
                if name.lower() in _SETS:
                    return f"[{'^' if name.isupper() else ''}{_SETS[name.lower()]}]", True
                return _literal(name), True
        return self._letter(char), True

    def _letter(self, char: str) -> str:
        if self.ignore_case and char.isascii() and char.isalpha():
            return f"[{char.upper()}{char.lower()}]"
        return _literal(char)

    def _escaped(self) -> str:
        name = self.text[self.at : self.at + 1]
        self.at += 1
        if name and (name.lower() in _SETS or name in _PUNCTUATION):
            return name
        if name in ("b", "B"):
            raise PatternError(r"has \b, which engines read differently: write (^|[^A-Za-z0-9]) or ([^A-Za-z0-9]|$)")
        if name.isdecimal():
            raise PatternError("refers back to a group, which not every engine can: write the text again")
        raise PatternError(rf"has \{name}, which engines read differently" if name else "ends in a backslash")

    def _group(self, depth: int) -> str:
        if self.text.startswith("?:", self.at):
            self.at += 2
        elif self.text.startswith("?", self.at):
            raise PatternError("has (?, for look-around or flags, which engines read differently: only (?:...) and (?i) at the beginning")
        inside = self._alternatives(depth + 1)
        if self.text[self.at : self.at + 1] != ")":
            raise PatternError("has a ( without its )")
        self.at += 1
        return f"(?:{inside})"

    def _set(self) -> str:
        negative = self.text.startswith("^", self.at)
        self.at += negative
        found: list[str] = []
        while True:
            if self.at >= len(self.text):
                raise PatternError("has a [ without its ]")
            if self.text[self.at] == "]":
                self.at += 1
                break
            found.append(self._range())
        if not found:
            raise PatternError("has an empty [ ]")
        return f"[{'^' if negative else ''}{''.join(found)}]"

    def _range(self) -> str:
        first = self._member()
        if len(first) > 1 or not self.text.startswith("-", self.at) or self.text[self.at + 1 : self.at + 2] in ("]", ""):
            return first if len(first) > 1 else self._both(first, first)
        self.at += 1
        last = self._member()
        if len(last) > 1 or first > last:
            raise PatternError("has a range in [ ] from more to less, or of more than characters")
        return self._both(first, last)

    def _member(self) -> str:
        """One character of a set, or the inside of a class."""
        char = self.text[self.at]
        self.at += 1
        if char == "[" or (char == "&" and self.text.startswith("&", self.at)):
            raise PatternError(rf"has {char} inside [ ], which engines read differently: write \{char}")
        if char != "\\":
            return char
        name = self._escaped()
        if name.lower() not in _SETS:
            return name
        if name.isupper():
            raise PatternError(rf"has \{name} inside [ ]: write the characters")
        return _SETS[name.lower()]

    def _both(self, first: str, last: str) -> str:
        """A range, with the other case of its letters where case is ignored."""
        found = _literal(first) if first == last else f"{_literal(first)}-{_literal(last)}"
        if self.ignore_case:
            for low, high, other in (("a", "z", str.upper), ("A", "Z", str.lower)):
                start, end = max(first, low), min(last, high)
                if start <= end:
                    found += other(start) if start == end else f"{other(start)}-{other(end)}"
        return found


def _literal(char: str) -> str:
    if char in "\t\n\f\r":
        return {"\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r"}[char]
    return f"\\{char}" if char in r"\.^$*+?()[]{}|-#&~" else char
