"""Work-arounds that let the last OpenMMLab releases run on today's stack, and nothing else.

``import mmn_plugin`` calls :func:`apply` before anything else. Each cure is one function whose
docstring names what it is for; each leaves alone what already works (a source-built MMAction2
keeps its own DRN, a machine with GPUs keeps NCCL). What a requirement can cure
(``importlib_metadata``, ``setuptools<82``) stands in ``requirements/``, not here.
"""

import importlib.util
import os
import pickle
import re
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from types import ModuleType

from .errors import CheckpointRefusedError
from .files import config_root, find_config
from .safe_pickle import checkpoint_globals, plain_arrays


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


def complete_grammar_caches() -> None:
    """Let the first processes in a new environment start at once.

    yapf, which mmengine imports, renames its grammar's cache into place before its last bytes are
    written, and a process that reads it then ends with an EOFError. Needless with a yapf after
    0.43.0 that closes the file first. tools/train.py and test.py import this package before
    mmengine for its sake.
    """
    try:
        from yapf_third_party._ylib2to3.pgen2.grammar import Grammar
    except ImportError:  # an mmengine without yapf, or a yapf that has it elsewhere
        return

    @wraps(Grammar.dump)
    def dump(self, filename):
        file, unfinished = tempfile.mkstemp(dir=Path(filename).parent)
        try:
            with open(file, 'wb') as stream:
                pickle.dump(vars(self), stream, pickle.HIGHEST_PROTOCOL)
            os.replace(unfinished, filename)
        finally:
            Path(unfinished).unlink(missing_ok=True)

    Grammar.dump = dump


def quiet_known_warnings() -> None:
    """Hide warnings that every process would print and nobody can act on.

    mmcv-lite says that it lacks a compiled operator; setuptools 80 and 81 say that
    ``pkg_resources``, which mmengine imports, will go (hence ``setuptools<82``). Needless with a
    mmcv-lite after 2.1.0 and an MMEngine after 0.10.7 that do not say so. PyTorch says that memory
    is not pinned, which our configs ask for, where there is no accelerator to copy to.
    """
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated as an API')
    warnings.filterwarnings('ignore', '.*broadcast_buffers. is deprecated')
    warnings.filterwarnings('ignore', "'pin_memory' argument is set as true but no accelerator")


def stand_in_for_drn() -> None:
    """Make ``mmaction.models`` importable from the PyPI wheel, which lacks the DRN folder.

    https://github.com/open-mmlab/mmaction2/issues/2714. Needless with a wheel of MMAction2 after
    1.2.0 that holds ``mmaction/models/localizers/drn``; a checkout has it.
    """
    import mmaction
    from mmaction.registry import MODELS

    if (Path(mmaction.__file__).parent / 'models/localizers/drn').is_dir():
        return

    def refuse(*args, **kwargs):
        raise ImportError(
            'DRN is not available: the MMAction2 wheel from PyPI lacks it (mmaction2 issue 2714)'
        )

    MODELS.register_module(name='DRN', module=refuse)
    module = ModuleType('mmaction.models.localizers.drn.drn')
    module.DRN = refuse
    sys.modules[module.__name__] = module


def leave_out_vindlu() -> None:
    """Make ``mmaction.models`` importable with transformers 5 and without timm.

    MMAction2 imports VindLU wherever transformers is installed; VindLU needs timm (undeclared,
    and it would pull torchvision and another torch) and names gone from transformers 5, which this
    package needs. Where transformers is absent MMAction2 registers placeholders; here it does so
    too. Needless with a release after 1.2.0, which is left alone.
    """
    import mmaction
    from mmaction.utils import dependency
    from mmengine.utils import digit_version

    if digit_version(mmaction.__version__) <= digit_version('1.2.0'):
        dependency.WITH_MULTIMODAL = False


def allow_checkpoint_classes() -> None:
    """Let ``torch.load(weights_only=True)`` read what an MMEngine checkpoint holds.

    https://github.com/open-mmlab/mmengine/issues/1655. Allow-listed are stand-ins that take plain
    data (`mmn_plugin.safe_pickle.checkpoint_globals`), of which MMEngine's loader then makes numpy
    arrays; anything else is refused, with one message. ``load_url`` would switch the protection off
    (torch.hub's default), so it is told not to. Needless with a release of MMEngine after 0.10.7
    whose checkpoints hold plain data alone.
    """
    import torch
    from mmengine.runner import checkpoint

    torch.serialization.add_safe_globals(checkpoint_globals())
    checkpoint.load_url = partial(checkpoint.load_url, weights_only=True)

    stock = checkpoint.CheckpointLoader.load_checkpoint.__func__
    damaged = (pickle.UnpicklingError, struct.error, EOFError, RuntimeError)
    damaged += (AttributeError, LookupError, TypeError, ValueError)

    @wraps(stock)
    def load_checkpoint(cls, filename, map_location=None, logger='current'):
        try:
            return plain_arrays(stock(cls, filename, map_location, logger))
        except damaged as error:
            if type(error) is RuntimeError and 'PytorchStreamReader' not in str(error):
                raise
            found = re.search(r"(?:GLOBAL|got <class|asks for) '?([\w.]+)", str(error))
            raise CheckpointRefusedError(
                f'{filename} was not loaded: it holds a {found[1]}, and loading such an object '
                'could run foreign code. A checkpoint holds tensors and plain data; if you trust '
                "the file, re-save its 'state_dict' alone"
                if found
                else f'{filename} is damaged or no PyTorch checkpoint; make it or download it again'
            ) from None

    checkpoint.CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)


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
    editable install. Here our prefix, and nothing else, becomes the path of the file.
    ``from mmn_plugin.configs.NAME import *`` under ``read_base()`` reads the same text-style file.
    Needless with a release of MMEngine after 0.10.7 that takes packages by an entry point.
    """
    from mmengine.config import Config, config

    def with_own_names(stock):
        @wraps(stock)
        def resolve(name, *args, **kwargs):
            package, _, path = str(name).partition('::')
            return stock(
                str(find_config(path)) if path and package == 'mmn_plugin' else name,
                *args,
                **kwargs,
            )

        return staticmethod(resolve)

    parse_lazy, installed_path = Config._parse_lazy_import, config.get_installed_path

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

    Config._get_cfg_path = with_own_names(Config._get_cfg_path)
    Config.fromfile = with_own_names(Config.fromfile)
    Config._parse_lazy_import = staticmethod(own_parse_lazy)
    config.get_installed_path = own_installed_path


CURES: tuple[Callable[[], None], ...] = (
    require_mmcv,
    complete_grammar_caches,
    quiet_known_warnings,
    stand_in_for_drn,
    leave_out_vindlu,
    allow_checkpoint_classes,
    distribute_on_cpu,
    write_test_results_once,
    resolve_own_configs,
)


def apply() -> None:
    """Apply every cure.

    The environment variable ``MMN_PLUGIN_WITHOUT`` (names of :data:`CURES`, comma-separated)
    leaves some out. It is private, for the tests that show that a cure is still needed.
    """
    left_out = os.environ.get('MMN_PLUGIN_WITHOUT', '').split(',')
    for cure in CURES:
        if cure.__name__ not in left_out:
            cure()
