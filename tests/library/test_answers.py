"""Files that show what a search found, and what it finds of videos that were embedded elsewhere."""

from helpers.tiny_zero_shot import UNRELATED, video_showing, write_zero_shot_config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.library import Hit, MomentLibrary, answers


def test_chapters_of_two_videos_whose_names_become_one_are_two_files(tmp_path):
    hits = [Hit(name, '', 1.0, 2.0, 0.5, None, 9.0) for name in ('a/b', 'a_b')]
    files = answers.write_chapters(tmp_path / 'hits.vtt', ['a red box'], [hits])
    assert [file.name for file in files] == ['hits.a_b.vtt', 'hits.a_b-2.vtt']
    assert all('a red box' in file.read_text() for file in files)


def test_videos_that_are_embedded_elsewhere_can_be_added(tmp_path, monkeypatch):
    from helpers.stub_tower import StubTower

    monkeypatch.setattr(StubTower, 'copy_files', lambda self, folder: None, raising=False)
    config = write_zero_shot_config(tmp_path / 'zero_shot.py', tmp_path)
    model = GroundingInferencer(config, device='cpu')
    library = MomentLibrary.create(tmp_path / 'LIB', model)
    shown = UNRELATED[::5]
    videos = [
        model.encode(video_showing(sentence, 4, 12, seed=place), 16.0, video_id=sentence)
        for place, sentence in enumerate(shown)
    ]
    library.add_encoded(videos, {shown[0]: '/videos/kitchen/a.mp4'})
    for sentence, hits in zip(shown, library.search(shown, top=3), strict=True):
        assert isinstance(hits[0], Hit)
        assert hits[0].video_id == sentence
    assert library.search(shown[1], where="folder = 'kitchen'", group='video')[0][0].path == (
        '/videos/kitchen/a.mp4'
    )
