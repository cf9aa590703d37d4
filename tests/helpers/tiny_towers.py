"""Towers of a few channels with random weights, as folders that `save_pretrained` leaves."""

import json
from pathlib import Path

import torch

WORDS = [
    'a',
    'man',
    'opens',
    'the',
    'door',
    'and',
    'leaves',
    'dog',
    'runs',
    'red',
    'ball',
    'is',
    'what',
    'does',
    'video',
    'of',
]
BERT_TOKENS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *WORDS, ',', '?', '!']


def write_bert_tokenizer(folder: Path, **options) -> None:
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / 'vocab.txt'
    file.write_text('\n'.join(BERT_TOKENS) + '\n', encoding='utf-8')
    vocab = {token: place for place, token in enumerate(BERT_TOKENS)}
    transformers.BertTokenizer(vocab=vocab, **options).save_pretrained(folder)


def write_text_tower(folder: Path, pooling: str = 'mean', limit: int = 10, **files) -> str:
    """A BERT as sentence-transformers publishes its models; ``files`` replace the JSON in them."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(BERT_TOKENS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    write_bert_tokenizer(folder, model_max_length=16)
    kinds = {'': 'Transformer', '1_Pooling': 'Pooling', '2_Normalize': 'Normalize'}
    kept = {
        'modules.json': [
            dict(idx=place, name=str(place), path=path, type=f'sentence_transformers.models.{kind}')
            for place, (path, kind) in enumerate(kinds.items())
        ],
        '1_Pooling/config.json': {
            f'pooling_mode_{kind}': kind.startswith(pooling)
            for kind in ('cls_token', 'mean_tokens', 'max_tokens', 'mean_sqrt_len_tokens')
        },
        'sentence_bert_config.json': dict(max_seq_length=limit, do_lower_case=False),
    }
    kept['1_Pooling/config.json']['pooling_mode_mean_sqrt_len_tokens'] = pooling == 'sqrt'
    for file, content in (kept | files).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content), encoding='utf-8')
    return str(folder)
