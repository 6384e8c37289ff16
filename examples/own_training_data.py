"""From your own questions about a video to a model trained on them: records, shards, a recipe, two steps.

Run it: python examples/own_training_data.py lecture.mp4 trained
"""

import json
import subprocess
import sys
from pathlib import Path

QUESTIONS = {"Who speaks first?": "The host, who greets the audience.", "What is on the desk?": "A laptop and a cup."}
RECIPE = """
base: recipes/finetune.yaml
out: run
start: {checkpoint: nano}
data: {streams: [{folder: shards}]}
batch: {token_budget: 4096, samples: 2}
schedule: {epochs: 2}
log: {every_steps: 1}
"""

video, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
folder.mkdir()
records = [
    {"id": str(number), "video": video.name,
     "conversations": [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]}
    for number, (question, answer) in enumerate(QUESTIONS.items())
]  # fmt: skip
(folder / "my.json").write_text(json.dumps(records))
(folder / "my-run.yaml").write_text(RECIPE)

for command in (
    ["data", "shard", "my.json", "--kind", "video", "--media", str(video.parent), "--out", "shards"],
    ["train", "my-run.yaml", "--set", f"data.media={video.parent}"],
):
    subprocess.run([sys.executable, "-m", "hourllava", *command], cwd=folder, check=True)
