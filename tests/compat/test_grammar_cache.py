"""Processes that start at once in a new environment read whole caches of yapf's grammar."""

import os
import pickle

import pytest
from helpers.run_tool import ROOT
from yapf_third_party._ylib2to3.pgen2.grammar import Grammar


def found_by_another_process(dump, folder, monkeypatch):
    """Bytes that lie under the cache's name as soon as there is something."""
    found = []

    def watched(rename):
        def call(source, target):
            rename(source, target)
            found.append((folder / 'cache').read_bytes())

        return call

    for name in ('rename', 'replace'):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    grammar = Grammar()
    grammar.keywords = {'lambda': 1}
    dump(grammar, str(folder / 'cache'))
    assert [path.name for path in folder.iterdir()] == ['cache']
    return found[0]


def test_a_cache_is_complete_when_it_appears(tmp_path, monkeypatch):
    found = found_by_another_process(Grammar.dump, tmp_path, monkeypatch)
    assert pickle.loads(found)['keywords'] == {'lambda': 1}


def test_that_of_stock_yapf_is_not(tmp_path, monkeypatch):
    found = found_by_another_process(Grammar.dump.__wrapped__, tmp_path, monkeypatch)
    with pytest.raises(EOFError):
        pickle.loads(found)


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_scripts_of_many_processes_cure_the_stack_before_mmengine_reads_the_cache(tool):
    source = (ROOT / f'tools/{tool}.py').read_text()
    assert source.index('import mmn_plugin') < source.index('from mmengine')
