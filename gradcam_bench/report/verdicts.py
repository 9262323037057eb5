"""A gate's judgement in the formats that people and continuous integration read: text, Markdown, JUnit, annotations."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as Xml  # only to write; what is read goes through defusedxml

from gradcam_bench.analysis.noninferiority import PASS, REGRESSION, UNDECIDED, Check, Judgement

HEADS = ("metric", "protocol", "method", "baseline", "run", "loss", "lower", "upper", "margin", "verdict")
SUMMARIES = {0: "as good as the baseline", 1: "worse than the baseline", 2: "cannot be judged"}
UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not allowed in XML 1.0


def as_text(judgement: Judgement) -> str:
    """A table for the terminal of what is not as it was, the verdict last."""
    changed = [check for check in judgement.checks if not _identical(check)]
    lines = [HEADS, *(_cells(check) for check in changed)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEADS))]
    shown = [
        "  ".join(
            text.rjust(width) if 3 <= n <= 8 else text.ljust(width)
            for n, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*(shown if changed else ()), *_same(judgement), *judgement.notes, summary(judgement)])


def as_markdown(judgement: Judgement) -> str:
    """For a comment on a change: the verdict, then a table of what is not as it was, what did not pass first."""
    changed = [check for check in judgement.checks if not _identical(check)]
    order = sorted(changed, key=lambda check: check.judged.verdict == PASS)
    rows = "".join(f"| {' | '.join(_escaped(text) for text in _cells(check))} |\n" for check in order)
    rule = f"|{'---|' * 3}{'---:|' * 6}---|"
    notes = "".join(f"- {_escaped(note)}\n" for note in [*_same(judgement), *judgement.notes])
    head = f"**gradcam-bench gate: {_escaped(summary(judgement))}**"
    table = f"| {' | '.join(HEADS)} |\n{rule}\n{rows}\n" if rows else ""
    return f"{head}\n\n{table}{notes}"


def as_junit(judgement: Judgement) -> str:
    """JUnit's XML: a test case a check, a failure for a regression, an error for what cannot be judged."""
    verdicts = Counter(check.judged.verdict for check in judgement.checks)
    counts = {
        "tests": str(len(judgement.checks)),
        "failures": str(verdicts[REGRESSION]),
        "errors": str(verdicts[UNDECIDED]),
    }
    suites = Xml.Element("testsuites", counts)
    suite = Xml.SubElement(suites, "testsuite", {"name": "gradcam-bench gate", **counts})
    for check in judgement.checks:
        named = {"classname": _plain(f"{check.metric}.{check.protocol}"), "name": _plain(check.method)}
        case = Xml.SubElement(suite, "testcase", named)
        if check.judged.verdict != PASS:
            kind = "failure" if check.judged.verdict == REGRESSION else "error"
            Xml.SubElement(case, kind, {"type": check.judged.verdict, "message": _plain(sentence(check))})
    Xml.SubElement(suite, "system-out").text = _plain("\n".join([*judgement.notes, summary(judgement)]))
    Xml.indent(suites)
    return Xml.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def as_annotations(judgement: Judgement) -> str:
    """GitHub's workflow commands: an error for each check that does not pass, a notice where all do."""
    lines = [
        f"::error title={_property(f'{check.judged.verdict}: {check.name}')}::{_data(sentence(check))}"
        for check in judgement.checks
        if check.judged.verdict != PASS
    ]
    return "\n".join(lines or [f"::{'notice' if judgement.code == 0 else 'error'}::{_data(summary(judgement))}"])


def sentence(check: Check) -> str:
    """What is to be known of one check."""
    loss, judged = check.loss, check.judged
    if loss is None:
        return f"{check.name} cannot be judged: {check.reason}"
    if loss.identical:
        return f"{check.name}: {loss.run:.4f}, every score as it was"
    found = (
        f"{check.name}: {loss.baseline:.4f} -> {loss.run:.4f} on {loss.images} images, a loss of {loss.delta:+.4f} "
        f"(at least {judged.lower:+.4f}, at most {judged.upper:+.4f}; {check.margin:g} is tolerated)"
    )
    if judged.verdict != UNDECIDED:
        return found
    enough = f"{judged.needed} images would decide" if judged.needed is not None else "no number of images would decide"
    return f"{found}; undecided, {enough}"


def summary(judgement: Judgement) -> str:
    """The verdict in a line, with what would turn an undecided one into one."""
    verdicts = Counter(check.judged.verdict for check in judgement.checks)
    counts = ", ".join(f"{verdicts[name]} {name}" for name in (PASS, REGRESSION, UNDECIDED) if verdicts[name])
    worse = f", {len(judgement.tolerated)} of them worse within the margin" if judgement.tolerated else ""
    counts = counts.replace(f" {PASS}", f" {PASS}{worse}", 1)
    said = f"{SUMMARIES[judgement.code]} ({counts or 'nothing to judge'})"
    return said + (f"; {judgement.needed} images would decide" if judgement.needed is not None else "")


def _identical(check: Check) -> bool:
    return check.loss is not None and check.loss.identical


def _same(judgement: Judgement) -> list[str]:
    count = sum(_identical(check) for check in judgement.checks)
    return [f"every score as it was: {count} of {len(judgement.checks)} checks"] if count else []


def _cells(check: Check) -> tuple[str, ...]:
    names = (check.metric, check.protocol, check.method)
    loss, judged = check.loss, check.judged
    if loss is None:
        return (*names, *["-"] * 5, f"{check.margin:g}", f"{judged.verdict}: {check.reason}")
    numbers = (f"{loss.baseline:.4f}", f"{loss.run:.4f}", f"{loss.delta:+.4f}")
    bounds = (f"{judged.lower:+.4f}", f"{judged.upper:+.4f}", f"{check.margin:g}")
    more = f" (n = {loss.images}, {judged.needed} would decide)" if judged.needed is not None else ""
    return (*names, *numbers, *bounds, judged.verdict + more)


def _escaped(text: str) -> str:
    """As Markdown shows it literally in a table's cell."""
    return re.sub(r"([\\|<>`*_\[\]&@#])", r"\\\1", " ".join(text.split()))


def _plain(text: str) -> str:
    return UNPRINTABLE.sub("?", text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
