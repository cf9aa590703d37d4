"""One kind of fault in a dataset."""

from dataclasses import dataclass, field


@dataclass
class Finding:
    """A kind of fault in one split, with how often it occurs and the first places.

    Attributes:
        level (str): ``'error'`` (training or evaluation would be wrong or end), ``'warning'`` (the
            dataset's own rules mend it) or ``'info'``.
        split (str): Split or splits it was found in.
        what (str): The fault in a few words.
        count (int): How often.
        examples (list[str]): The first places: file, video, sentence.
    """

    level: str
    split: str
    what: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
