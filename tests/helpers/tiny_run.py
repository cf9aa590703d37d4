"""Runs of a model of one weight, with validation scores and ends as a test wants them."""

import itertools
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import mmn_plugin  # noqa: F401  registers loop and hooks
from mmn_plugin.engine import SafeCheckpointHook

ITERATIONS = 3  # of an epoch
_count = itertools.count()


class Killed(BaseException):
    """The process is gone; nobody catches this."""


class Line(BaseModel):
    """Learns to give 1; dropout makes it depend on the random state."""

    def __init__(self):
        super().__init__()
        self.line, self.dropout = nn.Linear(2, 1), nn.Dropout(0.5)

    def forward(self, inputs, mode='tensor'):
        values = self.line(self.dropout(torch.stack(inputs)))
        return dict(loss=(values - 1).square().mean()) if mode == 'loss' else [values]


class Score(BaseMetric):
    """Reports what it is told to."""

    score = 0.0

    def process(self, data_batch, data_samples):
        self.results.append(None)

    def compute_metrics(self, results):
        return dict(score=self.score)


class ScriptHook(Hook):
    """Gives each epoch its score and duration, notes what happens, and ends the run."""

    priority = 'VERY_HIGH'

    def __init__(self, scores, kill, minutes):
        self.scores, self.kill, self.minutes = scores, kill, minutes
        self.events, self.rates = [], []

    def before_train(self, runner):
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook):
                hook.clock = lambda: 60.0 * self.minutes * runner.iter / ITERATIONS

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._end(f'iteration {runner.iter + 1}')

    def before_train_epoch(self, runner):
        self.events.append(f'epoch {runner.epoch + 1}')
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    def before_val_epoch(self, runner):
        self.events.append(f'validation {runner.epoch}')
        self._end(f'validation {runner.epoch}')
        runner.val_evaluator.metrics[0].score = self.scores[runner.epoch - 1]

    def before_save_checkpoint(self, runner, checkpoint):
        self._end('save')

    def _end(self, where):
        if self.kill == where:
            raise Killed


class TermHook(Hook):
    """Sends signals in an iteration."""

    def __init__(self, iteration, *signals):
        self.iteration, self.signals = iteration, signals or (signal.SIGTERM,)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            for number in self.signals:
                os.kill(os.getpid(), number)


def tiny_run(
    folder: Path,
    checkpoint: dict,
    epochs: int = 4,
    scores=(1.0, 2.0, 3.0, 4.0),
    kill: str | None = None,
    minutes: float = 0.0,
    resume=False,
    hooks=(),
    schedule=(),
    lr: float = 0.1,
    **default_hooks,
) -> SimpleNamespace:
    """Train in a work folder.

    Args:
        folder (Path): Work folder.
        checkpoint (dict): The hook that saves.
        epochs (int): Epochs, of `ITERATIONS` iterations each. Defaults to 4.
        scores (tuple[float]): Score of each epoch's validation.
        kill (str, optional): Where the run ends: ``'iteration N'`` (before it), ``'validation N'``
            (of epoch N, before it), ``'save'``. Defaults to None: at its end.
        minutes (float): How long an epoch lasts, by the clock of the hook. Defaults to 0.
        resume (bool | Path): Whether to resume, and from what. Defaults to False.
        hooks (tuple[Hook]): More hooks.
        schedule (tuple[dict]): Schedules of the learning rate.
        lr (float): Learning rate. Defaults to 0.1.
        **default_hooks: Settings of default hooks.

    Returns:
        SimpleNamespace: ``events``, such as ``'epoch 2'`` and ``'validation 2'``; ``rates``,
        learning rate of each epoch; ``runner``; ``code`` of an exit, and ``killed``.
    """
    script = ScriptHook(scores, kill, minutes)
    loader = dict(
        batch_size=2,
        num_workers=0,
        collate_fn=dict(type='pseudo_collate'),
        dataset=[dict(inputs=torch.tensor([float(i), 1.0])) for i in range(2 * ITERATIONS)],
    )
    settings = dict(
        train_cfg=dict(type='ResumableTrainLoop', max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=lr)),
    )
    torch.manual_seed(0)
    runner = Runner(
        Line(),
        str(folder),
        default_scope='mmaction',
        experiment_name=f'tiny_{next(_count)}',
        train_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=True)),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=settings['train_cfg'],
        val_cfg=dict(),
        val_evaluator=[Score()],
        param_scheduler=list(schedule) or None,
        optim_wrapper=settings['optim_wrapper'],
        randomness=dict(seed=0),
        cfg=Config(settings),
        default_hooks=dict(checkpoint=checkpoint, **default_hooks),
        custom_hooks=[script, *hooks],
        load_from=str(resume) if isinstance(resume, Path) else None,
        resume=bool(resume),
        log_level='WARNING',
    )
    result = SimpleNamespace(
        events=script.events, rates=script.rates, runner=runner, code=0, killed=False
    )
    try:
        runner.train()
    except Killed:
        result.killed = True
    except SystemExit as end:
        result.code = end.code
    return result


def load(path: Path) -> dict:
    """What a file of a run holds."""
    return torch.load(path, map_location='cpu', weights_only=True)
