"""When checkpoints are written, and which are kept."""

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

import torch
from mmaction.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop

from mmn_plugin.config import require_checkpoint_content
from mmn_plugin.errors import InputError
from mmn_plugin.files import writable_folder

from .checkpoint_files import (
    TrainingRecord,
    WorkFolderInUseError,
    make_plain,
    newest_checkpoint,
    plain,
    restore_histories,
    write_durably,
)
from .dist import highest
from .identity import changed_settings

_INSIDE = 'inside_epoch_ckpts'  # in the message hub: files that the next checkpoint replaces
_STATES = 'run_state'  # folder of what every process adds to a checkpoint


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """``CheckpointHook`` for runs that are killed at any moment, on disks that fill up.

    - Every file is written atomically, and nothing is deleted before its successor is there.
    - Resuming without a path (``resume=True``, ``--resume``) takes the newest complete checkpoint
      and names those that it passes over.
    - By default checkpoints are written by time, so that a kill costs at most ``minutes``, or one
      epoch where that takes longer: at the end of an epoch if the end of the next one would come
      too late. Process 0 decides for all. The last epoch always has its checkpoint.
    - Besides there is one every ``iter_interval`` iterations, and one whenever a run is asked to
      stop (`PreemptionHook`). Only the newest of these (``iter_N.pth``) is kept, until the next
      epoch's is written.
    - Each is written once, before the validation of its epoch, which a resumed run therefore
      begins with (`ResumableTrainLoop`).
    - Under `ResumableTrainLoop` every process writes its state to a file of its own, in
      ``run_state/NAME-ID/``. These are there before their checkpoint is, and are deleted with it.
      A checkpoint that only serves for its weights (``best_*.pth``) has none.

    Args:
        interval (int, optional): Epochs between checkpoints; -1 for none but the last. Defaults to
            None: by time.
        minutes (float): Minutes between checkpoints without ``interval``; 0 for one after every
            epoch. Defaults to 10.
        iter_interval (int): Iterations between checkpoints inside the epochs; 0 for none.
            Defaults to 0.
        **kwargs: Those of :class:`mmengine.hooks.CheckpointHook`, but for ``by_epoch=False``; an
            ``out_dir`` is a local folder.

    Raises:
        TypeError: If a setting is unknown.
        ValueError: With ``by_epoch=False``; ``iter_interval`` serves for that. If ``minutes`` is
            negative.
    """

    clock = staticmethod(time.monotonic)  # seconds

    def __init__(
        self, interval: int | None = None, minutes: float = 10.0, iter_interval: int = 0, **kwargs
    ):
        if not kwargs.pop('by_epoch', True):
            raise InputError(
                'SafeCheckpointHook counts epochs; for checkpoints every so many '
                'iterations set iter_interval instead of by_epoch=False'
            )
        if minutes < 0:
            raise InputError(f'SafeCheckpointHook: minutes={minutes}: give at least 0')
        kwargs.setdefault('backend_args', dict(backend='AtomicLocalBackend'))
        super().__init__(-1 if interval is None else interval, **kwargs)
        for name in self.args:  # else noticed when the first checkpoint is written
            raise TypeError(
                f"SafeCheckpointHook.__init__() got an unexpected keyword argument '{name}'"
            )
        self.by_time = interval is None
        self.minutes = minutes
        self.iter_interval = iter_interval
        self._record: TrainingRecord | None = None  # of the work folder
        self._run: str | None = None  # identity of this training, in all its checkpoints
        self._resumed_from: str | None = None  # checkpoint of another one
        self._saved_iter = 0  # iteration whose state is on the disk
        self._saved_at = self._epoch_began = 0.0  # seconds of the clock
        self._run_state: dict | None = None  # of a checkpoint that is being written, or resumed
        self._states_folder = ''  # where that of the resumed checkpoint has its files

    def before_run(self, runner) -> None:
        """Lock the work folder and choose what to resume from, on rank 0 for all.

        Raises:
            WorkFolderInUseError: On all ranks, if another run trains in the folder.
        """
        self._record, self._run = TrainingRecord(runner.work_dir), secrets.token_hex(8)
        if isinstance(runner._train_loop, BaseLoop):  # else it is a test
            self._claim_folder(runner)
        if not runner._resume:
            return
        found = [self._choose(runner) if is_main_process() else None]
        broadcast_object_list(found)
        if found[0] is None:
            runner.logger.warning(
                f'{runner.work_dir} has no complete checkpoint to resume from: '
                'training starts from the beginning'
            )
            runner._resume = False
        elif runner._load_from is None:
            runner.logger.info(f'Resuming from the newest complete checkpoint {found[0]}')
            runner._load_from = found[0]

    def _claim_folder(self, runner) -> None:
        problem = [None]
        if is_main_process():
            try:
                if reason := self._record.acquire():
                    runner.logger.warning(
                        f'{runner.work_dir} cannot be locked ({reason}): nothing '
                        'keeps a second training from writing there'
                    )
            except (WorkFolderInUseError, OSError) as error:
                problem[0] = str(error)
        broadcast_object_list(problem)
        if problem[0]:
            raise WorkFolderInUseError(problem[0])

    def _choose(self, runner) -> str | None:
        """The checkpoint to resume from; and whose training that goes on with."""
        path, record = runner._load_from, self._record.read()
        if path is None:
            newest = newest_checkpoint(runner.work_dir, runner.logger.warning, record)
            if newest is None:
                return None
            path = str(newest)
            if 'run' in record:
                self._run, self._resumed_from = record['run'], record.get('resumed_from')
                return path
        self._resumed_from = os.path.abspath(path)
        return path

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Bring a checkpoint that is resumed into the form that MMEngine wants.

        MMEngine loads checkpoints to the model's device. The optimizer's step counters belong on
        the CPU, where PyTorch makes them: on a GPU every step would wait for each of them.
        """
        state = checkpoint.pop(_STATES, None)
        if not runner._resume:
            return
        require_checkpoint_content(checkpoint, runner._load_from)
        restore_histories(checkpoint)
        for values in checkpoint.get('optimizer', {}).get('state', {}).values():
            if torch.is_tensor(values.get('step')):
                values['step'] = values['step'].cpu()
        self._run_state = state
        self._states_folder = os.path.join(os.path.dirname(runner._load_from), _STATES)
        meta = checkpoint.get('meta', {})
        meta.pop('config', None)  # Runner.resume would run such a text as a program
        if changes := changed_settings(meta.get('settings', {}), runner.cfg.to_dict()):
            head = f'{runner._load_from} was trained with other settings than those of this config:'
            advice = (
                'To train by this config alone, start anew in another --work-dir, from the '
                'weights if you like (load_from)'
            )
            runner.logger.warning('\n  '.join([head, *changes, advice]))

    def take_run_state(self) -> tuple[dict | None, str]:
        """What the resumed checkpoint says of its run, once; and the folder with its files."""
        state, self._run_state = self._run_state, None
        return state, self._states_folder

    def before_train(self, runner) -> None:
        """Note whose folder it is, and remove what a killed run was writing.

        Raises:
            OutputError: If ``out_dir`` cannot be written into.
        """
        super().before_train(runner)
        folder = writable_folder(self.out_dir)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = list(self.keep_ckpt_ids)  # one more while its successor is written
        if runner._resume and Path(runner._load_from or '_').parent == folder:
            self._saved_iter = runner.iter
        self._saved_at = self._epoch_began = self.clock()
        if not is_main_process():
            return
        found = sorted(path.name for path in folder.glob('*.pth'))
        if found and not runner._resume:
            runner.logger.warning(
                f'{folder} holds checkpoints of an earlier training ({", ".join(found[:5])}'
                f'{", …" if found[5:] else ""}), which this one will replace: to keep them, stop '
                'it and choose another --work-dir; to go on from them, stop it and give --resume '
                'with the path of one'
            )
        self._record.write(self._run, self._resumed_from)
        for path in folder.glob('*.pth.part'):
            with suppress(OSError):
                path.unlink()
        for states in folder.glob(f'{_STATES}/*-*'):
            if not (folder / states.name.rpartition('-')[0]).exists():
                shutil.rmtree(states, ignore_errors=True)

    def after_train_epoch(self, runner) -> None:
        """The epoch's checkpoint, if one is due."""
        last = self.save_last and self.is_last_train_epoch(runner)
        if self._is_due(runner) or last:
            runner.logger.info(f'Saving checkpoint at {runner.epoch + 1} epochs')
            self._save_checkpoint(runner)

    def after_iteration(self, runner) -> None:
        """The checkpoint of every so many iterations."""
        if not self._reaches_iter_interval(runner):
            return
        ends = runner.train_loop.batch == len(runner.train_dataloader)
        if not (ends and (self.by_time or self._reaches_interval(runner))):  # the epoch's follows
            self._save_inside_epoch(runner)

    def save_now(self, runner) -> None:
        """A checkpoint of where the run stands, unless that is on the disk already."""
        if self._saved_iter == runner.iter:
            return
        if getattr(runner.train_loop, 'batch', 0):
            self._save_inside_epoch(runner)
        else:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, runner.epoch, meta)

    def after_train(self, runner) -> None:
        """The checkpoint of a run that ended before its last epoch; then publish."""
        if self.save_last:
            self.save_now(runner)
        super().after_train(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Leave nothing in a checkpoint that PyTorch alone cannot read."""
        make_plain(checkpoint)
        with suppress(InputError):  # MMEngine's own entry is the text of a program
            checkpoint['meta']['settings'] = plain(runner.cfg.to_dict(), 'the config')
        if self._run is not None:
            checkpoint['meta']['run_id'] = self._run
        if self._run_state is not None and 'optimizer' in checkpoint:
            checkpoint[_STATES] = self._run_state

    def after_run(self, runner) -> None:
        """Let others train in the work folder."""
        if self._record is not None:
            self._record.release()

    def _is_due(self, runner) -> bool:
        """Whether an epoch that ends needs a checkpoint; all ranks get rank 0's answer."""
        if not self.by_time:
            return self._reaches_interval(runner)
        now = self.clock()
        epoch, self._epoch_began = now - self._epoch_began, now
        late = now + epoch > self._saved_at + 60 * self.minutes
        mine = late and is_main_process() and runner.epoch + 1 >= self.save_begin
        return bool(highest(int(mine))) or self._reaches_iter_interval(runner)

    def _reaches_interval(self, runner) -> bool:
        return self.every_n_epochs(runner, self.interval, self.save_begin)

    def _reaches_iter_interval(self, runner) -> bool:
        return self.iter_interval > 0 and runner.iter % self.iter_interval == 0

    def _save_inside_epoch(self, runner) -> None:
        name = f'iter_{runner.iter}.pth'
        runner.logger.info(
            f'Saving checkpoint at {runner.iter} iterations, inside epoch {runner.epoch + 1}'
        )
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
        """Save what every rank adds, then on rank 0 the rest; name it in ``last_checkpoint``."""
        inside = list(runner.message_hub.runtime_info.get(_INSIDE, ()))
        inside += [keep_inside] if keep_inside else []
        runner.message_hub.update_info(_INSIDE, inside)
        self.last_ckpt = os.path.join(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        token = [secrets.token_hex(4)]
        broadcast_object_list(token)
        states = Path(self.out_dir, _STATES, f'{name}-{token[0]}')
        save_state = getattr(runner.train_loop, 'save_run_state', None)
        self._run_state = None
        if save_state and self.save_optimizer:  # else there is nothing to resume from
            self._run_state = plain(save_state(states), 'the train loop')
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            backend_args=self.backend_args,
        )
        self._run_state = None
        if is_main_process():
            write_durably(self.last_ckpt.encode(), Path(runner.work_dir) / 'last_checkpoint')
        self._saved_iter, self._saved_at = runner.iter, self.clock()
        self._remove_states(name, keep=states)
        for other in set(inside) - {keep_inside}:
            self._remove(other)
        runner.message_hub.update_info(_INSIDE, [keep_inside] if keep_inside else [])

    def _save_best_checkpoint(self, runner, metrics) -> None:
        """Write the best checkpoint before those that it replaces are deleted."""
        if not self.save_best:
            return
        lacking = [name for name in self.save_best if name not in ('auto', *metrics)]
        if metrics and lacking:  # of no figures at all MMEngine warns
            runner.logger.warning(
                f'no best checkpoint is chosen: default_hooks.checkpoint.save_best={lacking[0]!r} '
                f'is not among the figures of this validation ({", ".join(sorted(metrics))}). Do '
                'its annotations have a sentence with a window? Choose another figure, or correct '
                'them'
            )
            return
        last, self.last_ckpt = self.last_ckpt, None  # else the epoch's would be written again
        single = len(self.save_best) == 1
        if single:
            self.best_ckpt_path = None
        else:
            self.best_ckpt_path_dict = dict.fromkeys(self.key_indicators)
        super()._save_best_checkpoint(runner, metrics)
        self.last_ckpt = last
        infos = runner.message_hub.runtime_info
        if single:
            written = {self.key_indicators[0]: self.best_ckpt_path}
            self.best_ckpt_path = infos.get('best_ckpt')
        else:
            written = self.best_ckpt_path_dict
            self.best_ckpt_path_dict = {key: infos.get(f'best_ckpt_{key}') for key in written}
        for key, best in written.items():
            pattern = f'best_{key}_{self.filename_tmpl.format("*")}'.replace('/', '_')
            for path in Path(self.out_dir).glob(pattern) if best else ():
                if path != Path(best):
                    self._remove(path.name)

    def _remove(self, name: str) -> None:
        if is_main_process():
            with suppress(OSError):
                Path(self.out_dir, name).unlink(missing_ok=True)
        self._remove_states(name)

    def _remove_states(self, name: str, keep: Path | None = None) -> None:
        """Delete what all ranks had added to a checkpoint, or to earlier ones of its name."""
        if is_main_process():
            for folder in Path(self.out_dir, _STATES).glob(f'{name}-*'):
                if folder != keep:
                    shutil.rmtree(folder, ignore_errors=True)
