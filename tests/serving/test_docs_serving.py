"""What docs/serving.md shows is true: its Python runs against a server, and its table has every setting."""

import re
from pathlib import Path

from hourllava.serving.settings import ServeSettings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs(server, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lecture.mp4").write_bytes(clip.read_bytes())
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    code = "".join(blocks).replace("http://127.0.0.1:8000", server.url)
    names: dict[str, object] = {}
    exec(compile(code, "docs/serving.md", "exec"), names)
    names["client"].close()
    assert capsys.readouterr().out.count("A red car.") == 2


def test_the_addresses_of_curl_are_there(server, clip):
    uploaded = re.search(r"curl -T lecture.mp4 'http://127.0.0.1:8000(\S+)'", PAGE)
    assert server.http.put(uploaded[1], content=clip.read_bytes()).status_code == 200
    listed = re.search(r"^curl http://127.0.0.1:8000(\S+)$", PAGE, flags=re.MULTILINE)
    assert server.http.get(listed[1]).status_code == 200


def test_the_table_has_every_setting_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", PAGE, flags=re.MULTILINE))
    expected = {}
    for name, field in ServeSettings.model_fields.items():
        value = field.get_default(call_default_factory=True)
        expected[name] = f"{value:,}" if isinstance(value, (int, float)) else "none"
    assert rows == expected
