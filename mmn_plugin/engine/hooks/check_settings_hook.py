"""Find settings that would end a run only after its first epoch, or spoil its figures."""

import filecmp
from collections.abc import Iterator
from pathlib import Path

from mmaction.registry import HOOKS
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook

from mmn_plugin.evaluation import GroundingMetric

from ..bare_model import bare_model


@HOOKS.register_module()
class CheckSettingsHook(Hook):
    """Hold what validation and checkpoints will ask for against what there will be."""

    def before_train(self, runner) -> None:
        """Check ranks and the best checkpoint's metric; warn of a choice on the test split, and of
        learning rates for no parameter.

        Raises:
            ValueError: If R@n asks for more moments than the head keeps, or ``save_best`` names a
                metric that validation does not report.
        """
        self._warn_of_unused_keys(runner)
        if runner.val_loop is None:
            return
        model = bare_model(runner)
        metrics = [
            metric
            for metric in runner.val_loop.evaluator.metrics
            if isinstance(metric, GroundingMetric)
        ]
        for metric in metrics:
            asked = max(metric.protocol.top_n)
            if asked > model.head.top_n:
                raise ValueError(
                    f'val_evaluator asks for R@{asked}, but model.head.top_n='
                    f'{model.head.top_n} moments are kept per sentence: raise it'
                )
        if metrics and len(metrics) == len(runner.val_loop.evaluator.metrics):
            self._check_save_best(runner, metrics)
        self._warn_of_choice_on_test(runner)

    @staticmethod
    def _check_save_best(runner, metrics: list[GroundingMetric]) -> None:
        reported = {f'{metric.prefix}/{name}' for metric in metrics for name in metric.names}
        for name in _best_metrics(runner):
            # groups of sentences ("grounding/0-10s/R1@0.5") depend on the data
            if name != 'auto' and name.count('/') < 2 and name not in reported:
                raise ValueError(
                    f'default_hooks.checkpoint.save_best={name!r} is no metric of the '
                    f'validation, which reports {", ".join(sorted(reported))}'
                )

    @staticmethod
    def _warn_of_unused_keys(runner) -> None:
        """Settings by parts of parameters' names that no parameter has."""
        wrapper = runner.cfg.get('optim_wrapper')
        settings = (wrapper.get('paramwise_cfg') if isinstance(wrapper, dict) else None) or {}
        names = [name for name, _ in bare_model(runner).named_parameters()]
        unused = [
            key
            for key in settings.get('custom_keys') or {}
            if not any(key in name for name in names)
        ]
        if unused:
            runner.logger.warning(
                'optim_wrapper.paramwise_cfg.custom_keys sets rates for '
                f'{", ".join(unused)}, which no parameter has in its name'
            )

    @staticmethod
    def _warn_of_choice_on_test(runner) -> None:
        """Figures of a checkpoint that was chosen on the test split are no estimate."""
        chosen = [f'save_best={name}' for name in _best_metrics(runner)]
        chosen += [
            f'EarlyStoppingHook(monitor={hook.monitor!r})'
            for hook in runner.hooks
            if isinstance(hook, EarlyStoppingHook)
        ]
        if not chosen:
            return
        tested = {*_annotation_files(runner.cfg.get('test_dataloader'))}
        shared = [
            str(path)
            for path in _annotation_files(runner.cfg.get('val_dataloader'))
            if any(_same_content(path, other) for other in tested)
        ]
        if shared:
            runner.logger.warning(
                f'{", ".join(chosen)} chooses the checkpoint on the test split: validation reads '
                f'{", ".join(shared)}, and so does the test. Test figures of that checkpoint are '
                'optimistic; report them as such, or give validation a split of its own'
            )


def _best_metrics(runner) -> list[str]:
    """Metrics by which the run keeps a best checkpoint."""
    wanted = [
        hook.save_best
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook) and hook.save_best
    ]
    return [name for names in wanted for name in ([names] if isinstance(names, str) else names)]


def _annotation_files(settings) -> Iterator[Path]:
    """Annotation files that a dataloader's config names, those inside wrappers included."""
    if isinstance(settings, dict):
        if isinstance(settings.get('ann_file'), str) and settings['ann_file']:
            yield Path(settings.get('data_root') or '', settings['ann_file']).resolve()
        settings = settings.values()
    elif not isinstance(settings, list | tuple):
        return
    for part in settings:
        yield from _annotation_files(part)


def _same_content(path: Path, other: Path) -> bool:
    """Whether two files are one, or copies of each other."""
    return path == other or (
        path.is_file() and other.is_file() and filecmp.cmp(path, other, shallow=False)
    )
