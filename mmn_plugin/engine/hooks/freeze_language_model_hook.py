"""Freezing the language model for the first epochs."""

from mmaction.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from ..bare_model import bare_model


@HOOKS.register_module()
class FreezeLanguageModelHook(Hook):
    """Keep ``text_encoder.bert`` frozen through an epoch, then train it.

    Frozen, its parameters get no gradient: they are outside the norm and its clipping, see no
    weight decay and have no optimiser state; its dropout stays active. The state follows from the
    epoch alone, so a resumed run is in the right one.

    It freezes after the optimiser is built and after the model is wrapped: MMEngine's optimiser
    constructor leaves out parameters that are frozen when it is called, and
    DistributedDataParallel never synchronises parameters that are frozen when it wraps (ranks
    would drift apart silently after unfreezing). The wrapper therefore needs
    ``find_unused_parameters=True``, which this hook checks.

    Args:
        through_epoch (int): Last frozen epoch, counted from 1; 0 never freezes.
    """

    priority = 'NORMAL'

    def __init__(self, through_epoch: int):
        self.through_epoch = through_epoch

    def before_train(self, runner) -> None:
        """Check that the distributed wrapper can cope with parameters without gradient.

        Raises:
            ValueError: If it would fail in the middle of an epoch.
        """
        if (
            self.through_epoch > 0
            and is_model_wrapper(runner.model)
            and getattr(runner.model, 'find_unused_parameters', True) is False
        ):
            raise ValueError(
                'FreezeLanguageModelHook freezes parameters after the model is '
                'wrapped: set model_wrapper_cfg=dict('
                "type='MMDistributedDataParallel', find_unused_parameters=True)"
            )

    def before_train_epoch(self, runner) -> None:
        """Freeze or unfreeze for the epoch that begins."""
        model = bare_model(runner)
        frozen = runner.epoch + 1 <= self.through_epoch
        if self.freeze(model, frozen):
            state = 'frozen' if frozen else 'trained'
            print_log(f'language model is {state} from epoch {runner.epoch + 1}', 'current')

    @staticmethod
    def freeze(model, frozen: bool) -> bool:
        """Set whether the language model is trained; tells whether that changed anything."""
        changed = False
        for parameter in model.text_encoder.bert.parameters():
            if parameter.requires_grad == frozen:
                parameter.requires_grad_(not frozen)
                parameter.grad = None
                changed = True
        return changed
