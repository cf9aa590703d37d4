"""Keys that stand twice, which JSON itself allows and whose last value it keeps."""

from functools import partial

import pytest

from mmn_plugin.datasets import TubeError, read_hcstvg_annotations, read_tracks
from mmn_plugin.evaluation import GroundingMetric, read_predictions, read_submission
from mmn_plugin.evaluation.predictions import PredictionsError
from mmn_plugin.structures.annotations import AnnotationError, read_annotations

READERS = {
    'annotations': (read_annotations, AnnotationError),
    'sentences': (partial(read_annotations, timed=False), AnnotationError),
    'predictions': (read_predictions, PredictionsError),
    'subsets': (lambda path: GroundingMetric(subsets=str(path)), ValueError),
    'submission': (read_submission, PredictionsError),
    'hcstvg': (read_hcstvg_annotations, TubeError),
    'tracks': (lambda path: read_tracks(path, 'a'), TubeError),
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"a": 1, "b": {}, "a": 2}', "'a' twice;"),
        ('{"b": [0, {"x": {"k": 1, "k": 1}}]}', "'k' twice, in 'b', 1, 'x';"),
        ('{"a": {"k": 1, "k": 2}, "a": {}}', "'a' twice;"),
        ('{"a": 1, "c": 1, "b": {}, "a": 2, "c": 2, "a": 3}', "'a', 'c' twice;"),
        (
            '{' + ', '.join(f'"{key}": 1' for key in 'abcdefgh' * 2) + '}',
            "'a', .* and 3 more twice;",
        ),
    ],
)
def test_a_key_that_stands_twice_is_named(tmp_path, reader, text, message):
    path = tmp_path / 'file.json'
    path.write_text(text)
    read, error = READERS[reader]
    with pytest.raises(error, match=rf'file\.json has {message}'):
        read(path)
