"""Files that show what a search found."""

from mmn_plugin.library import Hit, answers


def test_chapters_of_two_videos_whose_names_become_one_are_two_files(tmp_path):
    hits = [Hit(name, '', 1.0, 2.0, 0.5, None, 9.0) for name in ('a/b', 'a_b')]
    files = answers.write_chapters(tmp_path / 'hits.vtt', ['a red box'], [hits])
    assert [file.name for file in files] == ['hits.a_b.vtt', 'hits.a_b-2.vtt']
    assert all('a red box' in file.read_text() for file in files)
