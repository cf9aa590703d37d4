"""Work-arounds that let the last OpenMMLab releases run on today's stack, and nothing else.

``import mmn_plugin`` calls :func:`apply` before anything else. Each cure is one function whose
docstring names what it is for; each leaves alone what already works (a source-built MMAction2
keeps its own DRN and VindLU, a machine with GPUs keeps NCCL). What a requirement can cure
(``importlib_metadata``, ``setuptools<82``) stands in ``requirements/``, not here.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import re
import struct
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path

from .errors import CheckpointRefusedError
from .files import config_root, find_config

_applied: list[str] = []


def require_mmcv() -> None:
    """Say plainly that MMCV is missing (MMAction2 imports it first and does not declare it).

    Full ``mmcv`` and ``mmcv-lite`` serve alike, since nothing here needs compiled operators; they
    own the same folder, so the message asks for only one. Needless with an MMAction2 after 1.2.0
    that declares it.

    Raises:
        ImportError: neither ``mmcv`` nor ``mmcv-lite`` is installed.
    """
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError(
            'mmn_plugin needs MMCV: pip install "mmcv-lite>=2.0.1,<2.2.0" (an existing full mmcv '
            'of these versions serves as well; never install one over the other)'
        )


def quiet_known_warnings() -> None:
    """Hide warnings that every process would print and nobody can act on.

    mmcv-lite says that it lacks a compiled operator; setuptools 80 and 81 say that
    ``pkg_resources``, which mmengine imports, will go (hence ``setuptools<82``). Needless with a
    mmcv-lite after 2.1.0 and an MMEngine after 0.10.7 that do not say so.
    """
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated as an API')
    warnings.filterwarnings('ignore', '.*broadcast_buffers. is deprecated')


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a package of MMAction2's models, and registers stand-ins where that fails.

    Args:
        package (str): Full name.
        module (str): Its module that MMAction2 imports names from.
        names (Sequence[str]): Models it would register.
        absent (str): Why the models are not there where the package is absent.
    """

    def __init__(self, package: str, module: str, names: Sequence[str], absent: str):
        self.package, self.module, self.names, self.absent = package, module, names, absent

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in (self.package, self.module):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        self.real, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self.real.create_module(spec) if spec.origin else None

    def exec_module(self, module):
        try:
            if not module.__spec__.origin:
                raise ImportError(self.absent)
            # Without timm the outcome is certain; asking first saves loading transformers for it.
            if importlib.util.find_spec('timm') is None and _imports_timm(module):
                raise ImportError("it needs 'timm', which is not installed")
            self.real.exec_module(module)
        except Exception as error:  # transformers and timm break in more ways than ImportError
            if module.__name__ == self.module:
                _forget(self.package, module)
                _register_stand_ins(module, self.names, str(error))


def stand_in_for_drn() -> None:
    """Make ``mmaction.models`` importable from the PyPI wheel, which lacks the DRN folder.

    https://github.com/open-mmlab/mmaction2/issues/2714. Needless with a wheel of MMAction2 after
    1.2.0 that holds ``mmaction/models/localizers/drn``; a checkout has it.
    """
    package = 'mmaction.models.localizers.drn'
    reason = 'the MMAction2 wheel from PyPI lacks it (mmaction2 issue 2714)'
    sys.meta_path.insert(0, _Finder(package, f'{package}.drn', ['DRN'], reason))


def stand_in_for_vindlu() -> None:
    """Make ``mmaction.models`` importable with transformers 5 or without timm.

    MMAction2 imports VindLU wherever transformers is installed; VindLU needs timm (undeclared,
    and it would pull torchvision and another torch) and names gone from transformers 5. MMAction2
    registers placeholders where transformers is absent; this does the same where VindLU fails.
    Needless with a release after 1.2.0 that does so itself, or whose VindLU runs on transformers 5
    without timm.
    """
    package = 'mmaction.models.multimodal.vindlu'
    names = ('VindLUVQA', 'VindLURetrievalMC', 'VindLURetrieval')
    sys.meta_path.insert(0, _Finder(package, package, names, 'this MMAction2 lacks it'))


def _imports_timm(module) -> bool:
    folder = Path(module.__spec__.origin).parent
    return any('timm' in path.read_text(encoding='utf-8') for path in folder.glob('*.py'))


def _register_stand_ins(module, names: Sequence[str], reason: str) -> None:
    from mmaction.registry import MODELS

    def refuse(self, *args, **kwargs):
        raise ImportError(f'{type(self).__name__} is not available: {reason}')

    for name in names:
        stand_in = type(name, (), {'__init__': refuse, '__doc__': f'Stand-in: {reason}.'})
        MODELS.register_module(name=name, module=stand_in)
        setattr(module, name, stand_in)


def _forget(package: str, module) -> None:
    """Undo a half-done import of ``package``: its other modules and what they registered."""
    from mmaction.registry import MODELS, TOKENIZER

    for name in [name for name in sys.modules if name.startswith(f'{package}.')]:
        if name != module.__name__:
            del sys.modules[name]
    for registry in (MODELS, TOKENIZER):
        for key, value in list(registry.module_dict.items()):
            if getattr(value, '__module__', '').startswith(package):
                del registry.module_dict[key]


def allow_checkpoint_classes() -> None:
    """Let ``torch.load(weights_only=True)`` read what an MMEngine checkpoint holds.

    https://github.com/open-mmlab/mmengine/issues/1655. Allow-listed are stand-ins that take plain
    data (`mmn_plugin.safe_pickle.checkpoint_globals`); anything else is refused, with one message.
    ``load_url`` would switch the protection off (torch.hub's default), so it is told not to.
    Needless with a release of MMEngine after 0.10.7 whose checkpoints hold plain data alone.
    """
    import torch
    from mmengine.runner import checkpoint

    from .safe_pickle import checkpoint_globals

    torch.serialization.add_safe_globals(checkpoint_globals())
    checkpoint.load_url = partial(checkpoint.load_url, weights_only=True)

    stock = checkpoint.CheckpointLoader.load_checkpoint.__func__

    @wraps(stock)
    def load_checkpoint(cls, filename, map_location=None, logger='current'):
        try:
            return stock(cls, filename, map_location, logger)
        except (
            pickle.UnpicklingError,
            EOFError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
            struct.error,
        ) as error:  # a damaged file fails in many ways
            if type(error) is RuntimeError and 'PytorchStreamReader' not in str(error):
                raise
            raise _explain_refusal(filename, error) from None

    checkpoint.CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)


def _explain_refusal(filename: str, error: Exception) -> CheckpointRefusedError:
    found = re.search(r"(?:GLOBAL|got <class|asks for) '?([\w.]+)", str(error))
    if found:
        return CheckpointRefusedError(
            f'{filename} was not loaded: it holds a {found[1]}, and loading such an object could '
            'run foreign code. A checkpoint holds tensors and plain data; if you trust the file, '
            "re-save its 'state_dict' alone"
        )
    return CheckpointRefusedError(
        f'{filename} is damaged or no PyTorch checkpoint; make it or download it again'
    )


def distribute_on_cpu() -> None:
    """Let ``launcher='pytorch'`` work on a machine without accelerator.

    mmengine calls ``torch.cuda.set_device`` and asks for NCCL, and gives
    ``DistributedDataParallel`` a device number even for a model on the CPU. Here such a machine
    gets a gloo group, and a model on the CPU no ``device_ids``. GPUs keep NCCL and their ids.
    Needless with a release of MMEngine after 0.10.7 whose ``_init_dist_pytorch`` asks for gloo
    where there is no accelerator.
    """
    from mmengine.device import get_device
    from mmengine.dist import utils
    from mmengine.model import MMDistributedDataParallel

    stock_init, stock_wrap = utils._init_dist_pytorch, MMDistributedDataParallel.__init__

    @wraps(stock_init)
    def init_dist_pytorch(backend, init_backend='torch', **kwargs):
        if get_device() != 'cpu':
            return stock_init(backend, init_backend=init_backend, **kwargs)
        return utils.torch_dist.init_process_group(backend='gloo', **kwargs)

    @wraps(stock_wrap)
    def init_wrapper(self, module, *args, **kwargs):
        parameter = next(module.parameters(), None)
        if 'device_ids' in kwargs and parameter is not None and parameter.device.type == 'cpu':
            kwargs['device_ids'] = None
        stock_wrap(self, module, *args, **kwargs)

    utils._init_dist_pytorch = init_dist_pytorch
    MMDistributedDataParallel.__init__ = init_wrapper


def write_test_results_once() -> None:
    """Let one process write the results of a distributed test.

    mmengine's ``LoggerHook`` writes ``TIMESTAMP.json`` from every process at the same time. Their
    timings differ in length, so a shorter text over a longer one leaves a file that is no JSON.
    Needless with a release of MMEngine after 0.10.7 that writes it from the first process.
    """
    from mmengine.dist import master_only
    from mmengine.hooks import LoggerHook

    LoggerHook.after_test_epoch = master_only(LoggerHook.after_test_epoch)


def resolve_own_configs() -> None:
    """Let ``_base_ = 'mmn_plugin::NAME.py'`` and ``read_base()`` reach this package's configs.

    mmengine knows only the packages in its own table, wants a subfolder after ``::``, gives the
    inherited dicts a ``_scope_`` that no registry has, and looks in site-packages even after an
    editable install. Here our prefix, and nothing else, is resolved from this package's file.
    ``from mmn_plugin.configs.NAME import *`` under ``read_base()`` reads the same text-style file.
    Needless with a release of MMEngine after 0.10.7 that takes packages by an entry point.
    """
    from mmengine.config import Config, config

    get_cfg_path, fromfile = Config._get_cfg_path, Config.fromfile
    parse_lazy, installed_path = Config._parse_lazy_import, config.get_installed_path

    @wraps(get_cfg_path)
    def own_cfg_path(cfg_path, filename):
        path = _own_config(cfg_path)
        return (path, None) if path else get_cfg_path(cfg_path, filename)

    @wraps(fromfile)
    def own_fromfile(filename, *args, **kwargs):
        return fromfile(_own_config(filename) or filename, *args, **kwargs)

    @wraps(parse_lazy)
    def own_parse_lazy(filename):
        if config_root() not in Path(filename).parents:
            return parse_lazy(filename)
        cfg_dict, _, _ = Config._file2dict(filename, lazy_import=False)
        return Config._dict_to_config_dict_lazy(cfg_dict), set()

    @wraps(installed_path)
    def own_installed_path(package):
        # read_base() appends configs/NAME.py to this
        return str(config_root().parent) if package == 'mmn_plugin' else installed_path(package)

    Config._get_cfg_path = staticmethod(own_cfg_path)
    Config.fromfile = staticmethod(own_fromfile)
    Config._parse_lazy_import = staticmethod(own_parse_lazy)
    config.get_installed_path = own_installed_path


def _own_config(name) -> str | None:
    package, separator, path = str(name).partition('::')
    return str(find_config(path)) if separator and package == 'mmn_plugin' else None


CURES: tuple[Callable[[], None], ...] = (
    require_mmcv,
    quiet_known_warnings,
    stand_in_for_drn,
    stand_in_for_vindlu,
    allow_checkpoint_classes,
    distribute_on_cpu,
    write_test_results_once,
    resolve_own_configs,
)


def apply() -> None:
    """Apply every cure once per process.

    The environment variable ``MMN_PLUGIN_WITHOUT`` (names of :data:`CURES`, comma-separated)
    leaves some out. It is private, for the tests that show that a cure is still needed.
    """
    left_out = os.environ.get('MMN_PLUGIN_WITHOUT', '').split(',')
    for cure in CURES:
        if cure.__name__ not in _applied and cure.__name__ not in left_out:
            cure()
            _applied.append(cure.__name__)
