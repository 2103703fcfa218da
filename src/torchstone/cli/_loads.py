"""How a session of load is printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchstone.cli._answers import COLOURS, OUTCOME_CODES, print_json, stdout
from torchstone.core.interrupts import CODE

if TYPE_CHECKING:
    from torchstone.stages.load import Measured, Quantile


def code_of(found: Measured) -> int:
    if found.session.interrupted:
        return CODE
    return 3 if found.void else OUTCOME_CODES[found.outcome] if found.outcome else 0


def printed(found: Measured, code: int, json: bool) -> None:
    """The latencies with their bounds, what came of the requests, and what that says."""
    if json:
        print_json({**found.as_json(), "exit_code": code})
        return
    out = stdout()

    def say(line: str, style: str | None = None) -> None:
        out.print(line, markup=False, highlight=False, style=style)

    wanted, session = found.wanted, found.session
    early = f", ended early of {wanted.seconds:g} s" if session.interrupted else ""
    say(
        f"\n{wanted.url} · {found.requests:,} requests in {found.asked_for:.1f} s{early} · {found.images:,} images · "
        f"seed {wanted.seed}\n"
    )
    out.print(_table(found))
    say("")
    for name, count in sorted(found.counts.items(), key=lambda pair: -pair[1]):
        say(f"{name:>18}  {count:>9,}  {100 * count / found.requests:6.2f} %")
    say(
        f"\na second: {wanted.rate:,.1f} asked for, {found.offered:,.1f} due, {found.sent:,.1f} sent, "
        f"{found.goodput:,.1f} answered with 200"
    )
    median, late, most = found.late_ms
    say(
        f"the client: late by {median:.2f} ms (median), {late:.2f} ms (p99), {most:.1f} ms at most; "
        f"{100 * session.busy / max(session.seconds, 1e-9):.0f} % of a core; {session.opened:,} connections"
    )
    if session.waited:
        say(f"{session.waited:,} requests had to wait for one of the {wanted.connections:,} connections, which counts")
    if session.cached:
        say(f"{session.cached:,} answers came from the server's cache: --unique makes each image another one")
    say(*_verdict(found))


def _table(found: Measured) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("latency, ms")
    for one in found.every:
        table.add_column(f"{100 * one.share:g} %", justify="right", no_wrap=True)
    whole = found.counts.get("200", 0) == found.requests
    _add(table, "of all requests", found.every)
    if not whole and found.answered:
        _add(table, "of the answers 200", found.answered)
    return table


def _add(table: Any, name: str, quantiles: Sequence[Quantile]) -> None:
    table.add_row(name, *(_ms(one.ms) for one in quantiles))
    table.add_row("  at most, at 99 %", *("?" if one.at_most_ms is None else _ms(one.at_most_ms) for one in quantiles))


def _ms(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def _verdict(found: Measured) -> tuple[str, str | None]:
    """The sentence that says it, and its colour."""
    limit, more = found.wanted.max_p99_ms, (found.needed or 0) - found.requests
    if found.void:
        return f"void: {found.void}", COLOURS["void"]
    if found.outcome is None:
        if found.needed:
            return f"too few requests for a bound on the p99: {more:,} more give it one", None
        return "", None
    if found.outcome == "undecided":
        short = f"{more:,} more requests would tell, at this rate of slower ones" if found.needed else "no number would"
        return (
            f"cannot tell whether 99 % keep {limit:g} ms: {found.slower:,} of {found.requests:,} did not; {short}",
            COLOURS["undecided"],
        )
    kept = "keep" if found.outcome == "pass" else "do not keep"
    return (
        f"{found.outcome}: 99 % of the requests {kept} {limit:g} ms, proven at 99 %: {found.slower:,} of "
        f"{found.requests:,} did not",
        COLOURS[found.outcome],
    )
