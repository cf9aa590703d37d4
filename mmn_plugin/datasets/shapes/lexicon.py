"""The words of the grammar, by what they tell."""

# Every name has synonyms; all of them occur in training.
COLOUR_WORDS = {
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
    'the {colour} {shape}',
    'a {colour} {shape}',
    'the {shape} in {colour}',
    'a {shape} that is {colour}',
    'the {shape} which looks {colour}',
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
        dict[str, str]: Word -> ``'colour'``, ``'shape'`` or ``'action'``; words that tell nothing
        are absent.
    """
    actions = [*MOTION_VERBS, *DIRECTION_PHRASES.values()]
    actions += [forms for phrases in OTHER_PHRASES.values() for forms in phrases]
    groups = {'colour': COLOUR_WORDS.values(), 'shape': SHAPE_WORDS.values(), 'action': actions}
    return {
        word: name
        for name, phrase_lists in groups.items()
        for phrases in phrase_lists
        for phrase in phrases
        for word in phrase.split()
        if word not in FILLERS
    }
