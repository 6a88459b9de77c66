"""The page in a real Chromium: an upload is answered, the charts move, and Ctrl-C ends it all."""

import signal

import pytest

from pi_dynn.cli.options import sample_folder

pytest.importorskip("starlette", reason="needs the extra [serve]")


def test_an_upload_is_answered_and_the_charts_move(server, browser, tmp_path):
    address, process = server
    page = browser.new_page(viewport={"width": 900, "height": 900})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(address)
    answers = {
        "agricultural01.jpg": "agricultural",
        "golfcourse20.jpg": "none of these (nearest: golf course)",  # wrongly: one of the 5 % it may reject
    }
    shots = []
    for number, (file, answer) in enumerate(answers.items()):
        page.set_input_files("#file", sample_folder() / file)
        page.wait_for_function(f"latencies.length > {number}", timeout=60_000)
        page.wait_for_function(f"document.getElementById('label').textContent.startsWith({answer!r})", timeout=60_000)
        shots.append(page.locator(".charts").screenshot())
    assert shots[0] != shots[1]
    assert "exit 5 of 5 (block 11)" in page.locator("#facts").inner_text()
    assert "SIMULATED by fake" in page.locator("#about").inner_text()
    assert page.locator("#latencies circle").count() == 2
    assert page.locator("#top .row").count() == 3
    assert page.locator("#ladder .left").inner_text() == "block 11: 100 %"
    page.locator("#samples button").nth(4).click()
    page.wait_for_function("document.getElementById('label').textContent === 'buildings'", timeout=60_000)
    assert "21 classes" in page.locator("#about").inner_text()
    assert "/classify" in page.locator("#curl").inner_text()
    (tmp_path / "not.jpg").write_text("no image")
    page.set_input_files("#file", tmp_path / "not.jpg")
    page.wait_for_function("document.getElementById('error').textContent.includes('not an image')", timeout=60_000)
    assert [line for line in said if "422" not in line] == []
    process.send_signal(signal.SIGINT)  # while the page's stream of events is open
    assert process.wait(timeout=60) in (0, 130)
