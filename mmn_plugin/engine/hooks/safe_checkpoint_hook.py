"""Checkpoints that are whole, and of which one is always there."""
import contextlib
from pathlib import Path

from mmaction.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook

from ..checkpoints import PARTIAL, newest_checkpoint, write_atomically

_INSIDE = 'inside_epoch_ckpts'  # in the message hub: files that the next checkpoint replaces


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """``CheckpointHook`` for runs that are killed at any moment, on disks that fill up.

    - Every file is written atomically, and nothing is deleted before its successor is there.
    - Resuming without a path (``resume=True``, ``--resume``) takes the newest complete checkpoint
      and names those that it passes over.
    - Besides the checkpoint of every epoch there is one every ``iter_interval`` iterations, and
      one whenever a run is asked to stop (`PreemptionHook`). Only the newest of these
      (``iter_N.pth``) is kept, until the epoch's is written.
    - After a validation the epoch's checkpoint is written again with the best score so far; one
      that was killed before has its validation made up for (`ResumableTrainLoop`).
    - With `RunStateHook` a checkpoint holds the state of every process.

    Args:
        interval (int): Epochs between checkpoints; -1 for none but the last. Defaults to -1.
        iter_interval (int): Iterations between checkpoints inside the epochs; 0 for none.
            Defaults to 0.
        **kwargs: Those of :class:`mmengine.hooks.CheckpointHook`, but for ``by_epoch=False``.

    Raises:
        ValueError: With ``by_epoch=False``; ``iter_interval`` serves for that.
    """

    def __init__(self, interval: int = -1, iter_interval: int = 0, **kwargs):
        if not kwargs.pop('by_epoch', True):
            raise ValueError('SafeCheckpointHook counts epochs; for checkpoints every so many '
                             'iterations set iter_interval instead of by_epoch=False')
        if '://' not in str(kwargs.get('out_dir') or ''):
            kwargs.setdefault('backend_args', dict(backend='AtomicLocalBackend'))
        super().__init__(interval, **kwargs)
        self.iter_interval = iter_interval
        self._saved_iter: int | None = None  # iteration whose state is on the disk
        self._best_changed = False

    def before_run(self, runner) -> None:
        """Choose what to resume from, on rank 0 for all."""
        if not runner._resume or runner._load_from is not None:
            return
        path = [None]
        if is_main_process():
            found = newest_checkpoint(runner.work_dir, runner.logger.warning)
            path = [str(found) if found else None]
        broadcast_object_list(path)
        if path[0] is None:
            runner.logger.warning(f'{runner.work_dir} has no complete checkpoint to resume from: '
                                  'training starts from the beginning')
            runner._resume = False
            return
        runner.logger.info(f'Resuming from the newest complete checkpoint {path[0]}')
        runner._load_from = path[0]

    def before_train(self, runner) -> None:
        """Remove what a killed run was writing."""
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = list(self.keep_ckpt_ids)  # one more while its successor is written
        if runner._resume and Path(runner._load_from or '').parent == Path(self.out_dir):
            self._saved_iter = runner.iter
        if is_main_process():
            for path in Path(self.out_dir).glob(f'*.pth{PARTIAL}'):
                _delete(path)

    def between_train_iters(self, runner) -> None:
        """The checkpoint of every so many iterations."""
        if self.iter_interval <= 0 or runner.iter % self.iter_interval:
            return
        ends = runner.train_loop.batch == len(runner.train_dataloader)
        if not (ends and self.every_n_epochs(runner, self.interval, self.save_begin)):
            self._save_inside_epoch(runner)

    def save_now(self, runner) -> None:
        """A checkpoint of where the run stands, unless that is on the disk already."""
        if self._saved_iter == runner.iter:
            return
        if runner.train_loop.batch:
            self._save_inside_epoch(runner)
        else:
            self._save_whole_epoch(runner)

    def after_validation(self, runner) -> None:
        """The epoch's checkpoint again, now with its validation."""
        if self._saved_iter == runner.iter or self._best_changed:
            self._save_whole_epoch(runner)

    def _save_whole_epoch(self, runner) -> None:
        self._save_checkpoint_with_step(
            runner, runner.epoch, meta=dict(epoch=runner.epoch, iter=runner.iter))

    def _save_inside_epoch(self, runner) -> None:
        name = f'iter_{runner.iter}.pth'
        runner.logger.info(f'Saving checkpoint at {runner.iter} iterations, inside epoch '
                           f'{runner.epoch + 1}')
        self._write(runner, name, dict(epoch=runner.epoch, iter=runner.iter), keep_inside=name)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        """Write a whole epoch's checkpoint, then delete those beyond ``max_keep_ckpts``."""
        ids = self.keep_ckpt_ids if self.max_keep_ckpts > 0 else []
        if self.max_keep_ckpts > 0 and step not in ids:
            ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(ids))
        self._write(runner, self.filename_tmpl.format(step), meta)
        while len(ids) > self.max_keep_ckpts > 0:
            self._remove(self.filename_tmpl.format(ids.pop(0)))

    def _write(self, runner, name: str, meta: dict, keep_inside: str | None = None) -> None:
        """Save on rank 0 what all ranks collect, and name it in ``last_checkpoint``."""
        inside = [*self._inside(runner), keep_inside] if keep_inside else self._inside(runner)
        runner.message_hub.update_info(_INSIDE, inside)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.call_hook('collect_run_state')
        runner.save_checkpoint(
            self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta,
            backend_args=self.backend_args, **self.args)
        if is_main_process():
            write_atomically(self.last_ckpt.encode(), Path(runner.work_dir) / 'last_checkpoint')
        self._saved_iter = runner.iter
        for other in set(inside) - {keep_inside}:
            self._remove(other)
        runner.message_hub.update_info(_INSIDE, [keep_inside] if keep_inside else [])

    @staticmethod
    def _inside(runner) -> list[str]:
        return list(runner.message_hub.runtime_info.get(_INSIDE, ()))

    def _save_best_checkpoint(self, runner, metrics) -> None:
        """Write the best checkpoint before the one it replaces is deleted."""
        if self.save_best is None:
            return
        single = hasattr(self, 'best_ckpt_path')
        before = {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)
        last, resumable = self.last_ckpt, hasattr(runner.train_loop, 'validated')
        if resumable:
            self.last_ckpt = None  # after_validation writes the epoch's again, when all is over
        self._set_best(single, dict.fromkeys(before))
        super()._save_best_checkpoint(runner, metrics)
        after = {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)
        self._best_changed = any(after.values())
        for key, path in before.items():
            if path and after[key] and path != after[key]:
                self._remove(Path(path).name)
        self._set_best(single, {key: after[key] or before[key] for key in before})
        if resumable:
            self.last_ckpt = last

    def _set_best(self, single: bool, paths: dict) -> None:
        if single:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict.update(paths)

    def _remove(self, name: str) -> None:
        if is_main_process():
            path = self.file_backend.join_path(self.out_dir, name)
            if self.file_backend.isfile(path):
                with contextlib.suppress(OSError):
                    self.file_backend.remove(path)


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
