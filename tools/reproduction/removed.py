"""Tables of what was measured and then removed: the code is that of a result's commit."""

from .tables import spreads, table, title

LOSSES = {
    'bank': 'what the bank holds',
    'fresh': 'its videos, embedded again',
    'shift undone': 'what it holds, its mean moved to where it is now',
    'batch': "the batch's own videos",
}
KINDS = ('moments', 'sentences')


def render_negatives_drift(result: dict) -> str:
    """Cosines, shares and losses of a full queue: at its first, some, and the last step."""
    probes = {label: found['probes'] for label, found in result['runs'].items()}
    ages = max((probe['ages']['age'] for own in probes.values() for probe in own), key=len)
    shown = []
    for label, own in probes.items():
        full = [probe for probe in own if probe['ages']['age'] == ages]
        places = (0,) if label == 'weights frozen' else (0, len(full) // 3, -1)
        shown += [(label, full[place]) for place in places]
    rows = []
    for label, probe in shown:
        found = probe['ages']
        cosines = [
            ' / '.join(f'{found[f"{kind} cosine"][place]:.2f}' for place in (0, -1))
            for kind in KINDS
        ]
        share = ' / '.join(f'{100 * found[f"{kind} common"][-1]:.0f}' for kind in KINDS)
        losses = [f'{probe["losses"][name]:.2f}' for name in LOSSES]
        side = f'{probe["similarity"]["fresh"]:.2f}'
        rows.append([label, probe['step'], *cosines, share, side, *losses])
    about = f'cosine, stored and embedded again, age {ages[0]} / {ages[-1]} steps'
    header = ['training', 'step', f'moments: {about}', f'sentences: {about}']
    header += [f'common part of the change, age {ages[-1]}, moments / sentences, %']
    header += ["sentences' mean cosine with moments of its videos, embedded again"]
    header += [f'loss against {words}' for words in LOSSES.values()]
    return table(header, rows)


def render_negatives(result: dict) -> str:
    """Figures on Shapes by source of the negatives, a queue among them."""
    names = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU', 'unseen/R1@0.5')
    rows = [[label, *spreads(seeds, names)] for label, seeds in result['per_seed'].items()]
    return table(['negatives from', *map(title, names)], rows)
