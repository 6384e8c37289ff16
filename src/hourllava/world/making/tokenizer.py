"""The nano model's tokenizer: byte-level BPE of at most 2,047 tokens, trained on MarathonWorld's text.

    hourllava world tokenizer --out src/hourllava/model/nano

Each word of the world is one token, so an object ("red star") has two, and unseen combinations consist of seen tokens.
Each digit is one token. Each fixed sentence of the prompt is one token; otherwise they would be more than half of a
short question. Other text is spelled in bytes. A question about a one-minute video, with prompt and answer, has 50
tokens on average, and 83 with four options; in bytes it would have 292 and 440.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hourllava.choices import CHOICE_INSTRUCTION, choice_prompt
from hourllava.model.config import HourLlavaConfig
from hourllava.model.prompt import END, START, SYSTEM_PROMPT, video_sentence
from hourllava.world.captions import generate_captions
from hourllava.world.generate import generate_script
from hourllava.world.questions import generate_questions
from hourllava.world.questions.stills import (
    copy_exchange,
    option_exchange,
    still_at,
    still_exchange,
    stills_exchange,
    text_exchange,
)
from hourllava.world.rng import Draws
from hourllava.world.script import Script

DURATIONS_SECONDS = (8, 30, 60, 240, 900, 3600, 7200)
NUM_SCRIPTS = 210
PAD = "<|endoftext|>"


def fixed_texts() -> list[str]:
    """The parts of the prompt that are always the same; numbers separate them."""
    sentence = video_sentence(0.0, 1)
    before, _, rest = sentence.partition("0.00")
    between, _, after = rest.partition("1")
    return [SYSTEM_PROMPT, before, between, after, CHOICE_INSTRUCTION]


def world_texts(num_scripts: int = NUM_SCRIPTS) -> Iterator[str]:
    """Questions, answers and captions of the train split: about videos of all lengths, and about pictures."""
    for seed in range(num_scripts):
        script = generate_script(seed, DURATIONS_SECONDS[seed % len(DURATIONS_SECONDS)])
        yield from _picture_texts(script, Draws("tokenizer", seed))
        for question in generate_questions(script):
            yield "system\nuser\nassistant\n"
            yield choice_prompt(question.question, question.options) if question.options else question.question
            yield question.answer
        captions = generate_captions(script)
        for clip in captions.clips[:5]:
            yield from (clip.temporality, clip.spatiality, clip.object, clip.action, clip.scene, clip.summary)
        for event in captions.events:
            yield from (event.title, event.caption)
        yield captions.overall


def _picture_texts(script: Script, draws: Draws) -> Iterator[str]:
    stills = [still for second in range(8) if (still := still_at(script, second))]
    for _ in range(40):
        exchanges = (
            still_exchange(draws.pick(stills), script.split, draws),
            stills_exchange(stills[:3], script.split, draws),
            option_exchange(script.split, draws),
            text_exchange("", copy_exchange("", script.split, draws), script.split, draws),
        )
        for exchange in exchanges:
            yield exchange.question
            yield exchange.answer


def train_tokenizer(texts: Iterable[str], vocabulary_tokens: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer with at most `vocabulary_tokens`; the same texts give the same tokenizer."""
    fixed = fixed_texts()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_tokens - len(fixed),
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in fixed])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def write_nano_tokenizer(out: Path) -> PreTrainedTokenizerFast:
    """Train the nano preset's tokenizer and save it."""
    config = HourLlavaConfig.preset("hourllava-nano")
    tokenizer = train_tokenizer(world_texts(), config.visual_token_id)  # its ids end below that of the visual tokens
    tokenizer.save_pretrained(out)
    return tokenizer
