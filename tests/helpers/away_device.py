"""A stand-in for a GPU that counts what the host waits for."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

AWAY = torch.device('meta')  # tensors without values stand in for those on a GPU
aten = torch.ops.aten
ASKS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.bincount,
    aten.repeat_interleave,
    aten.equal,
}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class AwayDevice(TorchDispatchMode):
    """Lists where values of a tensor that is not on the host are asked for, or a copy waits.

    What is copied to the host, or asked for, is zero there.

    Args:
        last (float): But for its last value. Defaults to 0, too.

    Attributes:
        waits (list[str]): Names of the operations, one per wait.
    """

    def __init__(self, last: float = 0.0):
        super().__init__()
        self.waits: list[str] = []
        self.last = last

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        away = any(isinstance(value, torch.Tensor) and value.device == AWAY for value in args)
        packet = func.overloadpacket
        if self.waited_for(packet, args, kwargs, away):
            self.waits.append(str(packet))
        if away and packet is aten._local_scalar_dense:
            return torch.full((), self.last, dtype=args[0].dtype).item()
        if away and packet is aten._to_copy and self.to_host(kwargs):
            values = torch.zeros(args[0].shape, dtype=kwargs.get('dtype') or args[0].dtype)
            values.view(-1)[-1:] = self.last
            return values
        if away and packet is aten.copy_ and args[0].device != AWAY:
            return args[0].zero_()
        return func(*args, **kwargs)

    @classmethod
    def waited_for(cls, packet, args: tuple, kwargs: dict, away: bool) -> bool:
        if packet is aten._to_copy:
            to_device = kwargs.get('device') == AWAY and not away
            return (away and cls.to_host(kwargs)) or (to_device and not kwargs.get('non_blocking'))
        if packet is aten.copy_:
            devices = {value.device for value in args[:2]}
            return len(devices) > 1 and not (args[0].device == AWAY and args[2:] == (True,))
        if away and packet in INDEXED:
            return any(
                index is not None and (index.dtype == torch.bool or index.device != AWAY)
                for index in args[1]
            )
        return away and packet in ASKS

    @staticmethod
    def to_host(kwargs: dict) -> bool:
        return kwargs.get('device') is not None and kwargs['device'].type == 'cpu'
