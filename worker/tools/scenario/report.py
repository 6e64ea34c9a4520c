"""The report of a run: one line per scenario, a difference per failure, and the same for machines."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET  # only written, never parsed

from msgspec import Struct


class Failure(Struct, frozen=True):
    """A failed expectation, or a worker that crashed."""

    step: int
    """The step's number, from 1; 0: before the first."""
    kind: str
    """The step's kind, such as `expect_requests`."""
    differences: list[str]


class Result(Struct, frozen=True):
    """The result of one scenario."""

    file: str
    name: str
    title: str
    failures: list[Failure]
    elapsed_s: float
    """Seconds of real time."""


class Report(Struct, frozen=True):
    """The results of all scenarios."""

    results: list[Result]
    unreadable: list[str]
    """One line for each file that is not a scenario."""
    elapsed_s: float

    @property
    def failed(self) -> int:
        """Scenarios with at least one failure."""
        return sum(1 for result in self.results if result.failures)

    @property
    def exit_code(self) -> int:
        """0, 1 (an expectation failed) or 2 (a file cannot be read)."""
        return 2 if self.unreadable else 1 if self.failed else 0


def as_text(report: Report) -> str:
    """The report as text."""
    lines: list[str] = []
    for result in report.results:
        lines.append(f"{'FAIL' if result.failures else 'ok  '} {result.name}  {result.title}".rstrip())
        for failure in result.failures:
            lines.append(f"     {result.file}: step {failure.step}, {failure.kind}")
            lines += [f"       {line}" for text in failure.differences for line in text.splitlines()]
    lines += ["ERROR " + text.replace("\n", "\n      ") for text in report.unreadable]
    unreadable = f", {len(report.unreadable)} unreadable" if report.unreadable else ""
    lines.append(f"{len(report.results)} scenarios, {report.failed} failed{unreadable}, {report.elapsed_s:.1f} s")
    return "\n".join(lines)


def as_object(report: Report) -> dict[str, object]:
    """The report as JSON (`--json`)."""
    return {
        "passed": len(report.results) - report.failed,
        "failed": report.failed,
        "unreadable": report.unreadable,
        "elapsed_s": round(report.elapsed_s, 3),
        "scenarios": [
            {
                "file": result.file,
                "name": result.name,
                "title": result.title,
                "passed": not result.failures,
                "elapsed_s": round(result.elapsed_s, 3),
                "failures": [
                    {"step": failure.step, "kind": failure.kind, "differences": failure.differences}
                    for failure in result.failures
                ],
            }
            for result in report.results
        ],
    }


def as_junit(report: Report) -> bytes:
    """The report for CI (JUnit): one test case per scenario, an error per unreadable file."""
    suite = ET.Element(
        "testsuite",
        name="cartsync scenario",
        tests=str(len(report.results) + len(report.unreadable)),
        failures=str(report.failed),
        errors=str(len(report.unreadable)),
        time=f"{report.elapsed_s:.3f}",
    )
    for result in report.results:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_allowed(Path(result.file).parent.as_posix()),
            name=_allowed(f"{result.name} {result.title}".strip()),
            file=_allowed(result.file),
            time=f"{result.elapsed_s:.3f}",
        )
        if result.failures:
            texts = [
                f"step {failure.step}, {failure.kind}\n" + "\n".join(failure.differences) for failure in result.failures
            ]
            message = texts[0].replace("\n", ": ", 1).partition("\n")[0]
            ET.SubElement(case, "failure", message=_allowed(message)).text = _allowed("\n\n".join(texts))
    for line in report.unreadable:
        case = ET.SubElement(suite, "testcase", classname="unreadable", name=_allowed(line.partition(": ")[0]))
        ET.SubElement(case, "error", message=_allowed(line))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 section 2.2


def _allowed(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
