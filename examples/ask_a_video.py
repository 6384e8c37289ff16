"""Watch a video, ask one question, and see which moments the answer is based on.

Run it: python examples/ask_a_video.py lecture.mp4 "When is the first graph shown?"
"""

import sys

from hourllava import HourLlava

video, question = sys.argv[1:]
model = HourLlava.from_pretrained("nano")  # or a checkpoint's folder, or "jylins/hourllava-qwen25-3b-s3"
memory = model.watch(video)  # 1 frame per second
answer = model.ask(memory, question)
print(answer.text)
for span in answer.evidence:  # the strongest first
    print(f"{span.start_seconds:.0f} s to {span.end_seconds:.0f} s: {span.weight:.0%} of the attention")
