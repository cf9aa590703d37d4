"""Which sentences to encode together."""

from collections.abc import Sequence


def length_buckets(lengths: Sequence[int], overhead: int) -> list[list[int]]:
    """Batches of sentences that together cost least, where each is padded to its longest.

    A batch of n sentences costs ``n * longest + overhead``. Only the lengths that occur can end a
    batch, so the cheapest split is found exactly, shortest sentences first.

    Args:
        lengths (Sequence[int]): Tokens of each of S sentences.
        overhead (int): Cost of one more batch, in tokens.

    Returns:
        list[list[int]]: Places of the sentences, each in one batch; rising lengths over batches,
        rising places of equal lengths.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    # Ends of the runs of equal length: after so many sentences a batch may end.
    ends = [
        i + 1
        for i, row in enumerate(order)
        if i + 1 == len(order) or lengths[order[i + 1]] != lengths[row]
    ]
    starts, costs, first = [0, *ends[:-1]], [0], []
    for last, end in enumerate(ends):
        longest = lengths[order[end - 1]]
        options = [costs[k] + (end - starts[k]) * longest + overhead for k in range(last + 1)]
        best = min(range(last + 1), key=options.__getitem__)
        costs.append(options[best])
        first.append(best)
    buckets, last = [], len(ends) - 1
    while last >= 0:
        buckets.append(order[starts[first[last]] : ends[last]])
        last = first[last] - 1
    return buckets[::-1]
