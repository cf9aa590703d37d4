"""Build a WordPiece vocabulary from annotation files, to train a text encoder from scratch.

For example ``tools/data/build_vocabulary.py data/mine/train.json --out data/mine/vocab.txt``.
"""

import argparse

from mmn_plugin.errors import plain_errors
from mmn_plugin.files import writable_file
from mmn_plugin.shapes import build_vocabulary
from mmn_plugin.structures.annotations import read_annotations


def main() -> None:
    """Read the sentences and write one token per line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', nargs='+', help='annotation files of the training split')
    parser.add_argument('--out', type=writable_file, required=True, help='file to write')
    args = parser.parse_args()
    with plain_errors():
        sentences = [
            sentence
            for path in args.annotations
            for video in read_annotations(path)
            for sentence in video.sentences
        ]
        tokens = build_vocabulary(sentences)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text('\n'.join(tokens) + '\n', encoding='utf-8')
    print(f'{args.out}: {len(tokens)} tokens from {len(sentences)} sentences')


if __name__ == '__main__':
    main()
