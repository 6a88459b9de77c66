"""Which int8 engines really work here, and which one answers. Imports torch."""

from collections.abc import Sequence
from pathlib import Path

from pi_dynn.clock import Clock
from pi_dynn.errors import BundleError, EngineUnavailable
from pi_dynn.records import Finding
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.engine_choice import candidates, open_network, remembered_engine


def engine_findings(path: Path | None, clock: Clock) -> Sequence[Finding]:
    """Test every engine of this processor on the bundle at `path`, or on the embedded one."""
    try:
        bundle = load_bundle(path)
    except (BundleError, OSError) as error:
        cure = "name a bundle with --bundle, or make one with `pi-dynn export`"
        return [Finding("engines", "bundle", "none", f"there is no bundle to test engines on ({error})", cure)]
    if bundle.manifest.precision == "fp32":
        return [Finding("engines", "selected", "fp32 (the bundle is fp32)")]
    findings = []
    for engine in candidates():
        try:
            open_network(bundle, engine, clock)
        except (EngineUnavailable, RuntimeError) as error:  # torch 2.13 on ARM offers an engine that only raises
            reason = " ".join(str(error).split())
            findings.append(
                Finding("engines", engine, "broken", f"{engine} does not work here ({reason})", "use another")
            )
        else:
            findings.append(Finding("engines", engine, "works"))
    remembered = remembered_engine(bundle)
    try:
        selected, _ = open_network(bundle, "auto", clock)
    except EngineUnavailable as error:  # PI_DYNN_ENGINE asks for one that is not there
        return [*findings, Finding("engines", "selected", "none", str(error), "unset PI_DYNN_ENGINE")]
    how = "remembered" if remembered == selected else "timed just now"
    return [*findings, Finding("engines", "selected", f"{selected} ({how})")]
