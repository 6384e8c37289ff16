"""Talk about a video; answers appear word by word, and later questions may refer to earlier answers.

Run it: python examples/chat_about_a_video.py lecture.mp4
"""

import sys

from hourllava import Chat, HourLlava

video = sys.argv[1]
model = HourLlava.from_pretrained("nano")
chat = Chat(model, model.watch(video))
print("Ask; an empty line ends the conversation.")
for line in sys.stdin:
    if not line.strip():
        break
    chat.ask(line.strip(), on_text=lambda piece: print(piece, end="", flush=True))
    print()
print(f"{len(chat.history)} questions were answered.")
