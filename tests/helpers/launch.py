"""Start the distributed scripts as a user does."""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def launch(script: str, *arguments, timeout: float = 150) -> str:
    """Run ``tools/<script>``, and fail with its output if it does."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / 'tests', os.environ.get('PYTHONPATH', ''))))
    result = subprocess.run(
        ['bash', str(ROOT / 'tools' / script), *map(str, arguments)],
        env=dict(os.environ, PYTHON=sys.executable, PYTHONPATH=paths, OMP_NUM_THREADS='1'),
        capture_output=True, text=True, timeout=timeout)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-6000:]
    return output


def logged_scalars(work_dir: Path) -> list[dict]:
    """Everything the newest run in a work folder logged."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def final_metrics(work_dir: Path) -> dict:
    """Metrics of the newest test run in a work folder."""
    newest = max(path for path in work_dir.glob('*/*.json') if path.parent.name == path.stem)
    return json.loads(newest.read_text())
