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


def save_tokenizer(folder: Path, kind: str, limit: int) -> None:
    """The tokenizer of a family with a small vocabulary."""
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    options = dict(model_max_length=limit)
    words = [('▁', -2.0), *((f'▁{word}', -1.0) for word in WORDS)]
    if kind in ('clip', 'xclip'):  # spells words in bytes
        letters = list(bytes_to_unicode().values())
        tokens = [*letters, *(f'{letter}</w>' for letter in letters)]
        tokens += ['<|startoftext|>', '<|endoftext|>']
        vocab = {token: place for place, token in enumerate(tokens)}
        tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[], **options)
    elif kind == 'siglip':  # spells words in letters
        tokens = ['<pad>', '<eos>', '<bos>', '<unk>', '<mask>', '▁', *map(chr, range(97, 123))]
        vocab = {token: place for place, token in enumerate(tokens)}
        tokenizer = transformers.Siglip2Tokenizer(
            vocab=vocab, merges=[], padding_side='right', **options
        )
    elif kind == 'videoprism':
        vocab = [('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0), *words]
        tokenizer = transformers.VideoPrismTokenizer(vocab=vocab, extra_ids=0, **options)
    elif kind in ('altclip', 'metaclip_2'):
        vocab = [('<s>', 0.0), ('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0), *words]
        tokenizer = transformers.XLMRobertaTokenizer(vocab=[*vocab, ('<mask>', 0.0)], **options)
    else:
        return write_bert_tokenizer(folder, **options)
    tokenizer.save_pretrained(folder)


SIDE = 32
SIZE = dict(height=SIDE, width=SIDE)
LAYERS = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
LIMIT = 40
CLIP_TEXT = dict(vocab_size=514, bos_token_id=512, eos_token_id=513, pad_token_id=513)
VIDEO_PROCESSOR = dict(  # as VideoPrism's, whose class needs torchvision
    video_processor_type='LlavaOnevisionVideoProcessor',
    do_resize=True,
    size=SIZE,
    resample=3,
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=False,
)


def tiny_dual_model(kind: str):
    """A dual encoder of a family with random weights."""
    import transformers

    torch.manual_seed(0)
    vision = dict(LAYERS, image_size=SIDE, patch_size=16)
    text = dict(LAYERS, max_position_embeddings=LIMIT)
    if kind in ('clip', 'xclip'):
        name, text = dict(clip='CLIP', xclip='XCLIP')[kind], text | CLIP_TEXT
    elif kind == 'siglip':
        name, text = 'Siglip', dict(text, vocab_size=32, projection_size=16)
    elif kind == 'metaclip_2':
        name, text = 'MetaClip2', dict(text, vocab_size=32, eos_token_id=2, pad_token_id=1)
    elif kind == 'chinese_clip':
        name, text = 'ChineseCLIP', dict(text, vocab_size=len(BERT_TOKENS))
    elif kind == 'altclip':
        text = dict(text, vocab_size=32, project_dim=16, max_position_embeddings=LIMIT + 2)
        name, vision = 'AltCLIP', dict(vision, projection_dim=12)
    elif kind == 'videoprism':
        vision = dict(
            LAYERS, image_size=SIDE, num_frames=4, tubelet_size=[1, 16, 16],
            num_spatial_layers=1, num_temporal_layers=1, num_auxiliary_layers=1,
        )  # fmt: skip
        vision.pop('num_hidden_layers')
        name, text = 'VideoPrism', dict(text, vocab_size=32)
    if kind == 'xclip':
        mit = dict(mit_hidden_size=12, mit_intermediate_size=24, mit_num_attention_heads=2)
        vision = dict(vision, num_frames=4, **mit)
    sides = dict(vision_config=vision, text_config=text)
    if kind not in ('siglip', 'videoprism'):
        sides['projection_dim'] = 12
    config = getattr(transformers, f'{name}Config')(**sides)
    ending = 'ClipModel' if kind == 'videoprism' else 'Model'
    model = getattr(transformers, name + ending)(config)
    for weight in model.parameters():  # so that no output is the same for all inputs
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def write_dual_tower(folder: Path, kind: str, **processor) -> dict:
    """A dual encoder as a folder with its processor and tokenizer; the settings of its tower."""
    import transformers

    folder = Path(folder)
    tiny_dual_model(kind).save_pretrained(folder)
    save_tokenizer(folder, kind, LIMIT)
    if kind == 'videoprism':
        content = json.dumps(VIDEO_PROCESSOR | processor)
        (folder / 'video_preprocessor_config.json').write_text(content, encoding='utf-8')
    else:
        names = dict(siglip='Siglip', chinese_clip='ChineseCLIP')
        sizes = dict(size=SIZE) if kind in names else dict(size=dict(shortest_edge=SIDE))
        settings = sizes | dict(crop_size=SIZE) | processor
        if kind == 'siglip':
            settings.pop('crop_size')
        image = getattr(transformers, f'{names.get(kind, "CLIP")}ImageProcessorPil')(**settings)
        image.save_pretrained(folder)
    return dict(type='DualTower', model=str(folder), fps=4.0, stride=2, device='cpu')


def tiny_pe_video():
    """A PE-video model whose frames go through a ViT, since its own vision model needs timm."""
    import transformers

    torch.manual_seed(0)
    layers = dict(LAYERS, num_key_value_heads=2, head_dim=8)
    vision = transformers.ViTConfig(**LAYERS, image_size=SIDE, patch_size=16, num_labels=16)
    ids = dict.fromkeys(('pad_token_id', 'bos_token_id', 'eos_token_id'), 0)
    ids |= dict(cls_token_id=2, sep_token_id=3)
    text = dict(LAYERS, **ids, vocab_size=len(BERT_TOKENS), max_position_embeddings=LIMIT)
    config = transformers.PeVideoConfig(
        text_config=dict(text, model_type='modernbert'),
        video_config=transformers.PeVideoEncoderConfig(vision_config=vision, **layers),
    )
    return transformers.PeVideoModel(config).eval()


def write_pe_video(folder: Path) -> dict:
    """The model as a folder with its processor and tokenizer; the settings of its tower."""
    tiny_pe_video().save_pretrained(folder)
    write_bert_tokenizer(Path(folder), model_max_length=8)
    settings = VIDEO_PROCESSOR | dict(video_processor_type='PeVideoVideoProcessor', resample=2)
    (Path(folder) / 'video_preprocessor_config.json').write_text(json.dumps(settings))
    return dict(type='DualTower', model=str(folder), fps=4.0, stride=2, device='cpu')
