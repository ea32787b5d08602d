"""The books of a chaos run, laid side by side: what must not be is a fault. See `benchmarks.chaos`."""

from __future__ import annotations

import contextlib
import json
import re
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.chaos import Storm

GROWTH = 1.1
#: Share of kills that may find a worker between the reading of a request and its begin, or between an answer's last
#: byte and its account. (Measured by comparing what was sent with what was begun and what lay unread: in 2 % of 874
#: stops at 22 clients; what clients had got with what was over: in 0.8 % of 1,992 at 27. Never two requests at once.)
BETWEEN = 0.1
#: Seconds before a worker's stop within which its last answer came, and the last bytes of a WebSocket just closed.
AT_LAST = 0.1
#: Seconds before a worker's stop in which its log lines may wait, and after its end in which clients read answers.
WAITING, READ_LATE = 2.0, 0.25
#: Minutes of a run from which on growth is judged: the second minute against the last one.
LONG = 4.0
#: GETs of all kinds, which are asked again and must not fail.
ASKED_AGAIN = ("get", "preview", "tls")


@dataclass
class Kill:
    """A killed worker, as it was seen just before."""

    pid: int
    began: float  # CLOCK_MONOTONIC: it was stopped
    seen: float  # its connections had been read
    ended: float  # it was gone
    ports: set[int]  # the clients' ports of the connections that it held
    unread: set[int]  # those with bytes that it had not read
    account: int | None = None  # requests under way in it, by the proxy's account
    unbegun: int = 0  # what clients lost beyond that: requests that it had not read
    unwritten: int = 0  # lines of the access log that it took with it, by the proxy's account
    in_hand: int = 0  # …of which so many were being written: the file may have them, and nobody was told any more


@dataclass
class Sample:
    """What must not grow."""

    at: float
    supervisor: int
    workers: int
    descriptors: int
    connections: float


@dataclass
class Line:
    """A try in the clients' book."""

    id: str
    kind: str
    outcome: str
    port: int
    sent: float  # before it was written…
    given: float  # …and when the kernel surely had its head; inf: that is not known
    ended: float


# --- the proxy's books -------------------------------------------------------------------------------------------


def read_accounts(storm: Storm) -> None:
    """What the proxy says was under way in each killed worker."""
    text = ""
    for name in ("events.old.jsonl", "events.jsonl"):
        with contextlib.suppress(OSError):
            text += (storm.folder / "state" / name).read_text()
    pattern = r"\(process (\d+)\)[^\"]*? with (\d+) requests? under way(?: and (\d+) log lines)?"
    told = {pid: (int(under_way), int(lines or 0)) for pid, under_way, lines in re.findall(pattern, text)}
    for kill in storm.kills:
        kill.account, kill.unwritten = told.get(str(kill.pid), (None, 0))


def read_access_log(storm: Storm) -> dict[str, dict[str, Any]]:
    lines = {}
    for raw in (storm.folder / "access.log").read_bytes().splitlines():
        try:
            line = json.loads(raw)
        except ValueError:
            storm.done["torn log lines"] += 1
            continue
        lines[line["id"]] = line
    return lines


# --- the verdict -----------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What was found, and what of it must not be."""

    rows: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = field(default_factory=list)
    lost_per_kill: dict[int, list[Line]] = field(default_factory=lambda: defaultdict(list))
    unlogged: list[Line] = field(default_factory=list)  # over, and not in the access log
    being_read: set[int] = field(default_factory=set)  # workers killed between a request's reading and its begin
    last_moment: Counter[int] = field(default_factory=Counter)  # cut by a worker that was killed before it was noted
    unlogged_per_kill: dict[int, list[Line]] = field(default_factory=lambda: defaultdict(list))
    unbooked: Counter[int] = field(default_factory=Counter)  # of them, those that were under way by the account
    at_an_end: set[int] = field(default_factory=set)  # workers killed between an answer's last byte and its account


WHOLE = {
    "get": {"200"},
    "preview": {"200"},
    "tls": {"200"},
    "post": {"200"},
    "stream": {"200"},
    "socket": {"1000", "1001"},
}


def judge(storm: Storm, book: Path) -> Verdict:
    """Lay the books side by side."""
    verdict = Verdict()
    log = read_access_log(storm)
    read_accounts(storm)
    (storm.folder / "kills.txt").write_text("".join(f"{kill}\n" for kill in storm.kills))
    lines = [
        Line(id, kind, outcome, int(port), float(sent), float(given), float(ended))
        for id, kind, outcome, port, sent, given, ended in map(str.split, book.read_text().splitlines())
    ]
    finals: dict[str, Line] = {}
    for line in lines:
        row = verdict.rows[line.kind]
        row["tries"] += 1
        if line.kind in ASKED_AGAIN:
            finals[line.id.partition(".")[0]] = line
        known = log.pop(line.id, None)
        if line.outcome == "open":
            row["open at the end"] += 1
        elif line.outcome in ("wrong-pool", "certificate"):
            row[line.outcome] += 1
            verdict.faults.append(f"{line.outcome}: {line}, log {known}")
        elif line.outcome == "handshake" and any(line.port in kill.ports for kill in storm.kills):
            row["by a worker's death"] += 1  # there was no request yet, so nobody keeps an account of it
        elif line.outcome in WHOLE[line.kind]:
            row["whole"] += 1
            row["sent elsewhere (1001)"] += line.outcome == "1001"
            if known is None:
                verdict.unlogged.append(line)
            elif line.outcome.startswith("2") and str(known["status"]) != line.outcome:
                verdict.faults.append(f"the log says {known['status']}: {line}")
        else:
            _judge_loss(storm, verdict, line, known)
    for name, line in finals.items():
        row = verdict.rows[line.kind]
        row["asked"] += 1
        if line.outcome not in ("200", "open"):
            row["failed"] += 1
            verdict.faults.append(f"GET {name} failed at last: {line}")
        elif "." in line.id:
            row["asked again"] += 1
    for line in log.values():  # of ids that no client knows
        if line["id"].startswith("c") and line["id"][1:2].isdecimal() and len(line["id"]) < 10:
            verdict.faults.append(f"the proxy tells of a request that no client knows: {line}")
    for line in verdict.unlogged:
        verdict.rows[line.kind]["answered, not in the log"] += 1
        kill = next((one for one in storm.kills if one.began - WAITING < line.ended < one.ended + READ_LATE), None)
        if kill is None:
            verdict.faults.append(f"not in the log, though no worker had just been killed: {line}")
        else:
            verdict.unlogged_per_kill[kill.pid].append(line)
    for kill in storm.kills:
        judge_log(verdict, kill)
        judge_kill(verdict, kill)
    for pids, what in (
        (verdict.being_read, "requests that were read and not begun"),
        (verdict.at_an_end, "answers that had passed and were under way"),
    ):
        if len(pids) > max(2.0, BETWEEN * len(storm.kills)):
            verdict.faults.append(f"{what} in {len(pids)} workers: no chance")
    posts = Counter(line.split()[0] for line in (storm.folder / "posts.log").read_text().splitlines())
    verdict.rows["post"]["came twice"] = sum(count > 1 for count in posts.values())
    copies = Counter(line.split()[0] for line in (storm.folder / "copies.log").read_text().splitlines())
    verdict.rows["post"]["copied"] = len(copies)
    verdict.faults += [f"{count} copies of POST {id} were made" for id, count in copies.items() if count > 1]
    verdict.faults += [f"POST {id} came to backends {count} times" for id, count in posts.items() if count > 1]
    if len(storm.samples) > 2 and storm.samples[-1].at >= LONG * 60:
        _judge_growth(storm, verdict)
    verdict.faults += storm.trouble
    return verdict


def _judge_loss(storm: Storm, verdict: Verdict, line: Line, known: dict[str, Any] | None) -> None:
    row = verdict.rows[line.kind]
    if known is None and line.outcome.isdecimal():
        row["by a backend's death"] += 1
        verdict.unlogged.append(line)
        return
    if known is not None and (known.get("reason") or known["status"] >= 500):
        # The proxy has ended it itself: the client must have seen just that, and a backend must have died.
        row["by a backend's death"] += 1
        near = [at for at, port in storm.backend_kills if str(port) in str(known) and line.sent - 1 < at < line.ended]
        if not near:
            verdict.faults.append(f"no backend was killed then: {line}, log {known}")
        if line.outcome.isdecimal() and line.outcome != str(known["status"]):
            verdict.faults.append(f"the log says otherwise: {line}, log {known}")
        return
    for kill in storm.kills:
        # One sent when the connection was dead already, which its client had not noticed, was lost by it as well.
        if line.port in kill.ports and line.sent < kill.ended + 0.5 and line.ended > kill.began:
            row["by a worker's death"] += 1
            verdict.lost_per_kill[kill.pid].append(line)
            return
    for kill in storm.kills:
        dead = any(line.sent - 1 < at < line.ended for at, _ in storm.backend_kills)
        if known is None and dead and kill.began - 0.5 < line.ended < kill.ended + 0.1:
            # The worker has passed a backend's death on, and died before its end was booked, or written.
            row["by a backend's death"] += 1
            verdict.last_moment[kill.pid] += 1
            return
    row["for no reason"] += 1
    verdict.faults.append(f"lost, though nothing that had it was killed: {line}, log {known}")


def judge_log(verdict: Verdict, kill: Kill) -> None:
    """Answers that are not in the access log are lines that the worker took with it, by the proxy's account.

    Some were under way by that account still: WebSockets whose goodbyes have passed, until their connections have
    ended, and the one answer after whose last byte the worker stood still. (uvloop writes at once, so the client has
    the answer before it is booked.) A line too many was cut in the last moment, or was being written.
    """
    unlogged = verdict.unlogged_per_kill[kill.pid]
    missing = len(unlogged) - kill.unwritten
    at_last = [line for line in unlogged if line.ended > kill.began - AT_LAST]
    sockets = sum(line.kind == "socket" and (line.port in kill.ports or line in at_last) for line in unlogged)
    others = any(line.kind != "socket" for line in at_last)
    if not -verdict.last_moment[kill.pid] - kill.in_hand <= missing <= sockets + others:
        last = sorted(unlogged, key=lambda line: line.ended)[-3:]
        verdict.faults.append(
            f"process {kill.pid}: {len(unlogged)} answers are not in the access log, {kill.unwritten} by the proxy's "
            f"account; the last ones: {last}"
        )
    verdict.unbooked[kill.pid] = max(0, missing)
    if missing > sockets:
        verdict.at_an_end.add(kill.pid)


def judge_kill(verdict: Verdict, kill: Kill) -> None:
    """Requests that the kernel had before the worker stood still are under way in it or unread; later ones may have
    become unread. One that its client was about to write belongs to the later ones."""
    lost = verdict.lost_per_kill[kill.pid]
    before = sum(line.given <= kill.began for line in lost)
    if kill.account is None and not lost:
        kill.account = 0  # nothing to tell
    elif kill.account is None:
        verdict.faults.append(f"the proxy does not say what was under way in worker process {kill.pid}")
        return
    unread = [line for line in lost if line.port in kill.unread and line.outcome == "none"]
    heads = sum(line.kind != "post" for line in unread)  # a POST may have been begun, and its body lie unread
    kill.unbegun = len(lost) - kill.account
    # By both accounts together: an answer between its last byte and its account is in the one or the other.
    missing = len(verdict.unlogged_per_kill[kill.pid]) - kill.unwritten
    most = len(lost) + verdict.last_moment[kill.pid] + missing + kill.in_hand - heads
    least = before - len(unread) + max(0, missing)
    if least == kill.account + 1:
        # It stood still between the reading of a request and its begin: at most one request can be there.
        verdict.being_read.add(kill.pid)
        least -= 1
    if not least <= kill.account <= most:
        verdict.faults.append(
            f"process {kill.pid}: {kill.account} under way by the proxy's account, but by what clients lost, and by "
            f"the {heads} to {len(unread)} that lay unread, there were {least} to {most}"
        )


def _judge_growth(storm: Storm, verdict: Verdict) -> None:
    last = storm.samples[-1].at
    for name in ("supervisor", "workers", "descriptors", "connections"):
        early = [getattr(one, name) for one in storm.samples if 120 <= one.at < 180]
        late = [getattr(one, name) for one in storm.samples if one.at > last - 60]
        if not early or not late:
            verdict.faults.append(f"{name}: no samples")
            continue
        first, then = statistics.median(early), statistics.median(late)
        verdict.rows["growth"][name] = round(1000 * then / first)
        if then > GROWTH * first:
            verdict.faults.append(f"{name} grew from {first} to {then}")


def show(storm: Storm, verdict: Verdict) -> None:
    print("\n| | GET | preview | GET by TLS | POST | event stream | WebSocket |\n|" + " --- |" * 7)
    kinds = (*ASKED_AGAIN, "post", "stream", "socket")
    for name in (
        "tries", "whole", "sent elsewhere (1001)", "open at the end", "by a backend's death", "by a worker's death",
        "for no reason", "wrong-pool", "certificate", "asked again", "failed", "came twice", "copied",
        "answered, not in the log",
    ):  # fmt: skip
        cells = [str(verdict.rows[kind][name]) for kind in kinds]
        if name in ("asked again", "failed"):
            cells[3:] = ["–"] * 3
        elif name in ("came twice", "copied"):
            cells = ["–", "–", "–", cells[3], "–", "–"]
        print(f"| {name} | {' | '.join(cells)} |")
    lost = sum(len(lines) for lines in verdict.lost_per_kill.values())
    account = sum(kill.account or 0 for kill in storm.kills)
    unbegun = sum(kill.unbegun for kill in storm.kills)
    print(
        f"\nworkers killed: {len(storm.kills)}; what clients lost by it: {lost}; "
        f"by the proxy's account: {account} under way; {unbegun} lay unread in the kernel, or "
        f"({len(verdict.being_read)} at most) were read and not begun"
    )
    print(
        f"answers that are not in the access log: {len(verdict.unlogged)}; "
        f"by the proxy's account: {sum(kill.unwritten for kill in storm.kills)}, and {verdict.unbooked.total()} that "
        f"were under way when they had passed (cut in a worker's last moment, and booked as one or the other: "
        f"{verdict.last_moment.total()}; being written: {sum(kill.in_hand for kill in storm.kills)})"
    )
    print(f"done: {dict(storm.done)}")
    for name, value in verdict.rows["growth"].items():
        print(f"{name}, last minute against the third: {value / 10:.1f} %")
    for one in storm.samples[:: max(1, len(storm.samples) // 8)]:
        print(
            f"  {one.at:4.0f} s: supervisor {one.supervisor / 2**20:.1f} MiB, workers {one.workers / 2**20:.1f} MiB, "
            f"{one.descriptors} descriptors, {one.connections:.0f} connections"
        )
    for fault in verdict.faults[:30]:
        print(f"FAULT {fault}")
    if len(verdict.faults) > 30:
        print(f"… and {len(verdict.faults) - 30} more")
    print("FAILED" if verdict.faults else "PASSED")
