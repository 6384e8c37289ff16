"""The nano tokenizer: decoding gives back any text, and objects have two tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hourllava.model.config import HourLlavaConfig
from hourllava.model.nano import nano_tokenizer
from hourllava.model.prompt import END, START, VISUAL, Turn, tokenize_turns, video_sentence
from hourllava.world.making.tokenizer import train_tokenizer, world_texts, write_nano_tokenizer
from hourllava.world.vocabulary import COLOURS, SHAPES, split_pairs

TOKENIZER = nano_tokenizer()


@given(st.text())
def test_any_text_comes_back(text):
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def check_ids_and_objects(tokenizer):
    assert len(tokenizer) <= HourLlavaConfig.preset("hourllava-nano").visual_token_id
    assert tokenizer.eos_token == END
    assert START in tokenizer.get_vocab()
    assert split_pairs("test")
    for colour, shape in split_pairs("test"):
        assert tokenizer.tokenize(f" the {colour} {shape}")[1:] == [f"Ġ{colour}", f"Ġ{shape}"]
    assert len({tokenizer.tokenize(word)[0] for word in (*COLOURS, *SHAPES)}) == len(COLOURS) + len(SHAPES)


def test_ids_lie_below_that_of_visual_tokens_and_unseen_combinations_are_made_of_seen_tokens():
    check_ids_and_objects(TOKENIZER)


def test_a_short_question_is_short():
    text = f"\n{video_sentence(3600, 3600)}\nWhich colour had the letter K?"
    prompt = tokenize_turns([Turn("user", (VISUAL, text)), Turn("assistant", ("red",))], TOKENIZER, 2047)
    assert len(prompt.input_ids) == 41
    assert [TOKENIZER.decode([label]) for label in prompt.labels if label >= 0] == ["red", END]


def test_the_same_texts_give_the_same_tokenizer():
    texts = list(world_texts(7))
    made = [train_tokenizer(texts, 700).backend_tokenizer.to_str() for _ in range(2)]
    assert made[0] == made[1]
    assert train_tokenizer(texts, 700).vocab_size <= 700


@pytest.mark.slow
def test_the_command_makes_another_of_its_kind_from_the_texts_of_today(tmp_path):
    made = write_nano_tokenizer(tmp_path)
    check_ids_and_objects(made)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == made.get_vocab()
