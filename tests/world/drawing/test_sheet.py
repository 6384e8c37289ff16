"""Contact sheets contain every frame."""

import numpy as np

from hourllava.world.drawing.render import render_frames
from hourllava.world.drawing.sheet import contact_sheet
from hourllava.world.generate import generate_script


def test_contact_sheet_holds_all_frames():
    frames = render_frames(generate_script(1, 10), range(5), 64)
    sheet = contact_sheet(frames, [f"0:0{k}\nframe" for k in range(5)], columns=3)
    assert sheet.size[0] > 3 * 64
    assert sheet.size[1] > 2 * 64
    np.testing.assert_array_equal(np.asarray(sheet)[8:72, 8:72], frames[0])
