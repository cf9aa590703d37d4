"""What the package wandb wrote in a run with WANDB_MODE=offline."""

import json
import struct
from pathlib import Path

BLOCK, HEADER = 32768, 7


def records(folder: Path) -> list:
    """All of a run's records (protocol buffers), in order; ``folder`` is ``offline-run-*``."""
    from wandb.proto.wandb_internal_pb2 import Record

    [path] = folder.glob('*.wandb')
    found, whole = [], b''
    content, place = path.read_bytes(), HEADER
    while place + HEADER <= len(content):
        rest = BLOCK - place % BLOCK
        if rest < HEADER:  # a block ends in zeros where no further header fits
            place += rest
            continue
        # LevelDB's log: checksum, length, and 1 whole, 2 first, 3 middle, 4 last part of a record
        _, length, kind = struct.unpack_from('<IHB', content, place)
        whole += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):
            found.append(Record.FromString(whole))
            whole = b''
    return found


def values(items) -> dict:
    """The values of one line of a history, or of a config, by their names."""
    return {item.key or '/'.join(item.nested_key): json.loads(item.value_json) for item in items}
