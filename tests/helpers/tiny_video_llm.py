"""A video LLM of a few channels that says what it is told to, in the format of transformers."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

SPECIAL = ['<fake_token_around_image>', '<image>', '<end_of_utterance>', '<global-img>']
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    '{% endfor %}<end_of_utterance>{% endfor %}'
)


def processor_of(answers: list[str]) -> Idefics3Processor:
    """A processor whose tokens are whole answers; every other word is unknown."""
    rows = [f'<row_{i}_col_{j}>' for i in range(1, 7) for j in range(1, 7)]
    words = ['<unk>', '<pad>', '<s>', '</s>', *SPECIAL, *rows, *answers]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token='<unk>')
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token='<unk>',
        pad_token='<pad>',
        bos_token='<s>',
        eos_token='</s>',
        additional_special_tokens=[*SPECIAL, *rows],
    )
    size = dict(longest_edge=28)
    images = Idefics3ImageProcessorPil(size=size, max_image_size=size, do_image_splitting=False)
    return Idefics3Processor(images, fast, image_seq_len=1, chat_template=TEMPLATE)


def write_video_llm(folder: Path, *answers: str, seed: int = 0) -> Path:
    """A folder of `save_pretrained`: random weights, but for an output that has two words alone.

    The second word's logit is the first one's with the other sign, so that one of both is always
    the likeliest, whatever the model has seen.
    """
    processor = processor_of(list(answers))
    tokenizer = processor.tokenizer
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    special = dict(pad_token_id=1, bos_token_id=2, eos_token_id=3)
    text = dict(model_type='llama', num_key_value_heads=2, vocab_size=len(tokenizer))
    config = Idefics3Config(
        vision_config=dict(sizes, image_size=28, patch_size=14),
        text_config=text | sizes | special,
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids('<image>'),
        pad_token_id=1,
    )
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(config)
    first, second = tokenizer.convert_tokens_to_ids(list(answers))
    with torch.no_grad():
        likeliest = torch.randn(16)
        model.lm_head.weight.zero_()
        model.lm_head.weight[first], model.lm_head.weight[second] = likeliest, -likeliest
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
