"""Opening the published pickles without running what is in them."""

import pickle
from pathlib import Path

from mmn_plugin.safe_pickle import RestrictedUnpickler

from .tube_error import TubeError


def load_pickle(path: str | Path, trust: bool = False):
    """Open a pickle.

    Args:
        path (str | Path): The file.
        trust (bool): Whether to let the file create objects of any class, which is to let it run
            any code with your rights. Defaults to False: arrays of numbers or strings, and plain
            containers, alone.

    Returns:
        object: Its content.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If the file is no pickle or, without ``trust``, holds anything else; the message
            names the class.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    try:
        with open(path, 'rb') as file:
            if trust:
                return pickle.Unpickler(file, encoding='latin1').load()
            return RestrictedUnpickler(file).load()
    except Exception as error:  # a damaged file fails in many ways
        if str(error).startswith('it asks for') and isinstance(error, pickle.UnpicklingError):
            raise TubeError(
                f'{path} holds more than arrays and plain containers: {error}. Opening that runs '
                'code of the file; if you know where the file comes from and trust it, give '
                '--trust-pickle'
            ) from error
        raise TubeError(
            f'{path} is not a pickle, or it is damaged ({type(error).__name__}: {error})'
        ) from error
