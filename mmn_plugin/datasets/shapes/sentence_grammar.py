"""Sentences for events."""

from . import lexicon
from .event import Event


class SentenceGrammar:
    """Says what an event shows, with synonyms and in varied word order."""

    # How often a direction, where there is one, comes first.
    INVERTED_SHARE = 0.15

    def sentence(self, rng, event: Event) -> str:
        """Draw a sentence for an event.

        Args:
            rng (np.random.Generator): Source of randomness.
            event (Event): What to describe.

        Returns:
            str: Lower case, words apart by single spaces, no full stop.
        """
        thing = (
            _draw(rng, lexicon.NOUN_PHRASES)
            .format(
                colour=_draw(rng, lexicon.COLOUR_WORDS[event.colour]),
                shape=_draw(rng, lexicon.SHAPE_WORDS[event.shape]),
            )
            .replace('a a', 'an a')
        )
        phrases = lexicon.OTHER_PHRASES.get(event.action, ())
        directions = lexicon.DIRECTION_PHRASES.get(event.action, ())
        if rng.integers(len(phrases) + len(directions)) < len(phrases):
            forms = _draw(rng, phrases)
        else:
            verb, direction = _draw(rng, lexicon.MOTION_VERBS), _draw(rng, directions)
            if rng.random() < self.INVERTED_SHARE:
                return lexicon.INVERTED_SENTENCE.format(
                    direction=direction, verb=verb[0], thing=thing
                )
            forms = tuple(f'{form} {direction}' for form in verb)
        does, doing, do = forms
        return _draw(rng, lexicon.SENTENCES).format(thing=thing, does=does, doing=doing, do=do)


def _draw(rng, choices):
    return choices[rng.integers(len(choices))]
