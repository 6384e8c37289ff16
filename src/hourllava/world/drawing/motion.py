"""Actions as positions, scales and angles at a moment.

The periods suit samples at whole seconds: jumps and blinks alternate every second, a sway takes four seconds, a turn
eight.
"""

import math
from dataclasses import dataclass

from hourllava.world.script import Action
from hourllava.world.vocabulary import PLACES

DIAMETERS = {"small": 0.21, "large": 0.33}  # shares of the frame, white rim included
EDGES = {"left": (-0.25, None), "right": (1.25, None), "up": (None, -0.25), "down": (None, 1.25)}
REACH = 0.16  # distance of jumps, sways and splits
Point = tuple[float, float]
"""(x, y) as shares of the frame."""


@dataclass(frozen=True)
class Pose:
    """One drawn copy of an object: centre as shares of the frame, scale of its diameter, clockwise angle."""

    name: str
    x: float
    y: float
    scale: float = 1.0
    angle_degrees: float = 0.0


def place_centre(place: str) -> Point:
    """The centre (x, y) of one of the nine places, as shares of the frame."""
    row, column = divmod(PLACES.index(place), 3)
    return (2 * column + 1) / 6, (2 * row + 1) / 6


def _towards(a: Point, b: Point, share: float) -> Point:
    share = min(1.0, max(0.0, share))
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _there_and_back(u: float) -> float:
    """0 -> 1 in the first quarter of the action, 1 -> 0 in the last."""
    return min(1.0, 4 * u, 4 * (1 - u))


def moving(action: Action, places: dict[str, str], time_seconds: float) -> list[Pose]:
    """The poses of the objects that take part in `action`, back to front; hidden objects have none.

    `places` says where the objects rest before the action.
    """
    t = time_seconds - action.start_seconds
    u = t / (action.end_seconds - action.start_seconds)
    if action.partner is None:
        return _alone(action, place_centre(places[action.actor]), t, u)
    return _with_partner(action, place_centre(places[action.actor]), place_centre(places[action.partner]), u)


def _alone(action: Action, home: Point, t: float, u: float) -> list[Pose]:
    """The poses of the only actor, `t` seconds into the action, which is the share `u` of it."""
    me, swell = action.actor, math.sin(math.pi * u)
    match action.verb:
        case "slide":
            assert action.end_place is not None
            return [Pose(me, *_towards(home, place_centre(action.end_place), u * 1.2 - 0.1))]
        case "leave":
            assert action.end_place is not None
            assert action.direction is not None
            back = place_centre(action.end_place)
            x, y = EDGES[action.direction]
            exit_point = (home[0] if x is None else x, home[1] if y is None else y)
            entry_point = (back[0] if x is None else x, back[1] if y is None else y)
            way = _towards(home, exit_point, u * 3) if u < 0.5 else _towards(entry_point, back, u * 3 - 2)
            return [Pose(me, *way)]
        case "jump":
            return [Pose(me, home[0], home[1] - REACH * abs(math.sin(math.pi * t / 2)))]
        case "sway":
            return [Pose(me, home[0] + REACH * math.sin(math.pi * t / 2), home[1])]
        case "spin":
            return [Pose(me, *home, angle_degrees=45 * t)]
        case "grow":
            return [Pose(me, *home, scale=1 + 0.8 * swell)]
        case "shrink":
            return [Pose(me, *home, scale=1 - 0.6 * swell)]
        case "blink":
            return [Pose(me, *home)] if int(t) % 2 == 0 else []
        case "split":
            scale = 1 - 0.4 * swell
            return [Pose(me, home[0] + side * REACH * swell, home[1], scale) for side in (-1, 1)]
    raise AssertionError(action.verb)


def _with_partner(action: Action, home: Point, there: Point, u: float) -> list[Pose]:
    """The poses of the actor, whose place is `home`, and the partner, whose place is `there`, at the share `u`."""
    me, other, swell = action.actor, action.partner, math.sin(math.pi * u)
    assert other is not None
    match action.verb:
        case "swap":
            bow = (
                0.2 * swell * (there[1] - home[1]),
                -0.2 * swell * (there[0] - home[0]),
            )  # apart, so that they do not touch
            mine, its = _towards(home, there, u * 1.2 - 0.1), _towards(there, home, u * 1.2 - 0.1)
            return [Pose(other, its[0] - bow[0], its[1] - bow[1]), Pose(me, mine[0] + bow[0], mine[1] + bow[1])]
        case "orbit":
            approach, radius = _there_and_back(u), 0.26
            turn = math.atan2(home[1] - there[1], home[0] - there[0]) + 2 * math.pi * min(1, max(0, 2 * u - 0.5))
            ring_x, ring_y = there[0] + radius * math.cos(turn), there[1] + radius * math.sin(turn)
            # At the edge of the frame the ring is flattened, not cut.
            ring = (min(0.92, max(0.08, ring_x)), min(0.92, max(0.08, ring_y)))
            return [Pose(other, *there), Pose(me, *_towards(home, ring, approach))]
        case "cover":
            approach = _there_and_back(u)
            hidden = approach == 1
            return [*([] if hidden else [Pose(other, *there)]), Pose(me, *_towards(home, there, approach))]
        case "bump":
            reach = 1 - 0.22 / math.dist(home, there)
            hop = 0.14 * abs(math.sin(2 * math.pi * (2 * u - 0.5))) if 0.25 < u < 0.75 else 0.0
            return [Pose(other, there[0], there[1] - hop), Pose(me, *_towards(home, there, reach * _there_and_back(u)))]
    raise AssertionError(action.verb)
