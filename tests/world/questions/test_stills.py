"""Questions about stills: every answer is found again from the screen log."""

import pytest

from hourllava.world.generate import generate_script
from hourllava.world.questions.stills import still_at, still_exchange, stills_exchange
from hourllava.world.rng import Draws
from world.questions.stills_solver import Seen, solve


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_answer_follows_from_the_screen_log(split):
    templates = 0
    for seed in range(60):
        script = generate_script(seed, 30, split=split)
        stills = [still for second in range(30) if (still := still_at(script, second))]
        draws = Draws("test", seed)
        for _ in range(12):
            chosen = sorted(draws.sample(stills, draws.between(1, 4)), key=lambda still: still.time_seconds)
            seen = [Seen(script, still.time_seconds) for still in chosen]
            assert not any(one.moves for one in seen)
            several = len(chosen) > 1
            exchange = stills_exchange(chosen, split, draws) if several else still_exchange(chosen[0], split, draws)
            assert solve(seen, exchange.question, split, script) == {exchange.answer}, exchange
            assert not exchange.options or exchange.options.count(exchange.answer) == 1
            assert len(set(exchange.options)) == len(exchange.options)
            templates += 1
    assert templates == 720
