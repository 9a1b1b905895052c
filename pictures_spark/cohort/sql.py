"""Short words for building SQL as sqlglot expressions.

Nothing is copied while a query is built, so a node may hang in several places; whoever changes or prints a query copies it first (sqlglot's
printing does so by itself).
"""

from collections.abc import Sequence
from datetime import date

from sqlglot import exp

from pictures_spark.cohort.model import Value

Node = exp.Expr
Join = tuple[exp.Expr, exp.Expr | None, str]
_EPOCH = "1970-01-01"
TRUE, FALSE, NULL = exp.true(), exp.false(), exp.null()


def col(name: str, table: str | None = None) -> Node:
    """A column."""
    return exp.column(name, table)


def cols(names: Sequence[str], table: str | None = None) -> list[Node]:
    """Columns of one table."""
    return [exp.column(name, table) for name in names]


def named(expression: Node, name: str) -> Node:
    """An expression under a name."""
    return exp.Alias(this=expression, alias=exp.to_identifier(name))


def relation(name: str, alias: str | None = None) -> Node:
    """A table or a common table expression."""
    return exp.Table(this=exp.to_identifier(name), alias=exp.TableAlias(this=exp.to_identifier(alias)) if alias else None)


def select(
    columns: Sequence[Node],
    source: Node | str,
    joins: Sequence[Join] = (),
    where: Sequence[Node] = (),
    group: Sequence[Node] = (),
    distinct: bool = False,
) -> exp.Select:
    """A query. Each join is a table, its condition (None for a cross join) and its kind (``""`` for inner)."""
    query = exp.select(*columns, copy=False).from_(relation(source) if isinstance(source, str) else source, copy=False)
    for other, on, kind in joins:
        query.append("joins", exp.Join(this=other, on=on, **({"side": "LEFT"} if kind == "left" else {"kind": kind.upper() or None})))
    if where:
        query = query.where(all_of(*where), copy=False)
    if group:
        query = query.group_by(*group, copy=False)
    return query.distinct(copy=False) if distinct else query


def with_ctes(query: exp.Select, ctes: Sequence[tuple[str, exp.Select]]) -> exp.Select:
    """A query with its common table expressions."""
    found = [exp.CTE(this=cte, alias=exp.TableAlias(this=exp.to_identifier(name))) for name, cte in ctes]
    query.set("with_", exp.With(expressions=found))
    return query


def subquery(query: exp.Query, name: str | None = None) -> Node:
    """A query in the place of a table or a value."""
    return query.subquery(name, copy=False)


def text(value: str) -> Node:
    """A text."""
    return exp.Literal.string(value)


def number(value: int) -> Node:
    """A whole number."""
    return exp.Literal.number(value) if value >= 0 else exp.Neg(this=exp.Literal.number(-value))


def literal(value: Value) -> Node:
    """A value of a question."""
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, date):
        return exp.cast(text(value.isoformat()), "date")
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        # As text, so that each engine reads the same double and none makes a decimal of it.
        return exp.cast(text(repr(value)), "double")
    return text(value)


def bit(index: int | None) -> Node:
    """A 64-bit number with one bit set, or none."""
    return exp.cast(exp.Literal.number(0 if index is None else 1 << index), "bigint")


def day(value: Node) -> Node:
    """A date as whole days since 1970-01-01.

    No unit is named: with one Spark goes by way of time stamps and their zone, which takes longer than everything else in a plan.
    """
    return exp.DateDiff(this=value, expression=exp.cast(text(_EPOCH), "date"))


def plus(value: Node, more: int | Node) -> Node:
    """A sum."""
    if isinstance(more, int):
        operator: type[exp.Binary] = exp.Sub if more < 0 else exp.Add
        return operator(this=value, expression=exp.Literal.number(abs(more))) if more else value
    return exp.Add(this=value, expression=more)


def eq(left: Node, right: Node) -> Node:
    """Left = right."""
    return exp.EQ(this=left, expression=right)


def lt(left: Node, right: Node) -> Node:
    """Left < right."""
    return exp.LT(this=left, expression=right)


def le(left: Node, right: Node) -> Node:
    """Left <= right."""
    return exp.LTE(this=left, expression=right)


def gt(left: Node, right: Node) -> Node:
    """Left > right."""
    return exp.GT(this=left, expression=right)


def ge(left: Node, right: Node) -> Node:
    """Left >= right."""
    return exp.GTE(this=left, expression=right)


def is_null(value: Node) -> Node:
    """Whether a value, or the answer of conditions, is missing."""
    return exp.Is(this=exp.Paren(this=value) if isinstance(value, exp.Connector | exp.Not) else value, expression=NULL)


def not_null(value: Node) -> Node:
    """Whether a value is there."""
    return not_(is_null(value))


def not_(value: Node) -> Node:
    """The opposite; unknown stays unknown."""
    return exp.not_(value, copy=False)


def all_of(*conditions: Node) -> Node:
    """AND of three-valued conditions."""
    return exp.and_(*conditions, copy=False)


def any_of(*conditions: Node) -> Node:
    """OR of three-valued conditions."""
    return exp.or_(*conditions, copy=False)


def is_one_of(value: Node, choices: Sequence[Node]) -> Node:
    """Whether a value is among literals; unknown where it is missing."""
    return eq(value, choices[0]) if len(choices) == 1 else exp.In(this=value, expressions=list(choices))


def coalesce(value: Node, default: Node) -> Node:
    """A value, or another where it is missing."""
    return exp.Coalesce(this=value, expressions=[default])


def case(branches: Sequence[tuple[Node, Node]], default: Node) -> Node:
    """The value of the first condition that holds."""
    return exp.Case(ifs=[exp.If(this=condition, true=value) for condition, value in branches], default=default)


def lag(value: Node, rows: int, partition: Sequence[Node], order: Sequence[exp.Ordered]) -> Node:
    """The value so many rows before, NULL where there is none."""
    return over(exp.Lag(this=value, offset=exp.Literal.number(rows)), partition, order)


def count_distinct(value: Node) -> Node:
    """How many different values there are."""
    return exp.Count(this=exp.Distinct(expressions=[value]))


def over(function: Node, partition: Sequence[Node], order: Sequence[exp.Ordered], preceding: bool | None = None) -> Node:
    """A window function. ``preceding`` frames it by the rows before: True without the current row, False with it."""
    spec = None
    if preceding is not None:
        ends = {"end": exp.Literal.number(1), "end_side": "PRECEDING"} if preceding else {"end": "CURRENT ROW"}
        spec = exp.WindowSpec(kind="ROWS", start="UNBOUNDED", start_side="PRECEDING", **ends)
    by = exp.Order(expressions=list(order)) if order else None
    return exp.Window(this=function, partition_by=list(partition), order=by, spec=spec)
