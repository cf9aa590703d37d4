"""tools/analysis_tools/plot_logs.py."""

import json

from helpers.run_tool import run_tool


def write_log(folder):
    (folder / '20260101_000000/vis_data').mkdir(parents=True)
    lines = [dict(loss=1 / i, epoch=i, iter=i, step=i) for i in (1, 2, 3)]
    (folder / '20260101_000000/vis_data/scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    return folder


def plot(*arguments):
    return run_tool('analysis_tools/plot_logs.py', *arguments)


def test_several_runs_are_drawn_into_one_picture(tmp_path):
    one, two = write_log(tmp_path / 'one'), write_log(tmp_path / 'two')
    out = tmp_path / 'new' / 'curves.png'
    code, output = plot(one, two, '--names', 'A', 'B', '--out', out)
    assert code == 0, output
    assert out.read_bytes().startswith(b'\x89PNG')


def test_mistakes_end_in_one_message(tmp_path):
    run = write_log(tmp_path / 'one')
    for arguments, message in (
        ([tmp_path / 'none'], 'none: no vis_data'),
        ([run, '--keys', 'mIoU'], "'mIoU'"),
    ):
        code, output = plot(*arguments, '--out', tmp_path / 'x.png')
        assert code == 1
        assert message in output
        assert 'Traceback' not in output
    code, output = plot(run, '--names', 'A', 'B')
    assert code == 2
    assert '2 names for 1 runs' in output
