"""`doctor` in text."""

from collections.abc import Sequence

from pi_dynn.records import Finding


def doctor_text(findings: Sequence[Finding]) -> str:
    """What was found, topic by topic, then each problem with its cure."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    topic = None
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines.append(topic)
        if finding.name != "advice":
            lines.append(f"  {finding.name:<{width}}  {finding.value}")
    problems = [finding for finding in findings if finding.problem is not None]
    lines += ["", f"{len(problems)} problems" if len(problems) != 1 else "1 problem"]
    for finding in problems:
        lines += [f"  {finding.topic}: {finding.problem}", f"    cure: {finding.cure}"]
    return "\n".join(lines)
