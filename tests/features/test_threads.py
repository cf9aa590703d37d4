"""One extractor, or one inferencer with it, that several threads use at the same time.

Threads are brought together where they could disturb each other, so that nothing depends on luck.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import transformers
from helpers.tiny_extractors import write_recognizer, write_vision_model
from helpers.tiny_grounder import write_grounder, write_scene
from mmaction.registry import MODELS
from mmengine.registry import DefaultScope

from mmn_plugin import hub
from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.features import EXTRACTORS, recognizer

SENTENCES = ['a person opens the door', 'red box']
FRAMES = list(np.random.default_rng(0).integers(0, 255, (9, 48, 64, 3), dtype=np.uint8))


class Meeting:
    """A place where the first thread stays until a second one comes, or waits for its lock."""

    def __init__(self):
        self.threads, self._waiting = [], False
        self._changed = threading.Condition()

    def __call__(self, *_):
        with self._changed:
            if threading.get_ident() in self.threads:
                return
            self.threads.append(threading.get_ident())
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: len(self.threads) > 1 or self._waiting, 600), (
                'the other thread did not come'
            )

    def somebody_waits(self):
        with self._changed:
            self._waiting = True
            self._changed.notify_all()


class WatchedLock:
    """A lock that tells a meeting of whoever has to wait for it."""

    def __init__(self, lock, meeting):
        self.lock, self.meeting = lock, meeting

    def __enter__(self):
        if not self.lock.acquire(blocking=False):
            self.meeting.somebody_waits()
            self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()


def together(*works):
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(120) for future in [pool.submit(work) for work in works]]


@pytest.mark.parametrize('layer', [{}, dict(layer='cls_head.fc_cls', layer_input=True)])
def test_threads_get_the_features_of_their_own_videos(tmp_path, layer):
    settings = dict(write_recognizer(tmp_path / 'recognizer'), **layer)
    grounder = write_grounder(tmp_path, in_channels=32, extractor=settings)
    video = write_scene(tmp_path)
    inferencer = GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu')
    turned = np.stack(list(inferencer.extractor.reader(video)))[::-1].copy()

    def ask_file():
        return inferencer(video, SENTENCES)

    def ask_frames():
        return inferencer(turned, SENTENCES, fps=8.0)

    alone = [ask_file(), ask_frames()]
    assert alone[0] != alone[1]
    extractor, meeting = inferencer.extractor, Meeting()
    extractor._lock = WatchedLock(extractor._lock, meeting)
    modules = dict(extractor.model.named_modules())
    modules[extractor.layer].register_forward_hook(meeting)
    assert together(ask_file, ask_frames) == alone


def test_a_network_is_built_once_whoever_asks_first(tmp_path, monkeypatch):
    settings = write_recognizer(tmp_path)
    expected = EXTRACTORS.build(settings)(FRAMES)
    extractor, meeting = EXTRACTORS.build(settings), Meeting()
    extractor._lock = WatchedLock(extractor._lock, meeting)
    build = extractor.build_model
    monkeypatch.setattr(extractor, 'build_model', lambda: (meeting(), build())[1])
    identity, features = together(lambda: extractor.identity, lambda: extractor(FRAMES))
    assert len(meeting.threads) == 1
    assert identity == EXTRACTORS.build(settings).identity
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize(
    ('module', 'lock', 'write', 'loader', 'of_process'),
    [
        (
            recognizer,
            '_SCOPE_LOCK',
            write_recognizer,
            (MODELS, 'build'),
            lambda: getattr(DefaultScope.get_current_instance(), 'instance_name', None),
        ),
        (
            hub,
            '_QUIET_LOCK',
            write_vision_model,
            (transformers.ViTModel, 'from_pretrained'),
            lambda: (
                transformers.logging.get_verbosity(),
                transformers.logging.is_progress_bar_enabled(),
            ),
        ),
    ],
    ids=['MMAction2', 'Hugging Face'],
)
def test_what_belongs_to_the_process_is_as_before_when_two_threads_have_loaded(
    tmp_path, monkeypatch, module, lock, write, loader, of_process
):
    extractors = [EXTRACTORS.build(write(tmp_path / name)) for name in 'ab']
    meeting, one_left, load = Meeting(), threading.Event(), getattr(*loader)
    monkeypatch.setattr(module, lock, WatchedLock(getattr(module, lock), meeting))

    def meet_and_load(*what, **how):
        meeting()
        if threading.get_ident() in meeting.threads[1:]:  # leaves last
            assert one_left.wait(600)
        return load(*what, **how)

    def build(extractor):
        extractor.build_model()
        one_left.set()

    monkeypatch.setattr(*loader, meet_and_load)
    before = of_process()
    together(*(partial(build, extractor) for extractor in extractors))
    assert of_process() == before
