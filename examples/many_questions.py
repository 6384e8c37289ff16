"""Watch a video once and ask it several questions: open ones together, then one with given options.

Run it: python examples/many_questions.py lecture.mp4
"""

import sys

from hourllava import HourLlava

video = sys.argv[1]
model = HourLlava.from_pretrained("nano")
memory = model.watch(video)

for answer in model.ask_all(memory, ["What is shown first?", "What is shown last?"], max_new_tokens=32):
    print(f"{answer.question} {answer.text}")

choice = model.choose(memory, "Is it day or night?", ["day", "night"])
for option, probability in zip(["day", "night"], choice.probabilities):
    print(f"{option}: {probability:.0%}")
print(f"The model chooses {choice.letter}: {choice.option}.")
