"""Writes data/mine/: a few videos with made-up features and a table of sentences per split."""

import csv
from pathlib import Path

import h5py
import numpy as np

folder = Path('data/mine')
folder.mkdir(parents=True, exist_ok=True)
words = ['a', 'person', 'opens', 'closes', 'the', 'door', 'box']
tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words]
(folder / 'vocab.txt').write_text('\n'.join(tokens) + '\n')

rng = np.random.default_rng(0)
with h5py.File(folder / 'features.h5', 'w') as features:
    for split, count in (('train', 8), ('val', 4), ('test', 4)):
        with open(folder / f'{split}.csv', 'w', newline='') as file:
            table = csv.writer(file)
            table.writerow(['video', 'duration', 'start', 'end', 'sentence'])
            for index in range(count):
                video = f'{split}_{index}'
                features[video] = rng.standard_normal((40, 12)).astype('float32')  # (T, D)
                table.writerow([video, 30.0, 2.0, 9.5, 'a person opens the door'])
                table.writerow([video, 30.0, 12.0, 20.0, 'the person closes a box'])
