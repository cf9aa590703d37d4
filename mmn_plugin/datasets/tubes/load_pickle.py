"""Opening the published pickles without running what is in them."""
import pickle
from pathlib import Path

from .tube_error import TubeError

# What arrays and plain containers are made of. Nothing here runs code of the file's choosing.
ALLOWED = {
    ('numpy', 'dtype'), ('numpy', 'ndarray'), ('collections', 'OrderedDict'),
    ('_codecs', 'encode'), ('builtins', 'set'), ('builtins', 'frozenset'),
    ('builtins', 'bytearray'), ('builtins', 'complex'),
    *((module, name) for package in ('numpy.core', 'numpy._core') for module, name in (
        (f'{package}.multiarray', '_reconstruct'), (f'{package}.multiarray', 'scalar'),
        (f'{package}.numeric', '_frombuffer'))),
}


class RestrictedUnpickler(pickle.Unpickler):
    """Reads arrays, numbers, strings and plain containers; refuses every other class by name."""

    def find_class(self, module: str, name: str):
        """Look a class up if it is allowed.

        Raises:
            pickle.UnpicklingError: If it is not; the message names it.
        """
        # Python 2 wrote __builtin__, which the base class would translate only later.
        allowed = (module.replace('__builtin__', 'builtins'), name)
        if allowed not in ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return super().find_class(module, name)


def load_pickle(path: str | Path, trust: bool = False):
    """Open a pickle.

    Args:
        path (str | Path): The file.
        trust (bool): Whether to let the file create objects of any class, which is to let it run
            any code with your rights. Defaults to False: arrays and plain containers alone.

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
    unpickler = pickle.Unpickler if trust else RestrictedUnpickler
    try:
        with open(path, 'rb') as file:
            # latin1 is what arrays need that Python 2 wrote
            return unpickler(file, encoding='latin1').load()
    except pickle.UnpicklingError as error:
        if 'it asks for' not in str(error):
            raise TubeError(f'{path} is not a pickle, or it is damaged: {error}') from error
        raise TubeError(
            f'{path} holds more than arrays and plain containers: {error}. Opening that runs code '
            'of the file; if you know where the file comes from and trust it, give '
            '--trust-pickle') from error
    except (EOFError, ValueError, TypeError, AttributeError, ImportError, IndexError,
            KeyError, MemoryError, OverflowError) as error:
        raise TubeError(f'{path} is not a pickle, or it is damaged '
                        f'({type(error).__name__}: {error})') from error
