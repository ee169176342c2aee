"""What a campaign found, fault by fault: the table, and its place in docs/guarantees.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fault.campaign.oracle import Finding, What

BEGIN, END = "<!-- campaign: begin -->", "<!-- campaign: end -->"


@dataclass(slots=True)
class Span:
    """One fault: from its beginning until the next one's, wall time in seconds."""

    fault: str
    began: float
    ended: float = 0.0
    stall: float = 0.0
    trouble: str = ""
    """Why it could not be caused, or what did not recover from it."""


@dataclass(slots=True)
class Result:
    """A whole campaign."""

    seed: int
    rate: int
    workers: str
    began: float
    seconds: float = 0.0
    published: int = 0
    points: int = 0
    windows: int = 0
    alarms: int = 0
    spoken: int = 0
    """Messages of devices by MQTT, in `published`, and their points, in `points`."""
    retried: int = 0
    """Records of these that the bridge produced again."""
    resent: int = 0
    """Messages of these that their devices sent again on another connection."""
    spans: list[Span] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing at all was wrong."""
        return not self.findings and not self.troubles and not any(span.trouble for span in self.spans)


QUIET = "(between faults)"


def laid_at(findings: Iterable[Finding], spans: Sequence[Span]) -> list[tuple[str, Finding]]:
    """Each finding with the fault in whose span its event time is."""
    laid = []
    for finding in findings:
        at = finding.at / 1000
        fault = next((span.fault for span in reversed(spans) if span.began <= at), QUIET)
        laid.append((fault, finding))
    return laid


def table(result: Result, order: Sequence[str]) -> str:
    """Markdown: fault, times, lost, duplicated, wrong windows, alarms and roll-ups, longest stall."""
    counts: dict[str, Counter[What]] = {}
    for fault, finding in laid_at(result.findings, result.spans):
        counts.setdefault(fault, Counter())[finding.what] += 1
    head = (
        "fault",
        "times",
        "lost",
        "duplicated",
        "wrong windows",
        "wrong alarms",
        "wrong roll-ups",
        "longest stall, s",
    )
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for fault in [name for name in (QUIET, *order) if name in counts or any(s.fault == name for s in result.spans)]:
        mine = [span for span in result.spans if span.fault == fault]
        times = sum(not span.trouble for span in mine)
        of = counts.get(fault, Counter())
        cells = [
            of[What.LOST],
            of[What.DUPLICATED] + of[What.FOREIGN],
            of[What.WINDOW],
            of[What.ALARM],
            of[What.ROLLUP],
        ]
        stall = max((span.stall for span in mine), default=0.0)
        name = fault if times == len(mine) else f"{fault} ({len(mine) - times} more with trouble)"
        lines.append(f"| {name} | {times} | {' | '.join(map(str, cells))} | {stall:.1f} |")
    return "\n".join(lines)


def troubles(result: Result) -> list[str]:
    """What could not be caused, did not recover, or was otherwise not as it should be."""
    return [*result.troubles, *(f"{span.fault}: {span.trouble}" for span in result.spans if span.trouble)]


def summary(result: Result) -> str:
    """One paragraph: how much was published and compared, how long it took, how it ended."""
    minutes = result.seconds / 60
    wrong = [f"Trouble: {trouble}." for trouble in troubles(result)]
    return " ".join([_compared(result, minutes), *wrong])


def _compared(result: Result, minutes: float) -> str:
    return (
        f"{result.published:,} messages at {result.rate:,} a second, {result.spoken:,} of them by MQTT (the bridge "
        f"produced {result.retried:,} again, devices sent {result.resent:,} again on another connection), in "
        f"{minutes:.1f} minutes, {result.workers}; "
        f"{len(result.spans)} faults in the order of seed {result.seed}. Compared: {result.points:,} points, "
        f"{result.windows:,} windows, {result.alarms:,} alarms, the roll-ups by minute and hour: "
        + ("no difference." if not result.findings else f"{len(result.findings)} differences.")
    )


def write(path: Path, text: str) -> None:
    """Put the text between the marks of the page."""
    page = path.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
