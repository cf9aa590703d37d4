"""Optimizers of few groups, fused where PyTorch can."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmaction.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import nn, optim

FUSED = {optim.Adam, optim.AdamW, optim.SGD}  # each has a kernel for all tensors of a group
FUSED_ON = {'cpu', 'cuda'}
HOW = {'fused', 'foreach', 'differentiable'}  # arguments that say how a step is computed


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, with one group for all parameters that have the same settings.

    MMEngine's ``paramwise_cfg`` gives every tensor a group of its own, with its own kernels and
    lines in the log. Here there are as many groups as settings, in the order in which the model has
    their first parameters, and a line for each.

    Adam, AdamW and SGD are fused on CPUs and CUDA devices, unless the config itself has ``fused``,
    ``foreach`` or ``differentiable``: the same to rounding in less time, and under a loss scaler
    (float16) without a wait for the device. A checkpoint of a run with the same groups that
    computed its steps in another way is taken on in this one.

    Args:
        optim_wrapper_cfg (dict): As of ``DefaultOptimWrapperConstructor``.
        paramwise_cfg (dict, optional): Likewise. Defaults to None.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Add a module's parameters; those of the whole model are merged by their settings."""
        super().add_params(params, module, prefix, **kwargs)
        if not prefix:
            params[:] = merged(params)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper."""
        kind = self.optimizer_cfg['type']
        kind = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
        devices = {parameter.device.type for parameter in model.parameters()}
        if kind in FUSED and devices <= FUSED_ON and not HOW & self.optimizer_cfg.keys():
            self.optimizer_cfg = dict(self.optimizer_cfg, fused=True)
        with _no_line_per_parameter():
            wrapper = super().__call__(model)
        wrapper.optimizer.register_load_state_dict_pre_hook(_keep_how)
        for group in wrapper.optimizer.param_groups:
            print_log(
                f'{len(group["params"])} tensors with lr={group["lr"]:g}, '
                f'weight_decay={group.get("weight_decay", 0):g}',
                'current',
            )
        return wrapper


def merged(groups: list[dict]) -> list[dict]:
    """One group for all that differ in ``params`` alone, in the place of the first of them."""
    found: list[tuple[dict, dict]] = []
    for group in groups:
        settings = {name: value for name, value in group.items() if name != 'params'}
        same = next((own for others, own in found if others == settings), None)
        if same is None:
            found.append((settings, dict(group, params=list(group['params']))))
        else:
            same['params'] += group['params']
    return [group for _, group in found]


def _keep_how(optimizer: optim.Optimizer, state: dict) -> dict:
    """A state to load, whose groups are computed as the optimizer's own."""
    own = {name: optimizer.defaults[name] for name in HOW & optimizer.defaults.keys()}
    return dict(state, param_groups=[group | own for group in state['param_groups']])


@contextmanager
def _no_line_per_parameter() -> Iterator[None]:
    """Leave out of the log what MMEngine says of each parameter."""

    def wanted(record) -> bool:
        text = str(record.msg)
        frozen = text.endswith('is skipped since its requires_grad=False')
        return not (frozen or text.startswith('paramwise_options'))

    logger = MMLogger.get_current_instance()
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
