"""What a run left in its work folder."""

import json
from pathlib import Path


def logged_scalars(work_dir: Path) -> list[dict]:
    """Everything the newest run in a work folder logged."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def final_metrics(work_dir: Path) -> dict:
    """Metrics of the newest test run in a work folder."""
    newest = max(path for path in work_dir.glob('*/*.json') if path.parent.name == path.stem)
    return json.loads(newest.read_text())
