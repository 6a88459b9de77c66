"""How `learn` reads: what the folder holds, the plan, and what to photograph more of."""

from pi_dynn.data.look import FolderLook, LeftOut
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.train.learn.text import (
    confused_pairs,
    learn_plan_text,
    learned_text,
    look_text,
    model_card,
    next_line,
    photograph_text,
    wrong_answers,
)
from pi_dynn.train.records import Answer, ClassAccuracy, LearnPlan, LearnResult

PLAN = LearnPlan("tiny", 128, "whole", 6, 32, 0.5, 0.01, 95.0, "6 epochs fit the time")


def a_result(**changed) -> LearnResult:
    """Two of six test images wrong, one of them surely."""
    evaluation = Evaluation(
        "my photos", 6, 0, 4 / 6, 1.0, 0.5, 4 / 6, 6e6, 10_000_000, [], [0.8], "fp32", "int8-static", "x"
    )
    answers = [
        Answer("ant/1.jpg", 0, 0, 0.99, 0),
        Answer("ant/2.jpg", 0, 1, 0.6, 1),
        Answer("bee/1.jpg", 1, 0, 0.95, 0),
    ]
    values = {
        **dict.fromkeys(("bundle", "weights", "page", "card", "split", "folder", "source"), "mine.pt"),
        **{
            "plan": PLAN,
            "seed": 0,
            "classes": ["ant", "bee"],
            "parts": {"train": 20, "test": 6},
            "left_out": 1,
            "epochs": 6,
        },
        **{
            "kept": "whole",
            "any_way_up": True,
            "chosen_accuracy": {"heads": 0.7, "whole": 0.8},
            "precision": "int8-static",
        },
        **{
            "precision_reason": None,
            "int8_agreement": 0.97,
            "exit_blocks": [4],
            "thresholds": [0.8],
            "score": "max-probability",
        },
        **{
            "evaluation": evaluation,
            "interval": (0.3, 0.9),
            "exits_cost": 0.0,
            "confusion": [[2, 1], [1, 2]],
            "answers": answers,
        },
        **{"per_class": [ClassAccuracy("ant", 3, 2, (0.2, 0.9)), ClassAccuracy("bee", 3, 2, (0.2, 0.9))], "curve": []},
        **{"advice": ["more light"], "took_s": 65.0},
    }
    return LearnResult(**(values | changed))


def test_what_a_folder_holds_reads_line_by_line():
    left_out = [LeftOut(f"ant/{i}.jpg", "the file is empty") for i in range(9)]
    look = FolderLook(
        "photos",
        {"ant": 9, "bee": 1200},
        [90, 128, 256],
        left_out,
        0,
        [["a", "b"]],
        [["a", "b"], ["c", "d"]],
        ["go on"],
    )
    lines = look_text(look, {"test": 2, "train": 8}).splitlines()
    assert lines[0].split() == ["class", "images"]
    assert "1,209 images, their shorter side 90 to 256 px, 128 in the middle" in lines
    assert "left out: ant/0.jpg: the file is empty" in lines and "left out: 1 more file, all in look.json" in lines
    assert "pictures that look alike stay in one part: 1 group, such as a, b" in lines
    assert lines[-2:] == ["shared out: 2 to test, 8 to train", "advice: go on"]


def test_the_plan_and_the_summary():
    assert learn_plan_text(PLAN) == (
        "plan: tiny at 128 px, all of it: 6 epochs fit the time; about 0:01:35 more (500 ms a step of 32 images)"
    )
    lines = learned_text(a_result()).splitlines()
    assert lines[0].startswith("66.7 % of 6 test images right (95 % interval 30.0 % to 90.0 %), 40.0 % of the")
    assert next_line(a_result()) == "pi-dynn classify 'my photos/ant/1.jpg' --bundle mine.pt"
    assert learned_text(a_result(unfinished="interrupted after 2 of 6 epochs")).startswith("stopped early: interrupted")
    assert "fp32, not int8: too coarse" in learned_text(a_result(precision="fp32", precision_reason="too coarse"))


def test_what_to_photograph_more_of():
    result = a_result()
    assert [one.path for one in wrong_answers(result)] == ["bee/1.jpg", "ant/2.jpg"]
    assert confused_pairs(result) == [("ant", "bee", 1), ("bee", "ant", 1)]
    lines = photograph_text(result)
    assert lines[0] == "ant was taken for bee 1 time: add photographs of both where they look alike"
    assert (
        "bee/1.jpg is answered wrong, and very surely: is it in the right folder?" in lines
        and lines[-1] == "more light"
    )


def test_the_model_card_says_what_was_done():
    card = model_card(a_result())
    assert "6 epochs of the whole network" in card and "pictures turned by quarters" in card and "| ant |" in card
    assert "heads alone on the pretrained network; trained whole it answered no better" in model_card(
        a_result(kept="heads")
    )
    alone = a_result(kept="heads", chosen_accuracy={"heads": 0.7})
    assert f"heads alone on the pretrained network; {alone.plan.reason}" in model_card(alone)
