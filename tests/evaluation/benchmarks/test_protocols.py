"""Protocols: the exact prompt of each, with and without subtitles."""

import pytest

from evaluation.benchmarks.miniatures import HUB_MINIATURES, MINIATURES
from hourllava.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark
from hourllava.evaluation.benchmarks.cues import Sampling
from hourllava.evaluation.benchmarks.folder import DataFolder

OFFICIAL, NEW, OLD = "official", "lmms-eval-0.7.2", "lmms-eval-0.3"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name, miniatures=MINIATURES):
        key = name, miniatures is MINIATURES
        if key not in made:
            made[key] = DataFolder(miniatures[name](tmp_path_factory.mktemp("data") / name))
        return made[key]

    return folder


def first(folder, name, split=None, place=0):
    benchmark = find_benchmark(name)
    return benchmark.read(folder, benchmark.split(split)).questions[place]


ASK = "Respond with only the letter (A, B, C, or D) of the correct option."
SELECT = "Select the best answer to the following multiple-choice question based on the video"
MME = "Who is shown first?\nA. Ann.\nB. Anna.\nC. Nobody.\nD. A dog."
LVB = "When the text 'go' appears, what is on the table?\nA. a cup\nB. a hat\n"
DIRECTLY = "Answer with the option's letter from the given choices directly."
CG = "Where is it?\nA. at home\nB. at a home\nC. away\nD. up\nE. down\nAnswer with the option letter only."
COMPASS = "What is the cup doing?\nA. filling\nB. emptying\nC. spinning"
LVBENCH = "What falls first?\n(A) A cup\n(B) A cupboard\n(C) A key\n(D) A pen"
EGO = "What does C do?\nA. C washes a cup.\nB. C washes a cup and a pan.\nC. C cooks.\nD. C reads.\nE. C sleeps.\n"
CHOICE = "Which is right (q1)?\nA. answer 1\nB. answer 2\nC. answer 3\nD. answer 4\nE. answer 5\n"

WITHOUT = [
    ("video-mme", OFFICIAL, f"{SELECT}. {ASK}\n{MME}\nThe best answer is:"),
    ("video-mme", NEW, f"{SELECT} and the subtitles. {ASK}\n{MME}\n\n{DIRECTLY}"),
    ("video-mme", OLD, f"{SELECT} and the subtitles. {ASK}\n{MME}\n\n{DIRECTLY}"),
    ("tempcompass", OFFICIAL, f"{COMPASS}\nPlease directly give the best option:"),
    ("tempcompass", NEW, f"{COMPASS}\nPlease directly give the best option:"),
    ("longvideobench", OFFICIAL, f"Question: {LVB}{DIRECTLY}"),
    ("longvideobench", NEW, f"{LVB}{DIRECTLY}\n"),
    ("longvideobench", OLD, f"{LVB}{DIRECTLY}\n"),
    ("lvbench", OFFICIAL, f"{LVBENCH}\nAnswer the question with the option letter"),
    ("lvbench", NEW, f"{LVBENCH}\nAnswer the question with the option letter"),
    ("mlvu", NEW, "Who?\n(A) x\n(B) x\n(C) y\n(D) z\nOnly give the best option.\nBest option: ("),
    ("egoschema", NEW, EGO + DIRECTLY),
    ("cg-bench", NEW, f"{SELECT}.\n{CG}"),
    ("hourvideo", "plain", CHOICE + DIRECTLY),
]  # fmt: skip


@pytest.mark.parametrize(("name", "protocol", "prompt"), WITHOUT, ids=lambda value: str(value)[:20])
def test_prompts_without_subtitles(folders, name, protocol, prompt):
    question = first(folders(name), name)
    assert find_benchmark(name).protocol(protocol).prompt(question, None).as_one_turn() == prompt


def test_mlvus_authors_have_a_system_text_and_begin_the_reply(folders):
    prompt = find_benchmark("mlvu").protocol(OFFICIAL).prompt(first(folders("mlvu"), "mlvu"), None)
    assert prompt.user == "Question: Who?\nOptions:\n(A) x\n(B) x\n(C) y\n(D) z\nOnly give the best option."
    assert prompt.system.startswith("Carefully watch this video and pay attention to every detail. Based on ")
    assert prompt.system.endswith("select the best option that accurately addresses the question.")
    assert prompt.reply == "Best Option: ("
    assert prompt.as_one_turn() == f"{prompt.system}\n{prompt.user}\n{prompt.reply}"


def test_the_test_split_of_mlvu_has_no_post_prompt_in_lmms_eval(folders):
    question = first(folders("mlvu", HUB_MINIATURES), "mlvu", "test")
    assert find_benchmark("mlvu").protocol(NEW).prompt(question, None).user == question.text


@pytest.mark.parametrize(
    ("kind", "post_prompt"),
    [
        ("choice", "\nPlease directly give the best option:"),
        ("caption_matching", "\nPlease directly give the best option:"),
        ("yes_no", "\nPlease answer yes or no:"),
        ("captioning", ""),
    ],
)
def test_each_task_of_tempcompass_has_its_post_prompt(folders, kind, post_prompt):
    benchmark = find_benchmark("tempcompass")
    for question in benchmark.read(folders("tempcompass"), "test").questions:
        if question.kind == kind:
            assert benchmark.protocol(OFFICIAL).prompt(question, None).user == question.text + post_prompt


def said_in(folders, name, protocol, place, sampling=None):
    """(the prompt with the subtitles of a question, the bare question)"""
    folder, benchmark = folders(name), find_benchmark(name)
    question = first(folder, name, place=place)
    chosen = benchmark.protocol(protocol)
    said = ""
    if question.subtitles:
        sampling = sampling or Sampling([0.0, 1.0], 2.0, 2.0, 4)
        said = chosen.said(question, folder.root / question.subtitles, sampling)
    return chosen.prompt(question, said).as_one_turn()


def test_subtitles_of_video_mme(folders):
    """Official: cues at the frames that the model saw. lmms-eval: at 32 frames of the file, and only tagged ones."""
    listed = "This video's subtitles are listed below:"
    rest = f"{SELECT}. {ASK}\n{MME}\nThe best answer is:"
    frames = {(0.0, 1.6): "Good day.\nThis is Ann.", (0.0, 1.3): "Good day.", (1.95,): "This is Ann.\nwithout a tag"}
    for seconds, lines in frames.items():
        prompt = said_in(folders, "video-mme", OFFICIAL, 3, Sampling(seconds, 2.0, 2.0, 4))
        assert prompt == f"{listed}\n{lines}\n{rest}"
        harness = said_in(folders, "video-mme", NEW, 3, Sampling(seconds, 2.0, 20.0, 40))
        after = f"{SELECT} and the subtitles. {ASK}\n{MME}\nThe best answer is:"
        assert harness == f"{listed} \nGood day.\nThis is Ann.\n{after}"


def test_lmms_eval_shows_subtitles_of_mp4_files_only(folders):
    """It opens `<id>.mp4` to count frames, whatever the file is called that the model watches."""
    mkv = said_in(folders, "video-mme", NEW, 6, Sampling([0.0], 2.0, 20.0, 40))
    assert mkv.startswith("This video's subtitles are listed below: \n\nSelect the best answer")


def test_an_unused_option_between_others_shifts_letters_in_lmms_eval_only(folders):
    question = first(folders("longvideobench"), "longvideobench", place=1)
    question = question.model_copy(update={"options": ("a cup", "N/A", "a hat")})
    prompts = find_benchmark("longvideobench").protocols
    assert "\nA. a cup\nB. a hat\nAnswer" in prompts[NEW].prompt(question, None).user
    assert "\nA. a cup\nB. N/A\nC. a hat\nAnswer" in prompts[OFFICIAL].prompt(question, None).user


def test_a_video_without_subtitles(folders):
    official = said_in(folders, "video-mme", OFFICIAL, 0)
    assert official == f"{SELECT}. {ASK}\n{MME}\nThe best answer is:"
    harness = said_in(folders, "video-mme", NEW, 0)
    listed = "This video's subtitles are listed below: \nNo subtitles available\n"
    assert harness == f"{listed}{SELECT} and the subtitles. {ASK}\n{MME}\nThe best answer is:"
    cg = said_in(folders, "cg-bench", NEW, 2)
    assert cg.startswith(
        f"This video's subtitles are listed below:\nNo subtitles available.\n{SELECT} and subtitles.\n"
    )


def test_subtitles_of_longvideobench(folders):
    clip = Sampling([0.0, 1.0], 2.0, 2.0, 6)
    assert said_in(folders, "longvideobench", OFFICIAL, 0, clip) == f"go\nQuestion: {LVB}{DIRECTLY}"
    assert said_in(folders, "longvideobench", NEW, 0, clip) == f"<image>\ngo\n<image>\n{LVB}{DIRECTLY}\n"
    whole = said_in(folders, "longvideobench", NEW, 1, Sampling([0.0], 3.0, 2.0, 6))
    assert whole.startswith("<image>\nfirst\n<image>\n<image>\nand last\nWhich is first?")


def test_subtitles_of_cg_bench(folders):
    prompt = said_in(folders, "cg-bench", NEW, 0)
    assert prompt == (f"This video's subtitles are listed below:\nHere I am.\nAt home.\n{SELECT} and subtitles.\n{CG}")


def test_tokens_and_stops():
    lengths = {
        name: {protocol.name: (protocol.max_new_tokens, protocol.stop) for protocol in benchmark.protocols.values()}
        for name, benchmark in BENCHMARKS.items()
    }
    assert lengths["video-mme"][NEW] == lengths["lvbench"][NEW] == lengths["mlvu"][NEW] == (16, "\n\n")
    assert lengths["egoschema"][NEW] == lengths["cg-bench"][NEW] == (16, "\n\n")
    assert lengths["longvideobench"][NEW] == (32, "\n\n")
    assert lengths["tempcompass"][OFFICIAL] == (128, "")
