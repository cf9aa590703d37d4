"""What a benchmark is told."""

from dataclasses import dataclass

from mmengine.config import Config

from mmn_plugin.datasets import grounds_tubes

from .build_model import made_up_words, offline_config
from .encoder_work import EncoderWork
from .variant import Variant
from .workload import Workload


@dataclass
class BenchmarkSettings:
    """What all tasks share.

    Attributes:
        cfg (Config): The config, as a user runs it.
        variants (list[Variant]): The ways to compute; the first is what others are compared with.
        batch_size (int): Videos of a batch.
        device (str): Defaults to ``'cpu'``.
        ann_file (str | None): Annotation file to count sentences in; None means the config's.
        frozen (bool): Keep the language model frozen in training. Defaults to False.
        workers (int): Of the data loader. Defaults to 4.
        step_seconds (float | None): Time of a training step that the data loader has to keep up
            with; None means to measure it.
        feature_rows (int | None): Rows of a made-up video's features; None means 4 R.
        seed (int): Defaults to 0.
    """

    cfg: Config
    variants: list[Variant]
    batch_size: int
    device: str = 'cpu'
    ann_file: str | None = None
    frozen: bool = False
    workers: int = 4
    step_seconds: float | None = None
    feature_rows: int | None = None
    seed: int = 0

    def __post_init__(self):
        if grounds_tubes(self.cfg):
            raise ValueError(
                f'{self.cfg.filename or "the config"} is of tubes; models of moments '
                "are measured here. A training's log tells `time` and `data_time` of "
                'its steps'
            )
        self.cfg = offline_config(self.cfg)

    def workload(self, split: str) -> Workload:
        """Batches of a split's shapes."""
        vocabulary = self.cfg.model.data_preprocessor.tokenizer.vocab
        words = made_up_words(len(vocabulary))
        return Workload(self.cfg, split, words, self.ann_file, self.seed)

    def encoder_work(self, grid) -> EncoderWork:
        """Work of the config's moment encoder."""
        neck = self.cfg.model.neck
        return EncoderWork.of(grid, neck.channels, neck.kernel_size, neck.num_layers)
