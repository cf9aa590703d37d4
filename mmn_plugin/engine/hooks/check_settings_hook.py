"""Find settings that would end a run only after its first epoch."""
from mmaction.registry import HOOKS
from mmengine.hooks import CheckpointHook, Hook

from mmn_plugin.evaluation import GroundingMetric

from ..bare_model import bare_model


@HOOKS.register_module()
class CheckSettingsHook(Hook):
    """Hold what validation and checkpoints will ask for against what there will be."""

    def before_train(self, runner) -> None:
        """Check ranks and the best checkpoint's metric.

        Raises:
            ValueError: If R@n asks for more moments than the head keeps, or ``save_best`` names a
                metric that validation does not report.
        """
        if runner.val_loop is None:
            return
        model = bare_model(runner)
        metrics = [metric for metric in runner.val_loop.evaluator.metrics
                   if isinstance(metric, GroundingMetric)]
        for metric in metrics:
            asked = max(metric.protocol.top_n)
            if asked > model.head.top_n:
                raise ValueError(f'val_evaluator asks for R@{asked}, but model.head.top_n='
                                 f'{model.head.top_n} moments are kept per sentence: raise it')
        if metrics and len(metrics) == len(runner.val_loop.evaluator.metrics):
            self._check_save_best(runner, metrics)

    @staticmethod
    def _check_save_best(runner, metrics: list[GroundingMetric]) -> None:
        reported = {f'{metric.prefix}/{name}' for metric in metrics for name in metric.names}
        for hook in runner.hooks:
            wanted = (getattr(hook, 'save_best', None) or []) if isinstance(
                hook, CheckpointHook) else []
            for name in [wanted] if isinstance(wanted, str) else wanted:
                # groups of sentences ("grounding/0-10s/R1@0.5") depend on the data
                if name != 'auto' and name.count('/') < 2 and name not in reported:
                    raise ValueError(
                        f'default_hooks.checkpoint.save_best={name!r} is no metric of the '
                        f'validation, which reports {", ".join(sorted(reported))}')
