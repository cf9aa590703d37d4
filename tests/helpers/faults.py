"""Faults at chosen moments, for runs that import this module with their config.

The environment variable MMN_FAULT holds Python literals: a dict of what to do, where and when.
MMN_ENTROPY seeds what a run without a configured seed draws its seed from.
"""

import ast
import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from mmaction.registry import HOOKS, TRANSFORMS
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmn_plugin.engine import SafeCheckpointHook

if 'MMN_ENTROPY' in os.environ:
    np.random.seed(int(os.environ['MMN_ENTROPY']))


@HOOKS.register_module(force=True)
class FaultHook(Hook):
    """Does what MMN_FAULT says; keeps a record of the videos of every iteration."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.drawn = 0
        self.fault = ast.literal_eval(os.environ.get('MMN_FAULT', '{}'))

    def before_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        forward = model.head.loss

        def loss(*args, **kwargs):
            losses = forward(*args, **kwargs)
            if self._now(runner, 'nan'):
                losses['loss_iou'] = losses['loss_iou'] * float('nan')
            if self._now(runner, 'gradient'):  # of a finite loss, NaN
                losses['loss_iou'] = losses['loss_iou'] + (losses['loss_iou'] * 0).sqrt()
            return losses

        model.head.loss = loss
        if 'interrupt' in self.fault:  # also where the tests run in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if 'clock' in self.fault:  # seconds that an iteration takes, by each rank's clock
            for hook in runner.hooks:
                if isinstance(hook, SafeCheckpointHook):
                    hook.clock = lambda: runner.iter * self.fault['clock'][get_rank()]

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        names = ' '.join(s.video_id for s in data_batch['data_samples'])
        noise = ' '.join(f'{float(x.sum()):.6f}' for x in data_batch['inputs'])
        with open(Path(runner.work_dir) / f'videos_{get_rank()}.txt', 'a') as file:
            file.write(f'{runner.epoch} {batch_idx}: {names} {noise}\n')
        if self._now(runner, 'term'):
            os.kill(os.getpid(), signal.SIGTERM)
        if self._now(runner, 'interrupt'):
            os.kill(os.getpid(), signal.SIGINT)
        if self._now(runner, 'group'):
            os.killpg(os.getpgid(0), signal.SIGTERM)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self._now(runner, 'kill'):
            print('the fault comes now', flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self._now(runner, 'raise'):
            print('the fault comes now', flush=True)
            raise RuntimeError('a fault of the test')
        if self._now(runner, 'late_term'):  # after the ranks have agreed
            os.kill(os.getpid(), signal.SIGTERM)

    def after_train_epoch(self, runner):
        if 'dump' in self.fault:  # what each rank has in memory, which a checkpoint does not
            model = getattr(runner.model, 'module', runner.model)
            name = f'rank{get_rank()}_epoch{runner.epoch + 1}.pth'
            torch.save(model.state_dict(), Path(runner.work_dir) / name)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        # draws random numbers, and not the same many in a new process
        self.drawn += 1
        torch.rand(self.drawn), np.random.rand(self.drawn), random.random()
        if self._now(runner, 'kill_val'):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._now(runner, 'term_val'):
            os.kill(os.getpid(), signal.SIGTERM)

    def _now(self, runner, what):
        """Whether this fault is due: (iteration,) on all ranks, (iteration, rank) on one."""
        when = self.fault.get(what)
        return (
            when is not None
            and runner.iter == when[0]
            and get_rank() in when[1:2] + ((get_rank(),) if len(when) == 1 else ())
        )


def videos(folder, rank):
    """Line of every iteration that counts: of those that were done twice, the last."""
    lines = (folder / f'videos_{rank}.txt').read_text().splitlines()
    return dict(line.split(': ', 1) for line in lines)


@TRANSFORMS.register_module(force=True)
class NoiseTransform:
    """A random augmentation: noise from all three generators."""

    def __call__(self, results):
        noise = np.random.rand() + random.random() + torch.rand(1).item()
        features = results['features']
        results['features'] = features + np.float32(noise) * np.arange(features.shape[1])
        return results


def _die_while_writing():
    """With MMN_FAULT's 'write': NAME, die when half of that file is on the disk."""
    name = ast.literal_eval(os.environ.get('MMN_FAULT', '{}')).get('write')
    if name is None:
        return
    fsync = os.fsync

    def die(handle):
        if name in os.readlink(f'/proc/self/fd/{handle}'):
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = die


_die_while_writing()
