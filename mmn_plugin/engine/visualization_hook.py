"""Pictures while validating and testing."""

from pathlib import Path

from mmaction.registry import HOOKS
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.visualization import Visualizer
from torch import Tensor

from mmn_plugin.datasets import TubeError
from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.features import VIDEO_SUFFIXES, VideoReadError, sample_frames
from mmn_plugin.files import OutputError, OutputFolder, UniqueNames, input_of
from mmn_plugin.structures import GroundingDataSample, TubeDataSample
from mmn_plugin.visualization import GroundingVisualizer

from .dist import bare_model


@HOOKS.register_module()
class GroundingVisualizationHook(Hook):
    """Draw timelines and moment maps, or tubes, while validating and testing.

    Every ``interval``-th video of the dataset is drawn, counted over all ranks, so that each
    validation shows the same ones. In a distributed run the back ends get those that fall to the
    first rank; files (``out_dir``) are written by all ranks. Nothing of the run is changed: the
    scores of all moments, which curve and maps show, are computed a second time for these videos.

    Of tubes there is one picture of each video, with a row of frames per sentence; without the
    video boxes are drawn on gray.

    Args:
        interval (int): One of how many videos. Defaults to 50.
        max_videos (int, optional): At most so many of each validation or test and rank. Defaults
            to 4; None sets no limit.
        top_n (int): Predicted moments per sentence. Defaults to 3.
        max_sentences (int): Sentences on a picture; further ones are counted or left
            out. Defaults to 6.
        max_maps (int): Moment maps of a video, of its first sentences. Defaults to 1.
        video_dir (str, optional): Folder with the videos (``VIDEO_ID.mp4`` and so on), for
            thumbnails. Defaults to None: no thumbnails.
        out_dir (str, optional): Write files here instead of giving pictures to the visualizer's
            back ends; files that are not this hook's are not replaced (see `OutputFolder`).
            Defaults to None.

    Raises:
        ValueError: If a number is too small.
        OutputError: If ``out_dir`` cannot be written into; when a test or validation begins, if it
            holds other files of the pictures' names.
        NotADirectoryError: If ``video_dir`` is no folder.
    """

    priority = 'LOW'  # after whatever looks at the outputs themselves

    def __init__(
        self,
        interval: int = 50,
        max_videos: int | None = 4,
        top_n: int = 3,
        max_sentences: int = 6,
        max_maps: int = 1,
        video_dir: str | None = None,
        out_dir: str | None = None,
    ) -> None:
        least = dict(interval=1, top_n=1, max_sentences=1, max_maps=0)
        for name, value in zip(least, (interval, top_n, max_sentences, max_maps), strict=True):
            if value < least[name]:
                raise InputError(
                    f'GroundingVisualizationHook.{name}={value}; it must be at least {least[name]}'
                )
        if video_dir is not None and not Path(video_dir).is_dir():
            raise MissingFileError(
                f'the folder {video_dir} with videos does not exist; leave it '
                'out to draw without thumbnails'
            )
        self.interval, self.max_videos = interval, max_videos
        self.top_n, self.max_sentences, self.max_maps = top_n, max_sentences, max_maps
        self.video_dir = video_dir
        self._folder = None if out_dir is None else OutputFolder(out_dir)
        self._names = UniqueNames()  # of pictures that back ends get
        self._dataset = ''
        self._seen = self._drawn = 0

    def before_val_epoch(self, runner) -> None:
        """Count anew, and claim the files that are due, as far as the dataset tells."""
        self._start(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner) -> None:
        """As before a validation."""
        self._start(runner.test_dataloader.dataset)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """List what was written."""
        if self._folder is not None:
            self._folder.finish()

    after_test_epoch = after_val_epoch

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Draw what is due of a batch of validation."""
        step = runner.epoch if runner.log_processor.by_epoch else runner.iter
        self._draw_batch(runner, data_batch, outputs, 'val', step)

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Draw what is due of a batch of a test."""
        self._draw_batch(runner, data_batch, outputs, 'test', 0)

    def _start(self, dataset) -> None:
        self._seen = self._drawn = 0
        if self._folder is None or not hasattr(dataset, 'get_data_info'):
            return
        self._dataset = input_of(getattr(dataset, 'ann_file', ''))
        due = range(0, len(dataset), self.interval)
        sources = [self._source(dataset.get_data_info(i)['video_id']) for i in due]
        kinds = ('timeline', 'tubes', *(f'map{i + 1}' for i in range(self.max_maps)))
        all_files, mine = {}, {}
        for i, name, (source, _) in zip(due, self._folder.names_of(sources), sources, strict=True):
            files = {f'{name}_{kind}.png': source for kind in kinds}
            all_files |= files
            mine |= files if i % get_world_size() == get_rank() else {}
        self._folder.claim(all_files)  # all ranks end alike
        self._folder.begin(mine)

    def _source(self, video_id: str) -> tuple[str, str]:
        return f'{self._dataset}::{video_id}', video_id

    def _draw_batch(self, runner, data_batch, outputs, mode: str, step: int) -> None:
        for place, sample in enumerate(outputs or ()):
            index = self._seen * get_world_size() + get_rank()  # as the samplers deal them out
            self._seen += 1
            full = self.max_videos is not None and self._drawn >= self.max_videos
            if index % self.interval or full or not sample.sentences:
                continue
            if self._folder is None and get_rank():
                continue  # its back ends would throw the picture away
            self._drawn += 1
            self._draw(runner, data_batch['inputs'][place], sample, mode, step)

    def _draw(
        self, runner, inputs: Tensor, sample: GroundingDataSample, mode: str, step: int
    ) -> None:
        visualizer = runner.visualizer
        if not isinstance(visualizer, GroundingVisualizer):
            visualizer = GroundingVisualizer()  # draws; whose back ends get it, `_keep` knows
        path = self._find_video(runner, sample.video_id)
        if isinstance(sample, TubeDataSample):
            try:
                image = visualizer.draw_tubes(sample, path, self.max_sentences)
            except (VideoReadError, TubeError) as error:
                runner.logger.warning(f'drawn without the video: {error}')
                image = visualizer.draw_tubes(sample, None, self.max_sentences)
            self._keep(runner, image, sample.video_id, 'tubes', mode, step)
            return
        frames = None
        try:
            frames = path and sample_frames(path)
        except VideoReadError as error:
            runner.logger.warning(f'drawn without thumbnails: {error}')
        model = bare_model(runner)
        grid = model.head.moment_map
        video, scores = model.score_sample(inputs, sample)
        curves, scores = model.head.curve(video, scores), scores.cpu()
        image = visualizer.draw_timeline(
            sample, frames, self.top_n, max_sentences=self.max_sentences, curves=curves
        )
        self._keep(runner, image, sample.video_id, 'timeline', mode, step)
        for i, sentence in enumerate(sample.sentences[: self.max_maps if grid is not None else 0]):
            truth = sample.windows[i] if 'gt_instances' in sample else None
            image = visualizer.draw_moment_map(
                grid,
                scores[i],
                truth,
                sample.pred_instances.moments[i][: self.top_n],
                duration=sample.duration,
                title=f'“{sentence}”',
            )
            self._keep(runner, image, sample.video_id, f'map{i + 1}', mode, step)

    def _keep(self, runner, image, video_id: str, kind: str, mode: str, step: int) -> None:
        if self._folder is None:
            name = f'{mode}_{self._names.of(video_id, video_id)}_{kind}'
            # Visualizer's own method: the config may have another visualizer
            Visualizer.add_image(runner.visualizer, name, image, step)
            return
        source = self._source(video_id)
        (name,) = self._folder.names_of([source])
        file = f'{name}_{kind}.png'
        try:
            self._folder.begin({file: source[0]})  # unless it was known to be due
        except OutputError as error:
            runner.logger.warning(f'a picture of {video_id} is left out: {error}')
        else:
            GroundingVisualizer.save_image(image, self._folder.path / file)

    def _find_video(self, runner, video_id: str) -> Path | None:
        """A video's file, or None where there is none."""
        if self.video_dir is None:
            return None
        names = [video_id, *(video_id + suffix for suffix in VIDEO_SUFFIXES)]
        path = next((p for n in names if (p := Path(self.video_dir) / n).is_file()), None)
        if path is None:
            runner.logger.warning(
                f'no video {video_id} in {self.video_dir}: drawn without thumbnails'
            )
        return path
