"""What befalls a training: the tests that do it on purpose, run several times and counted."""

import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from xml.etree import ElementTree

from .running import ROOT
from .tables import table

FAULTS = tomllib.loads(Path(__file__).with_name('faults.toml').read_text())['faults']


def faults(repeats: int) -> dict:
    """Every fault so many times."""
    tests = list(dict.fromkeys(test for fault in FAULTS for test in fault['tests']))
    rounds = []
    for number in range(repeats):
        print(f'round {number + 1} of {repeats}', flush=True)
        began = time.time()
        result = outcomes(tests)
        rounds.append(dict(seconds=time.time() - began, outcomes=result))
    return dict(faults=[fault | count(fault['tests'], rounds) for fault in FAULTS], rounds=rounds)


def outcomes(tests: list[str], root: Path = ROOT / 'tests') -> dict[str, str]:
    """Run tests once, in one process of pytest.

    Args:
        tests (list[str]): Their node ids, without parameters.
        root (Path): Folder they are relative to. Defaults to the checkout's tests.

    Returns:
        dict[str, str]: Node id -> ``'passed'``; ``'failed'`` if it has with any of its parameters,
        else ``'skipped'``; or ``'absent'`` where pytest did not get to it.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        options = ('-q', '-p', 'no:cacheprovider', '-o', 'junit_family=xunit1')
        command = (sys.executable, '-m', 'pytest', *options, f'--junit-xml={report}', *tests)
        subprocess.run(command, cwd=root, check=False)
        found = {test: {'absent'} for test in tests}
        for case in ElementTree.parse(report).iter('testcase') if report.is_file() else ():
            name = case.get('name').partition('[')[0]
            marks = {child.tag for child in case}
            found[f'{case.get("file").removeprefix("tests/")}::{name}'].add(
                'failed' if marks & {'failure', 'error'} else 'skipped' if marks else 'passed'
            )
    worst = ('failed', 'skipped', 'passed', 'absent')
    return {test: min(kinds, key=worst.index) for test, kinds in found.items()}


def count(tests: list[str], rounds: list[dict]) -> dict[str, int]:
    """In how many rounds a fault was tried, and in how many all its tests passed."""
    found = [{entry['outcomes'][test] for test in tests} for entry in rounds]
    return dict(
        tried=sum('skipped' not in kinds for kinds in found),
        survived=sum(kinds == {'passed'} for kinds in found),
    )


def render_faults(result: dict) -> str:
    """Faults, how often they were tried, and what they cost."""
    rows = []
    for fault in result['faults']:
        tried, survived, lost = fault['tried'], fault['survived'], fault['lost']
        if not tried:
            lost = 'not tried: this machine cannot'
        elif survived < tried:
            lost = f'**not as it must in {tried - survived} of {tried}**; else {lost}'
        rows.append([fault['done'], tried, lost])
    return table(['what was done', 'times', 'what was lost'], rows)
