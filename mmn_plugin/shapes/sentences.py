"""Sentences about scenes, and their vocabulary."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .scene import Event

# Every name has synonyms; all of them occur in training.
COLOR_WORDS = {
    'red': ('red', 'crimson', 'scarlet'),
    'yellow': ('yellow', 'golden', 'amber'),
    'green': ('green', 'emerald', 'jade'),
    'cyan': ('cyan', 'turquoise', 'aqua'),
    'blue': ('blue', 'azure', 'cobalt'),
    'purple': ('purple', 'violet', 'magenta'),
}

SHAPE_WORDS = {
    'circle': ('circle', 'disc', 'ball'),
    'square': ('square', 'box', 'block'),
    'triangle': ('triangle', 'pyramid', 'wedge'),
    'diamond': ('diamond', 'rhombus', 'lozenge'),
    'cross': ('cross', 'plus', 'crucifix'),
}

# Finite, -ing form, infinitive.
MOTION_VERBS = (
    ('moves', 'moving', 'move'),
    ('goes', 'going', 'go'),
    ('slides', 'sliding', 'slide'),
    ('drifts', 'drifting', 'drift'),
    ('travels', 'travelling', 'travel'),
    ('glides', 'gliding', 'glide'),
)

DIRECTION_PHRASES = {
    'left': ('left', 'to the left', 'leftwards', 'towards the left side'),
    'right': ('right', 'to the right', 'rightwards', 'towards the right side'),
    'up': ('up', 'to the top', 'upwards', 'towards the upper edge'),
    'down': ('down', 'to the bottom', 'downwards', 'towards the lower edge'),
    'loop': ('round and round', 'in loops', 'around in rings'),
}

OTHER_PHRASES = {
    'grow': (
        ('grows', 'growing', 'grow'),
        ('expands', 'expanding', 'expand'),
        ('gets bigger', 'getting bigger', 'get bigger'),
        ('becomes larger', 'becoming larger', 'become larger'),
        ('increases in size', 'increasing in size', 'increase in size'),
    ),
    'shrink': (
        ('shrinks', 'shrinking', 'shrink'),
        ('contracts', 'contracting', 'contract'),
        ('gets smaller', 'getting smaller', 'get smaller'),
        ('becomes tinier', 'becoming tinier', 'become tinier'),
        ('decreases in size', 'decreasing in size', 'decrease in size'),
    ),
    'blink': (
        ('blinks', 'blinking', 'blink'),
        ('flashes', 'flashing', 'flash'),
        ('flickers', 'flickering', 'flicker'),
        ('goes on and off', 'going on and off', 'go on and off'),
    ),
    'loop': (('orbits', 'orbiting', 'orbit'), ('circulates', 'circulating', 'circulate')),
}

NOUN_PHRASES = (
    'the {color} {shape}',
    'a {color} {shape}',
    'the {shape} in {color}',
    'a {shape} that is {color}',
    'the {shape} which looks {color}',
)

# {does}, {doing}, {do}: the action; {thing}: the noun phrase.
SENTENCES = (
    '{thing} {does}',
    '{thing} is {doing}',
    'there is {thing} {doing}',
    'we see {thing} {do}',
    'now {thing} {does}',
    'watch {thing} {do}',
    '{doing} is {thing}',
    '{thing} starts {doing}',
    'what we see {doing} is {thing}',
    'it {does} , {thing}',
)

# A direction may also come first: "to the left slides the red ball".
INVERTED_SENTENCE = '{direction} {verb} {thing}'

# Words inside action phrases that tell nothing about the action.
FILLERS = frozenset(('to', 'the', 'towards', 'in', 'and'))


def word_classes() -> dict[str, str]:
    """What each word tells.

    Returns:
        dict[str, str]: Word -> ``'color'``, ``'shape'`` or ``'action'``; words that tell nothing
        are absent.
    """
    actions = [*MOTION_VERBS, *DIRECTION_PHRASES.values()]
    actions += [forms for phrases in OTHER_PHRASES.values() for forms in phrases]
    groups = {'color': COLOR_WORDS.values(), 'shape': SHAPE_WORDS.values(), 'action': actions}
    return {
        word: name
        for name, phrase_lists in groups.items()
        for phrases in phrase_lists
        for phrase in phrases
        for word in phrase.split()
        if word not in FILLERS
    }


# What a motion is when it is played backwards.
OPPOSITES = dict(left='right', right='left', up='down', down='up', grow='shrink', shrink='grow')

# How often a direction, where there is one, comes first.
INVERTED_SHARE = 0.15


def say(rng, event: 'Event') -> str:
    """Draw a sentence that says what an event shows, with synonyms and in varied word order.

    Args:
        rng (np.random.Generator): Source of randomness.
        event (Event): What to describe.

    Returns:
        str: Lower case, words apart by single spaces, no full stop.
    """
    noun = _draw(rng, NOUN_PHRASES)
    color, shape = _draw(rng, COLOR_WORDS[event.color]), _draw(rng, SHAPE_WORDS[event.shape])
    thing = noun.format(color=color, shape=shape).replace('a a', 'an a')
    phrases = OTHER_PHRASES.get(event.action, ())
    directions = DIRECTION_PHRASES.get(event.action, ())
    if rng.integers(len(phrases) + len(directions)) < len(phrases):
        forms = _draw(rng, phrases)
    else:
        verb, direction = _draw(rng, MOTION_VERBS), _draw(rng, directions)
        if rng.random() < INVERTED_SHARE:
            return INVERTED_SENTENCE.format(direction=direction, verb=verb[0], thing=thing)
        forms = tuple(f'{form} {direction}' for form in verb)
    does, doing, do = forms
    return _draw(rng, SENTENCES).format(thing=thing, does=does, doing=doing, do=do)


def say_opposites(seed: int, event: 'Event') -> tuple[str, str]:
    """Draw a sentence of an event, and the same one with the opposite motion.

    Args:
        seed (int): The same one draws the same sentences.
        event (Event): Its action is in ``OPPOSITES``.

    Returns:
        tuple[str, str]: What it shows, and what it does not.
    """
    other = replace(event, action=OPPOSITES[event.action])
    return tuple(say(np.random.default_rng(seed), item) for item in (event, other))


def _draw(rng, choices):
    return choices[rng.integers(len(choices))]


SPECIAL_TOKENS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')

CHARACTERS = 'abcdefghijklmnopqrstuvwxyz0123456789'


def build_vocabulary(sentences: Iterable[str]) -> list[str]:
    """List the tokens that a BERT-like tokenizer needs for these sentences.

    Args:
        sentences (Iterable[str]): Of the training split.

    Returns:
        list[str]: Special tokens, the words by falling frequency (then alphabetically), and single
        characters, alone and as continuations (``##x``), so that a new word falls apart into
        characters instead of becoming [UNK]. Line i of ``vocab.txt`` is token i.
    """
    counts = Counter(
        word for sentence in sentences for word in re.findall(r'\w+|[^\w\s]', sentence.lower())
    )
    words = sorted(counts, key=lambda word: (-counts[word], word))
    pieces = [*CHARACTERS, *(f'##{character}' for character in CHARACTERS)]
    return list(dict.fromkeys([*SPECIAL_TOKENS, *words, *pieces]))


# Stands for a sentence of which nothing is left; the tokenizer refuses empty ones.
BLANK_SENTENCE = 'something'

WORD_CLASSES = ('color', 'shape', 'action')

_CLASS_OF = word_classes()


def mask_sentence(sentence: str, keep: Collection[str]) -> str:
    """Keep only the words that tell certain attributes, in their order.

    Args:
        sentence (str): A sentence of the grammar.
        keep (Collection[str]): Some of ``'color'``, ``'shape'`` and ``'action'``.

    Returns:
        str: The remaining words, or ``BLANK_SENTENCE`` if none remain.
    """
    words = [word for word in sentence.split() if _CLASS_OF.get(word) in keep]
    return ' '.join(words) or BLANK_SENTENCE
