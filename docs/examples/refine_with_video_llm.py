"""Find moments in a video, and let a video LLM of transformers refine them.

    python docs/examples/refine_with_video_llm.py VIDEO "a person opens the door" \\
        --model zero_shot_siglip2 --llm HuggingFaceTB/SmolVLM-Instruct

The model of mmn_plugin finds the places in the whole video; the LLM then looks at some frames of
each clip, as images with their times, and says when the moment begins and ends. Any model that
AutoModelForImageTextToText loads and that takes several images will do. SmolVLM-Instruct (2.2
billion parameters, Apache 2.0) needs no torchvision, which the processors of some others ask for.
"""

import argparse
import re
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.features import probe_video, sample_frames

TIME = r'(?:\d+:)?\d+(?:\.\d+)?'  # 7, 7.5, 1:07.5
# 3.5 - 7, from 3.5 s to 7 s; \u2013 is a dash
SPAN = re.compile(rf'({TIME})\s*(?:s|sec|seconds?)?\s*(?:-|\u2013|to|and|until|,)\s*({TIME})')
QUESTION = (
    'These are frames of a clip of {duration:.1f} s, each with its time. When does this happen: '
    '"{sentence}"? Answer as START - END in seconds, or none.'
)


def seconds_of(time: str) -> float:
    """Seconds of ``7.5`` or ``1:07.5``."""
    minutes, _, seconds = time.rpartition(':')
    return 60 * int(minutes or 0) + float(seconds)


def read_span(answer: str) -> tuple[float, float] | None:
    """Start and end in seconds from the model's words; None where it says that there is none.

    Raises:
        ValueError: If the words are neither.
    """
    found = SPAN.search(answer)
    if found is not None:
        return seconds_of(found[1]), seconds_of(found[2])
    if re.search(r'\bnone\b', answer, re.IGNORECASE):
        return None
    raise ValueError(f'the model answered {answer!r}, which is no span')


class VideoLLM:
    """Says when a sentence happens in a short clip: `refine` of ``GroundingInferencer.candidates``.

    Args:
        name (str): A model of Hugging Face, or its folder.
        frames (int): Frames of a clip that it sees. Defaults to 12.
        height (int): Pixels that frames are scaled to. Defaults to 384.
        device (str): Defaults to ``'cpu'``.
        **processor: Settings of its processor, such as ``do_image_splitting=False`` of SmolVLM,
            which otherwise cuts each picture into many.
    """

    def __init__(
        self, name: str, frames: int = 12, height: int = 384, device: str = 'cpu', **processor
    ) -> None:
        self.frames, self.height = frames, height
        self.processor = AutoProcessor.from_pretrained(name, **processor)
        model = AutoModelForImageTextToText.from_pretrained(name, dtype='auto')
        self.model = model.to(device).eval()

    def __call__(self, clip: Path, sentence: str) -> tuple[float, float, float] | None:
        """Start and end in seconds of the clip, and the mean probability of the answer's tokens."""
        answer, score = self.answer(self.prompt(clip, sentence))
        span = read_span(answer)
        return None if span is None else (*span, score)

    def prompt(self, clip: Path, sentence: str) -> list[dict]:
        """The frames, each after its time, and the question, as chat templates take them."""
        duration = probe_video(clip).duration
        content = []
        for place, frame in enumerate(sample_frames(clip, self.frames, self.height)):
            time = (place + 0.5) / self.frames * duration
            content.append(dict(type='text', text=f'{time:.1f} s: '))
            content.append(dict(type='image', image=Image.fromarray(frame)))
        question = QUESTION.format(duration=duration, sentence=sentence)
        return [dict(role='user', content=[*content, dict(type='text', text=question)])]

    @torch.inference_mode()
    def answer(self, messages: list[dict], longest: int = 32) -> tuple[str, float]:
        """The model's words, of at most ``longest`` tokens, and their mean probability."""
        inputs = self.processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors='pt',
        ).to(self.model.device, self.model.dtype)
        given = dict(max_new_tokens=longest, do_sample=False)
        given |= dict(output_scores=True, return_dict_in_generate=True)
        output = self.model.generate(**inputs, **given)
        logits = self.model.compute_transition_scores(
            output.sequences, output.scores, normalize_logits=True
        )
        tokens = output.sequences[0, inputs['input_ids'].shape[1] :]
        words = self.processor.decode(tokens, skip_special_tokens=True)
        return words, float(logits[0].double().mean().exp())


def main() -> None:
    """Print the candidates of a sentence, before and after the LLM."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('video')
    parser.add_argument('sentence')
    parser.add_argument('--model', help='a name of model-index.yml, or a config')
    parser.add_argument('--checkpoint')
    parser.add_argument('--llm', default='HuggingFaceTB/SmolVLM-Instruct')
    parser.add_argument('--out', default='clips')
    args = parser.parse_args()
    inferencer = GroundingInferencer(args.model, args.checkpoint)
    encoded = inferencer.encode(args.video)  # once
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    llm = VideoLLM(args.llm, device=device, do_image_splitting=False)
    for refine in (None, llm):
        for one in inferencer.candidates(
            args.video, args.sentence, out_dir=args.out, refine=refine, encoded=encoded
        ):
            print(f'{one.start:.2f} - {one.end:.2f} s, {one.score:.2f}', one.problem or '')


if __name__ == '__main__':
    main()
