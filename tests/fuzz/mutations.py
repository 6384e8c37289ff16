"""Seeded damage: equal bytes and an equal generator give equal mutants."""

import copy
import json
import random
from typing import Any

# Values that a program may not expect in place of a number, a name or a list.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**12, 10**40, 0.5, -0.0, 1e308, 1e-320),
    *(float("nan"), float("inf"), "", " ", "0", "nan", "\0", "\ud83d", "é" * 50, "a" * 5000, "../../etc/passwd"),
    *("/dev/null", "%d", "{}", "[]", [], [[]], [None], {}, {"": None}, {"a": {"a": {"a": []}}}, [0] * 1000),
)
ODD_INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damage(content: bytes, rng: random.Random) -> bytes:
    """One to six kinds of damage: flipped bits, random bytes, a part cut out, doubled, moved or zeroed, a lost end."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not data:
            break
        start = rng.randrange(len(data))
        length = min(len(data) - start, rng.choice((1, 2, 4, 16, 256, 4096)))
        part = data[start : start + length]
        match rng.randrange(9):
            case 0:
                data[start] ^= 1 << rng.randrange(8)
            case 1:
                data[start : start + length] = rng.randbytes(length)
            case 2:
                del data[start : start + length]
            case 3:
                data[start:start] = part
            case 4:
                data[start : start + length] = bytes(length)
            case 5:
                del data[start:]
            case 6:
                target = rng.randrange(len(data))
                data[target : target + length] = part
            case 7:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(ODD_INTEGERS) & ((1 << 8 * width) - 1)
                data[start : start + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 8:
                data[:] = data[start:] + data[:start]
    return bytes(data)


def damage_tree(tree: Any, rng: random.Random) -> Any:
    """A copy of plain data with one to three values, keys or items that are odd, missing, doubled or exchanged."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return rng.choice(ODD_VALUES)
        holder, key = rng.choice(places)
        match rng.randrange(5):
            case 0 | 1:
                holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))
            case 2:
                del holder[key]
            case 3:
                other, name = rng.choice(places)
                value = copy.deepcopy(other[name]) if _has(other, name) else None
                holder[key] = value
            case 4:
                if isinstance(holder, dict):
                    holder[f"{key}x"] = holder.pop(key)
                else:
                    holder.insert(key, copy.deepcopy(holder[key]))
    return tree


def damage_json(content: bytes, rng: random.Random) -> bytes:
    """Half of the mutants have odd values in valid JSON, the other half have damaged bytes."""
    if rng.random() < 0.5:
        return damage(content, rng)
    # JSON allows half a surrogate pair, written as \ud83d.
    return json.dumps(damage_tree(json.loads(content), rng)).encode()


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)
