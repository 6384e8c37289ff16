"""TempCompass: how answers are matched, and what a judge is asked about those that do not match.

Multiple choice, yes/no and caption matching are matched by rules; only what no rule reads goes to a judge. A caption
always goes to a judge, which answers the multiple-choice question from the caption alone. The judge's texts are part of
the benchmark, spelling included. Source: llyx97/TempCompass `utils/eval_utils.py`, `prompt_templates.py`.
"""

import textwrap
from collections.abc import Sequence

from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.rules import Verdict

_LETTERS = "ABCD"
_CAPTION_LABELS = ("Sentence ", "Option ", "Caption ")
_KINDS = {
    "choice": ("multi-choice question", "Multi-Choice Question"),
    "yes_no": ("Yes/No question", "Yes/No Question"),
    "caption_matching": ("caption matching question", "Caption Matching Question"),
}


def match(question: Question, output: str) -> Verdict:
    """The verdict of the rules; the answer is "" if they do not read it."""
    if question.kind == "captioning":
        return Verdict("", None)
    read = {"choice": _choice, "yes_no": _yes_no, "caption_matching": _caption}[question.kind]
    return read(question, output)


def match_stripped(question: Question, output: str) -> Verdict:
    """As the authors' script: the end mark of some models, and blanks, do not count."""
    return match(question, output.replace("</s>", "").strip())


def _choice(question: Question, output: str) -> Verdict:
    gold = question.gold or ""
    if output == gold:
        return Verdict(gold[:1], True)
    letter = output[:1]
    if letter and letter in _LETTERS and (len(output) == 1 or output[1] in ".)"):
        return Verdict(letter, letter == gold[:1])
    return Verdict("", None)


def _yes_no(question: Question, output: str) -> Verdict:
    said = next((word for word in ("yes", "no") if output.lower().startswith(word)), "")
    return Verdict(said, said == question.gold if said else None)


def _caption(question: Question, output: str) -> Verdict:
    """An answer is a whole option, its sentence, or its label (`Caption A`, `A`, `Option 1`, `1`)."""
    options = question.text.split("\n")[1:]
    labels = [option.split(": ")[0] for option in options]
    sentences = [option.split(": ")[1] if ": " in option else option for option in options]
    read = ""
    for option in options:
        if output == option:
            read = option
    for sentence in sentences:
        if sentence == output or (") " in output and sentence == output.split(") ")[1]):
            read = sentence
    for label in [*labels, *map(_bare_label, labels)]:
        if label in (output, output.replace(".", "")):
            read = label
    gold = question.gold or ""
    label, _, sentence = gold.partition(": ")
    right = {gold, gold.split(":")[0], sentence.split(": ")[0], label.split()[-1] if label.split() else ""}
    return Verdict(read, read in right if read else None)


def _bare_label(label: str) -> str:
    for words in _CAPTION_LABELS:
        label = label.replace(words, "")
    return label


def judge_request(question: Question, output: str) -> str:
    """What the authors ask a judge about an answer that no rule matches, or about a caption."""
    if question.kind == "captioning":
        return f"{_CAPTION_REQUEST}\nVideo Description:{output}\nMulti-Choice Question:\n{question.judge_question}\n"
    what, _ = _KINDS[question.kind]
    return f"{_REQUEST.format(what)}{_asked_about(question, output)}"


def harness_judge_request(question: Question, output: str) -> str:
    """What lmms-eval asks a judge: the same with blanks, for its texts are indented as its code is, and `Answer:`."""
    if question.kind == "captioning":
        request = _indented(_CAPTION_REQUEST, _CAPTION_BREAKS, "    ")
        return f"{request}\nVideo Description:{output}\nMulti-Choice Question:\n{question.judge_question}\nAnswer:"
    what, _ = _KINDS[question.kind]
    return f"{_indented(_REQUEST.format(what), _BREAKS, 8 * ' ')}{_asked_about(question, output)}"


def _asked_about(question: Question, output: str) -> str:
    heading = _KINDS[question.kind][1]
    return f"\n{heading}:\n{question.text}\nGround-Truth Answer: {question.gold}\nModel Prediction: {output}"


def _indented(request: str, breaks: Sequence[str], indent: str) -> str:
    """Every line with an indent, also within a line where lmms-eval's code breaks it: before these words."""
    for words in breaks:
        request = request.replace(f" {words}", f" {indent}{words}")
    return textwrap.indent(request, indent, lambda line: line.strip() != "") + indent


def judge_says(question: Question, reply: str) -> bool | None:
    """Whether the judge finds an answer right; None if its reply says neither."""
    if question.kind == "captioning":
        return _caption_is_right(reply, question.judge_answer)
    if "Incorrect" in reply and not reply.startswith("Correct"):
        return False
    return True if "Correct" in reply else None


def _caption_is_right(reply: str, gold: str) -> bool | None:
    """The judge's `Answer:` names the right letter, and no other."""
    if not reply.strip():
        return None
    answers = [line.replace("Answer:", "").strip() for line in reply.split("\n") if "Answer" in line]
    answer = answers[-1] if answers else reply
    num_letters = sum(answer.count(f"{letter}.") for letter in _LETTERS)
    return answer.split(". ")[0] == gold.split(". ")[0] and num_letters == 1


_REQUEST = (
    "\nYou will receive a {}, the ground-truth answer and the prediction from a question answering (QA) model. "
    "Your task is to determine whether QA model prediction is correct, based on the question and ground-truth answer. "
    'If the prediction is correct, respond "Correct". If the prediction is incorrect, respond "Incorrect".\n'
)
_BREAKS = ("Your task is to", "If the prediction is correct")
_CAPTION_BREAKS = ("If none of the choice", "Please organize")
# fmt: off
_CAPTION_REQUEST = """
You will receive a video description and a multi-choice question. Your task is to choose the correct answer and briefly explain the reason why you choose the answer. If none of the choice candidates are correct or the video description lacks enough information to answer the question, just answer "None of the choices are correct". Please organize your response in this format:
```
Reasoning: [Your reason to obtain the answer]
Answer: [Your answer]
```

Here are some examples of video description, multi-choice question and the expected answer:
```
Video Description: A person is palying football.
Multi-Choice Question:
What is the person doing in the video?
A. cooking
B. palying football
C. playing basketball
D. reading book
Reasoning: The video description mentions that the person is playing football.
Answer: B. palying football

Video Description: A bird is flying clockwise.
Multi-Choice Question:
In which direction is the bird flying?
A. backwark
B. counter-clockwise
C. clockwise
D. downward
Reasoning: The video description mentions that the bird is flying clockwise
Answer: C. clockwise

Video Description: An air balloon is inflating.
Multi-Choice Question:
What is happening to the air balloon?
A. exploding
B. getting smaller
C. flying
Reasoning: The video description mentions that the air balloon is inflating, while none of the coices can be explained as inflating.
Answer: None of the choices are correct
```
"""  # noqa: E501
# fmt: on
