"""A server with a scripted engine, for looking at the page: no model is loaded.

python tests/serving/scripted_server.py FOLDER [MEDIA_ROOT]
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from hourllava.serving.app import create_app
from hourllava.serving.server import Server
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import Store
from serving.scripted_engine import Script, ScriptedEngine

if __name__ == "__main__":
    text = "The lecturer shows the first graph and points at its peak, while the car waits outside."
    pieces = re.findall(r"\S+ ?", text)
    script = Script(pieces, piece_seconds=0.08, frame_seconds=0.05, num_frames=120)
    media = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    app = create_app(ScriptedEngine(script), Store(Path(sys.argv[1])), ServeSettings(media_root=media))
    print("http://127.0.0.1:8000")
    Server(app, "127.0.0.1", 8000).run()
