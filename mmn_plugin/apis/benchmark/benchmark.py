"""A benchmark of one config and task, from settings to figures."""

from collections.abc import Callable
from dataclasses import replace

from .benchmark_settings import BenchmarkSettings
from .data_task import DataTask
from .eval_task import EvalTask
from .interleave import current_device, interleave, median, ratio, spread
from .model_task import ModelTask
from .peak_memory import can_measure, peak_of
from .predict_task import PredictTask
from .subject import Subject
from .text_task import TextTask
from .train_task import TrainTask

TASKS = dict(train=TrainTask, test=PredictTask, data=DataTask, eval=EvalTask, text=TextTask)


class Benchmark:
    """Times a task's subjects in turns with the machine's peaks, then profiles and weighs them.

    Args:
        task (str): ``train``, ``test``, ``data``, ``eval`` or ``text``.
        settings (BenchmarkSettings): What to run.
        repeats (int): Timed rounds. Defaults to 5.
        warmup (int): Rounds before. Defaults to 1.
        memory (bool): Measure the peak memory of model steps. Defaults to True.
        profile (bool): Measure the share of each phase. Defaults to True.
        say (Callable): Told of the progress. Defaults to nothing.
    """

    def __init__(
        self,
        task: str,
        settings: BenchmarkSettings,
        repeats: int = 5,
        warmup: int = 1,
        memory: bool = True,
        profile: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.settings = settings
        self.repeats, self.warmup = repeats, warmup
        self.with_memory = memory and can_measure(settings.device)
        self.with_profile = profile
        self.say = say
        with current_device(settings.device):
            self.task = TASKS[task](settings)

    def run(self) -> dict:
        """Measure everything.

        Returns:
            dict: ``rows`` (one per subject), ``machine`` (the peaks), ``phases`` (seconds of
            each phase by variant) and, of the data task, ``step_seconds``.
        """
        with current_device(self.settings.device):
            return self._run()

    def _run(self) -> dict:
        subjects, probes = self.task.subjects(), self.task.probes()
        interleave([*subjects, *probes], self.repeats, self.warmup, self.settings.device, self.say)
        result = dict(
            rows=[self.row(subject, subjects) for subject in subjects],
            machine=[self.peak(probe, probes) for probe in probes],
            phases=self.phases(),
        )
        if isinstance(self.task, ModelTask):
            self.add_encoder(result)
            self.add_memory(result)
        if isinstance(self.task, DataTask):
            self.add_waiting(result)
        return result

    @staticmethod
    def row(subject: Subject, subjects: list[Subject]) -> dict:
        """Figures of one subject, compared with the first of its group."""
        first = next(other for other in subjects if other.group == subject.group)
        seconds = median(subject.seconds)
        return dict(
            group=subject.group,
            name=subject.name,
            seconds=seconds,
            spread=spread(subject.seconds),
            ratio=ratio(subject, first),
            all_seconds=list(subject.seconds),
            videos=subject.videos,
            sentences=subject.sentences,
            videos_per_second=subject.videos / seconds,
            sentences_per_second=subject.sentences / seconds,
            **subject.about,
        )

    @staticmethod
    def peak(probe: Subject, probes: list[Subject]) -> dict:
        """What the machine reaches, compared with the first precision of the same kind."""
        kind = probe.about['probe']
        first = next(other for other in probes if other.about['probe'] == kind)
        seconds = median(probe.seconds)
        return dict(
            name=probe.name,
            seconds=seconds,
            spread=spread(probe.seconds),
            ratio=ratio(probe, first),
            flops_per_second=probe.about['flops'] / seconds,
            **probe.about,
        )

    def phases(self) -> dict[str, dict[str, float]]:
        """Seconds of each phase, in steps of their own."""
        if not self.with_profile:
            return {}
        if isinstance(self.task, EvalTask):
            return {'evaluation': self.task.profile()}
        if not isinstance(self.task, ModelTask):
            return {}
        result = {}
        for variant in self.settings.variants:
            self.say(f'profiling {variant}')
            result[str(variant)] = self.task.profile(variant)
        return result

    def add_encoder(self, result: dict) -> None:
        """Operations per second of the encoder's convolutions, from the profiled steps.

        The encoder's time holds its normalisation too; so this is a lower bound.
        """
        size = self.settings.batch_size
        for row in result['rows']:
            seconds = result['phases'].get(row['name'])
            if seconds and row['videos'] == size:
                time = seconds['encoder'] + seconds.get('encoder backward', 0.0)
                row['encoder_flops_per_second'] = row['encoder_flops'] / time
                for peak in result['machine']:
                    if peak['dtype'] == row['dtype']:
                        row[f'of_{peak["probe"]}_peak'] = (
                            row['encoder_flops_per_second'] / peak['flops_per_second']
                        )

    def add_memory(self, result: dict) -> None:
        """Peak memory of a step, each variant in a process of its own."""
        for variant in self.settings.variants if self.with_memory else ():
            self.say(f'measuring the memory of {variant}')
            size = self.settings.batch_size
            peak = peak_of(
                type(self.task).prepare,
                replace(self.settings),
                variant,
                device=self.settings.device,
            )
            for row in result['rows']:
                if row['name'] == str(variant) and row['videos'] == size:
                    row['peak_mb'] = peak

    def add_waiting(self, result: dict) -> None:
        """How long a training waits for its data."""
        result['step_seconds'] = step = self.task.measure_step()
        result['source'] = self.task.source
        for row, cache in zip(result['rows'], self.task.loaders, strict=True):
            self.say(f'training with {row["name"]}')
            row['seconds_per_batch'] = row['seconds'] / row['batches']
            row['waiting'] = self.task.waiting(cache, step)
