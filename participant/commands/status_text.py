"""What `llmasos-participant status` says, as lines of at most 80 columns, from participant.overview's values."""

from __future__ import annotations

import textwrap
from typing import Any

from common.clock import parse_rfc3339
from common.terminal import WIDTH, printable
from common.wire.messages import TransferProgress
from common.wire.pacing import BYTES_PER_MBIT

LABEL = 16
GAIN_SHOWN = 5
MB = 1_000_000


def lines(data: dict[str, Any]) -> str:
    """All rows, wrapped."""
    return "\n".join(line for label, text in rows(data) for line in _wrapped(label, text))


def rows(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and text, in the order in which people ask."""
    return [
        ("institution", f"{data['institution']} of {data['consortium']}"),
        *_daemon(data),
        *(("restored", text) for text in _restored(data.get("restored"))),
        *(("waiting", text) for text in _held(data)),
        *(("decide", text) for text in _plans(data)),
        ("hours", _hours(data)),
        *(("speed", text) for text in _speed(data["speed"])),
        ("data", "; ".join(_data(each) for each in data["data"]) or "none: llmasos-participant data add NAME DIR"),
        ("left, 7 days", _left(data["left_the_house"])),
        ("readable by", _readers(data["left_the_house"]["readers"])),
        ("left, ever", f"{data['bytes_sent']:,} bytes in {data['contributions']} contributions"),
        ("worker", _worker(data)),
        *(row for run in data["runs"] for row in _run(run)),
        ("certificate", _certificate(data["certificate"])),
        ("ledger", _ledger(data)),
        *(
            ("decide", f"a new lineage, {each[:16]}: llmasos-participant lineage show")
            for each in data.get("new_lineages", ())
        ),
        *(("approvals", text) for text in _proposals(data)),
        *((("policy", f"{data['policy_problem']} The last good one counts."),) if data["policy_problem"] else ()),
        *(("order", _order(each)) for each in data["orders"]),
    ]


def _daemon(data: dict[str, Any]) -> list[tuple[str, str]]:
    if not data["running"]:
        said = "not running: llmasos-participant start"
        if data.get("two_histories"):
            said = "not running, and does not start: two histories were shown, see below"
        elif data.get("new_lineages"):
            said = "not running: the coordinator gave up entries that its log had signed for, see below"
        return [("daemon", "this institution has left" if data.get("activity") == "left" else said)]
    connection = " ".join(
        part for part in (str(data.get("connection", "-")), data.get("connection_reason", "")) if part
    )
    return [
        ("daemon", f"running, process {data.get('pid')}"),
        ("connection", connection),
        ("activity", _activity(data)),
        *((("transfer", _transfer(TransferProgress(**data["transfer"]))),) if data.get("transfer") else ()),
    ]


def _restored(note: dict[str, Any] | None) -> list[str]:
    """That this home came from a backup, and what it has found out since."""
    if not note:
        return []
    text = f"from a backup of {_time(note['made_at'])} with {note['entries']:,} ledger entries; "
    settled = note.get("settled")
    if not settled:
        return [text + "nothing is signed before the ledger was followed to its newest checkpoint"]
    found = f"the ledger had {settled['entries']:,}, {settled['taken_over']:,} own statements were taken over"
    return [text + found]


def _activity(data: dict[str, Any]) -> str:
    text = str(data.get("activity", "-"))
    if data.get("run"):
        text += f": {data['run']}" + (f", round {data['round']}" if data.get("round") else "")
    if data.get("deadline"):
        text += f", until {_time(data['deadline'])} at the latest"
    return text


def _held(data: dict[str, Any]) -> list[str]:
    texts = []
    for held in data.get("rounds_held", []) if data["running"] else []:
        if held["state"] == "witnesses":
            texts.append(_unwitnessed(held))
            continue
        until = f" until {_time(held['until'])}" if held["until"] else ""
        budgets = f" ({'; '.join(held['budgets'])})" if held["budgets"] else ""
        texts.append(
            f"round {held['round']} of {held['run']}: {held['state']}{until}{budgets}; its deadline is "
            f"{_time(held['deadline'])}"
        )
    return texts


def _unwitnessed(held: dict[str, Any]) -> str:
    return (
        f"for witnesses: the opening of round {held['round']} of {held['run']} (entry {held['entry']}) is cosigned by "
        f"{held['cosigned_by']} of {held['witnesses']}, {held['witnesses_needed']} needed, as far as is known here; its "
        f"deadline is {_time(held['deadline'])}"
    )


def _plans(data: dict[str, Any]) -> list[str]:
    return [
        f"{plan['run']}: {plan['why']}." + (f" Type: {plan['command']} (or refuse)" if plan["command"] else "")
        for plan in data["plans_waiting"]
    ]


def _hours(data: dict[str, Any]) -> str:
    hours = data["hours"]
    if hours["opens"]:
        return f"outside hours; they begin {_time(hours['opens'])}"
    return f"open until {_time(hours['closes'])}" if hours["closes"] else "at any time"


def _speed(speed: dict[str, Any]) -> list[str]:
    """One line where some hours have a limit."""
    limits = [f"{word} {speed[word]:g} Mbit/s" for word in ("up", "down") if speed[word] is not None]
    if not limits and not speed["until"]:
        return []
    until = f" until {_time(speed['until'])}" if speed["until"] else ""
    return [("at most " + ", ".join(limits) if limits else "as fast as it goes") + until]


def _transfer(transfer: TransferProgress) -> str:
    share = 100 * transfer.bytes_done // transfer.bytes_total if transfer.bytes_total else 100
    text = f"{transfer.bytes_done / MB:,.1f} of {transfer.bytes_total / MB:,.1f} MB ({share} %)"
    if transfer.bytes_per_second:
        text += f", {transfer.bytes_per_second / BYTES_PER_MBIT:,.3g} Mbit/s"
    if transfer.eta_seconds:
        text += f", about {_duration(transfer.eta_seconds)} left"
    return text


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _data(each: dict[str, Any]) -> str:
    purpose = f" ({each['purpose']})" if each.get("purpose") else ""
    return f"{each['name']}: {each['folder']}{purpose}"


def _left(left: dict[str, Any]) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(left["by_kind"].items(), key=lambda one: -one[1]))
    return f"{left['bytes']:,} bytes" + (f": {kinds}" if kinds else "")


def _readers(readers: list[str]) -> str:
    auditors = readers[1:]
    return "the coordinator" + (
        f", and the auditors {', '.join(auditors)}" if auditors else " alone; no auditor is named"
    )


def _worker(data: dict[str, Any]) -> str:
    worker = data.get("worker")
    if not worker:
        return "not started yet"
    kept = "another user, no network" if worker["isolated"] else "not isolated: the split guards against accidents only"
    return f"{worker['device']}, CPU threads: {worker['threads']}; {kept}"


def _run(run: dict[str, Any]) -> list[tuple[str, str]]:
    done = f"{run['rounds_committed']} of {run['rounds_planned']} rounds"
    found = [("run", f"{run['run']}: {done}" + (f", ended: {run['ended']}" if run["ended"] else ""))]
    used = ", ".join(_budget(each) for each in run["budgets"] if each["used"])
    if used:
        found.append(("  used", used))
    measured = run["own_text"]
    if measured:
        shown = measured if len(measured) <= GAIN_SHOWN else [measured[0], *measured[1 - GAIN_SHOWN :]]
        text = ", ".join(f"round {each['round']}: {each['perplexity']:.4g}" for each in shown)
        found.append(("  perplexity", f"on own text, by round: {text}"))
    if run["alone"]:
        alone = run["alone"]
        found.append(
            ("  alone", f"{alone['perplexity']:.4g} on own text after {alone['steps']:,} steps without the others")
        )
    return found


def _budget(each: dict[str, Any]) -> str:
    name, unit = each["budget"].rsplit("_", 1)
    limit = f" of {each['limit']:g}" if each["limit"] is not None else ""
    return f"{name} {each['used']:.3g}{limit} {unit if unit == 'hours' else unit.upper()}"


def _certificate(certificate: dict[str, Any]) -> str:
    if not certificate["expires"]:
        return "cannot be read"
    days = certificate["days_left"]
    return f"expires {_time(certificate['expires'])}" + (f", in {days} days" if days >= 0 else ": it HAS EXPIRED")


def _ledger(data: dict[str, Any]) -> str:
    verified = f"{data['ledger_entries']} entries, each verified here"
    if not data["two_histories"]:
        return verified
    return (
        f"{verified}; TWO HISTORIES were shown. Type: llmasos-participant evidence export FILE, and read "
        "docs/operations.md#two-histories"
    )


def _proposals(data: dict[str, Any]) -> list[str]:
    count = data.get("open_proposals", 0) if data["running"] else 0
    if not count:
        return []
    return [f"{count} proposal{'s await' if count > 1 else ' awaits'} approval: llmasos-participant proposal list"]


def _order(order: dict[str, Any]) -> str:
    match order["order"]:
        case "pause":
            until = f"until {_time(order['until'])}" if order.get("until") else "until: llmasos-participant resume"
            return f"pause {'at once' if order.get('now') else 'after the round in progress'}, {until}"
        case "leave":
            return "leave after the round in progress" if order.get("after_round") else "leave at once"
        case _:
            return "rotate the signing key, as soon as no signed statement is unsent"


def _time(text: str) -> str:
    """A moment by this machine's clock, to the minute."""
    return parse_rfc3339(text).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=f"{label:<{LABEL}}",
        subsequent_indent=" " * LABEL,
        break_on_hyphens=False,
        break_long_words=False,  # a path stays one word, to be copied
    )
