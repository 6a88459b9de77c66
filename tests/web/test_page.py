"""The page in a real Chromium: an upload is answered, the charts move, and Ctrl-C ends it all."""

import signal

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")


def test_an_upload_is_answered_and_the_charts_move(server, browser, photographs, tmp_path):
    address, process = server
    page = browser.new_page(viewport={"width": 900, "height": 900})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(address)
    files = sorted(path for path in photographs.rglob("*") if path.suffix == ".jpg")[:2]
    shots = []
    for number, file in enumerate(files):
        page.set_input_files("#file", file)
        page.wait_for_function(f"latencies.length > {number}", timeout=60_000)
        page.wait_for_function("document.getElementById('label').textContent.includes('%')", timeout=60_000)
        shots.append(page.locator(".charts").screenshot())
    assert shots[0] != shots[1]
    assert "left after block" in page.locator("#facts").inner_text()
    assert "SIMULATED" in page.locator("#facts").inner_text()
    assert page.locator("#latency").inner_text().endswith("ms")
    (tmp_path / "not.jpg").write_text("no image")
    page.set_input_files("#file", tmp_path / "not.jpg")
    page.wait_for_function("document.getElementById('error').textContent.includes('not an image')", timeout=60_000)
    assert [line for line in said if "422" not in line] == []
    process.send_signal(signal.SIGINT)  # while the page's stream of events is open
    assert process.wait(timeout=60) in (0, 130)
