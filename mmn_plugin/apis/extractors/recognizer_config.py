"""What an extractor takes from a recogniser's config."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

FRAME_STEPS = ('Resize', 'CenterCrop')
CROPS = ('ThreeCrop', 'TenCrop')  # several views, of which the middle one is taken


class RecognizerConfig:
    """Model, sampling and preparation of frames of a recogniser.

    Args:
        config (str | dict): A path, ``mmaction::`` and a path below MMAction2's ``configs``, or the
            config itself.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no model.
    """

    def __init__(self, config: str | Path | dict) -> None:
        self.name = 'the recogniser'
        if isinstance(config, str | Path):
            path = _find(str(config))
            self.name = path.stem
            config = Config.fromfile(path)
        self._config = config
        if 'model' not in config or 'backbone' not in config['model']:
            raise ValueError(
                f'{self.name}: the config has no `model` with a `backbone`, so that '
                'it is no recogniser'
            )
        model = config['model']
        self.model = model.to_dict() if hasattr(model, 'to_dict') else dict(model)

    @property
    def format_shape(self) -> str:
        """``'NCHW'`` (frames) or ``'NCTHW'`` (clips)."""
        preprocessor = self.model.get('data_preprocessor') or {}
        return preprocessor.get('format_shape', 'NCHW')

    def sampling(self, clip_len: int | None, frame_interval: int | None) -> tuple[int, int]:
        """Clip length and frame interval, as given or as in the config.

        Raises:
            ValueError: If the config does not tell them: where it takes single frames from
                segments of a whole video.
        """
        if clip_len and frame_interval:
            return clip_len, frame_interval
        step = next((step for step in self._pipeline() if step['type'] == 'SampleFrames'), {})
        if step.get('clip_len', 1) == 1:
            raise ValueError(
                f'{self.name} samples no clips: give the extractor clip_len and frame_interval'
            )
        return clip_len or step['clip_len'], frame_interval or step.get('frame_interval', 1)

    def frame_steps(self) -> list[dict]:
        """The transforms that scale and crop a frame."""
        steps = []
        for step in self._pipeline():
            if step['type'] in CROPS:
                steps.append(dict(type='CenterCrop', crop_size=step['crop_size']))
            elif step['type'] in FRAME_STEPS:
                steps.append(dict(step))
        if not steps:
            raise ValueError(
                f'{self.name} neither scales nor crops frames in its validation '
                'pipeline: give the extractor a pipeline'
            )
        return steps

    def _pipeline(self) -> list[dict]:
        return next(self._pipelines(), [])

    def _pipelines(self) -> Iterator[list[dict]]:
        for loader in ('val_dataloader', 'test_dataloader'):
            dataset = (self._config.get(loader) or {}).get('dataset') or {}
            if dataset.get('pipeline'):
                yield dataset['pipeline']


def _find(name: str) -> Path:
    package, separator, rest = name.partition('::')
    if not separator:
        path = Path(name)
    elif package == 'mmaction':
        import mmaction

        root = Path(mmaction.__file__).parent
        # an installed package, or a checkout of MMAction2
        path = next(
            (
                folder / 'configs' / rest
                for folder in (root / '.mim', root.parent)
                if (folder / 'configs').is_dir()
            ),
            root / '.mim' / 'configs' / rest,
        )
    else:
        raise FileNotFoundError(f'{name}: only mmaction:: can be named so; give a path')
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob('*.py'))[:20]
        raise FileNotFoundError(
            f'there is no recogniser config {name} (in {path.parent}: '
            f'{", ".join(beside) or "none"})'
        )
    return path
