"""What befalls a training: the tests that do it on purpose, run several times and counted."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from .running import ROOT

_SURVIVAL = 'tests/engine/test_survival.py::test_'
_MACHINES = 'tests/engine/test_faults_of_machines.py::test_'
_FILES = 'tests/engine/test_newest_checkpoint.py::test_'
_LOSS = 'tests/engine/test_check_loss.py::test_'
_STORES = 'tests/datasets/test_feature_stores.py::test_'
# One run goes through five of the faults, and is compared with one that nothing happens to.
_SAME_END = (
    _SURVIVAL + 'a_run_that_was_killed_and_stopped_ends_with_the_same_weights',
    *(
        _SURVIVAL + 'no_sample_is_repeated_or_left_out_and_each_gets_the_same_noise' + rank
        for rank in ('[0]', '[1]')
    ),
)
_EQUAL = 'nothing: weights, optimizer, memory bank and random state equal, bit for bit'
# What was done; what is lost if all tests that show it pass; these tests.
FAULTS = (
    dict(
        done='one process killed (SIGKILL), at each iteration of an epoch in turn',
        lost=_EQUAL,
        tests=(_SURVIVAL + 'a_killed_rank_ends_the_others', *_SAME_END),
    ),
    dict(
        done='all killed between a checkpoint and its validation',
        lost=_EQUAL,
        tests=(
            _SURVIVAL + 'a_validation_that_a_kill_prevented_is_made_up_for_and_counts',
            *_SAME_END,
        ),
    ),
    dict(
        done='killed with half of a checkpoint written',
        lost=_EQUAL,
        tests=(
            _SURVIVAL + 'a_kill_while_a_checkpoint_is_written_leaves_the_earlier_one',
            *_SAME_END,
        ),
    ),
    dict(
        done='SIGTERM inside an epoch',
        lost=_EQUAL,
        tests=(
            _SURVIVAL + 'sigterm_inside_an_epoch_saves_and_ends_all_ranks_at_one_iteration',
            *_SAME_END,
        ),
    ),
    dict(
        done='SIGTERM inside a validation',
        lost=_EQUAL,
        tests=(_SURVIVAL + 'sigterm_inside_a_validation_loses_nothing', *_SAME_END),
    ),
    dict(
        done='SIGTERM between two batches of an accumulated gradient, with bfloat16',
        lost='nothing: weights, optimizer and memory bank equal, bit for bit',
        tests=(_SURVIVAL + 'accumulation_and_bf16_resume_inside_a_window',),
    ),
    dict(
        done="NaN in one process's loss, `action=stop`",
        lost='nothing: all stop before the step; the message names the videos',
        tests=(
            _SURVIVAL + 'one_ranks_bad_loss_stops_all_with_its_message',
            *(
                _LOSS + f'it_stops_before_the_weights_are_spoilt[{value}]'
                for value in ('nan', 'inf', '-inf')
            ),
        ),
    ),
    dict(
        done="NaN in one process's loss, `action=skip`",
        lost='that batch, in all processes',
        tests=(
            _SURVIVAL + 'one_ranks_bad_loss_is_skipped_by_all',
            _LOSS + 'a_skipped_batch_leaves_no_trace',
            _LOSS + 'a_skipped_batch_stays_out_of_the_memory_bank',
        ),
    ),
    dict(
        done='one process raises an error, under `torchrun`',
        lost='the job ends within a minute, that error first; `--resume` goes on as above',
        tests=(_MACHINES + 'a_dying_rank_ends_the_job_with_its_error_first[raise]',),
    ),
    dict(
        done='one process killed (SIGKILL), under `torchrun`',
        lost='the job ends and names that process; `--resume` goes on as above',
        tests=(_MACHINES + 'a_dying_rank_ends_the_job_with_its_error_first[kill]',),
    ),
    dict(
        done='SIGTERM to one of two `torchrun` agents',
        lost='nothing: both stop after the same iteration and save',
        tests=(_MACHINES + 'two_agents_stop_together',),
    ),
    dict(
        done='disk full, then read-only, then resumed with room',
        lost='nothing before the checkpoint that found no room',
        tests=(_MACHINES + 'a_full_and_a_read_only_disk_leave_the_earlier_checkpoints',),
    ),
    dict(
        done='newest checkpoint truncated, damaged, or gone',
        lost='what came after the one before it, which is taken',
        tests=(
            *(
                _FILES + f'a_truncated_one_is_named_and_passed_over[{part}]'
                for part in ('0', '0.5', '0.99')
            ),
            _FILES + 'a_damaged_one_is_named_and_passed_over',
            _FILES + 'a_name_without_a_file_is_said',
        ),
    ),
    dict(
        done='a read of the feature file fails once',
        lost='nothing: it is read again',
        tests=(_STORES + 'a_failed_read_is_tried_once_more',),
    ),
    dict(
        done='feature file replaced, extended or rewritten while in use',
        lost='nothing: the run ends with an error that names it',
        tests=tuple(
            _STORES + f'a_file_that_changes_while_in_use_is_noticed[{how}]'
            for how in ('replaced', 'extended', 'rewritten')
        ),
    ),
)


def outcomes(tests: list[str], root: Path = ROOT) -> dict[str, str]:
    """Run tests once, in one process of pytest.

    Args:
        tests (list[str]): Their node ids.
        root (Path): Folder they are relative to. Defaults to the checkout's.

    Returns:
        dict[str, str]: Node id -> ``'passed'``, ``'skipped'``, ``'failed'``, or ``'absent'`` where
        pytest did not get to it.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        command = (
            sys.executable,
            '-m',
            'pytest',
            '-q',
            '-p',
            'no:cacheprovider',
            '-o',
            'junit_family=xunit1',
            f'--junit-xml={report}',
            *tests,
        )
        subprocess.run(command, cwd=root, check=False)
        cases = ElementTree.parse(report).iter('testcase') if report.is_file() else ()
        seen = {}
        for case in cases:
            marks = {child.tag for child in case}
            seen[f'{case.get("file")}::{case.get("name")}'] = (
                'failed'
                if marks & {'failure', 'error'}
                else 'skipped'
                if 'skipped' in marks
                else 'passed'
            )
    return {test: seen.get(test, 'absent') for test in tests}


def faults(repeats: int) -> dict:
    """Every fault so many times."""
    tests = list(dict.fromkeys(test for fault in FAULTS for test in fault['tests']))
    rounds = []
    for number in range(repeats):
        print(f'round {number + 1} of {repeats}', flush=True)
        began = time.time()
        result = outcomes(tests)
        rounds.append(dict(seconds=time.time() - began, outcomes=result))
    return dict(
        faults=[
            dict(fault, tests=list(fault['tests']), **count(fault['tests'], rounds))
            for fault in FAULTS
        ],
        rounds=rounds,
    )


def count(tests: tuple[str, ...], rounds: list[dict]) -> dict[str, int]:
    """In how many rounds a fault was tried, and in how many all its tests passed."""
    found = [{entry['outcomes'][test] for test in tests} for entry in rounds]
    return dict(
        tried=sum('skipped' not in kinds for kinds in found),
        survived=sum(kinds == {'passed'} for kinds in found),
    )
