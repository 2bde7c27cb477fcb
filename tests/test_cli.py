"Commands as a shell starts them: help for each, a doctor that looks at broken installations"
import json, re, shlex, subprocess, sys

import pytest

from project import root
from vidbook.cli.core import commands, find_command, main, parse
from vidbook.cli.prepare import _command, _function


@pytest.mark.parametrize('name', commands)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as end: parse(find_command(name), ['--help'], f'vidbook {name}')
    told = capsys.readouterr().out
    assert end.value.code == 0 and find_command(name).__doc__.split()[0] in told and 'usage: vidbook' in told


def doctor(tmp_path, *words, **modules):
    "Exit status and findings of `vidbook doctor` where some modules are replaced by others"
    for name,text in modules.items():
        (tmp_path/name).mkdir(exist_ok=True)
        (tmp_path/name/'__init__.py').write_text(text)
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); from vidbook.cli.core import main; sys.exit(main(sys.argv[1:]))'
    ran = subprocess.run([sys.executable, '-c', code, 'doctor', '--json', *words], capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in ran.stderr+ran.stdout
    return ran.returncode, {o['name']: o for o in json.loads(ran.stdout)}


def test_doctor_survives_what_crashes_and_what_does_not_fit(tmp_path):
    "A torchvision for another torch, a decoder that ends its process"
    status, found = doctor(tmp_path, '--only', 'torch,decord,optional', torchvision="raise RuntimeError('operator torchvision::nms does not exist')",
                           decord='import os; os._exit(7)')
    assert status == 1 and found['cache']['state'] == 'ok'
    assert found['torch']['state'] == 'bad' and 'nms does not exist' in found['torch']['text'] and 'pip install' in found['torch']['mend']
    assert found['decord']['state'] == 'bad' and 'exit status 7' in found['decord']['text']


def test_doctor_tells_of_an_examination_that_is_not_there(capsys):
    "It would do all of them for a slip of the pen, or leave one out and say that all is well"
    for words in ('toch', 'optional,toch'):
        assert main(['doctor', '--only', words])
        assert "no examination 'toch'" in capsys.readouterr().err


def test_doctor_waits_for_nobody(tmp_path):
    "A library that hangs when it is imported"
    from vidbook.cli.doctor import findings
    found = findings(['works'], limit=.5)                                      # nothing imports torch in half a second
    assert [o.state for o in found] == ['bad'] and 'took longer' in found[0].text


def test_an_unknown_command_and_a_wrong_word(capsys):
    assert main(['tran']) == 2 and "no command 'tran'" in capsys.readouterr().err
    for words in (['train', 'tsm_r50_k400_1x1x8', 'nowhere', '--set', 'size=big'], ['test', 'no_model', 'nowhere'], ['predict', 'no_model', 'no_video'],
                  ['train', 'tsm_r50_k400_1x1x8', 'nowhere.csv', '--weights', 'none']):
        assert main(words) == 1
        told = capsys.readouterr().err
        assert told.count('\n') == 1 and told.startswith(f'vidbook {words[0]}: ')


def test_a_selftest_that_stands_still_ends_and_says_where(tmp_path, capsys):
    "With all that it has started"
    from vidbook.cli.selftest import run_step
    (tmp_path/'child.py').write_text('import time\nprint("1 passed", flush=True)\ndef stand(): time.sleep(600)\nstand()')
    (tmp_path/'main.py').write_text('import subprocess, sys\nsubprocess.run([sys.executable, "child.py"])')
    assert not run_step([sys.executable, 'main.py'], 'passed', tmp_path, limit=5)
    told = capsys.readouterr().out
    assert 'child.py", line 3 in stand' in told and 'main.py", line 2' in told


def documented():
    "Command lines in the notebooks' texts, with the notebook that has them"
    for file in sorted((root/'nbs').rglob('*.ipynb')):
        for cell in json.loads(file.read_text(encoding='utf-8'))['cells']:
            text = ''.join(cell['source']).replace('\\\n', ' ') if cell['cell_type'] == 'markdown' else ''
            for block in re.findall(r'```\w*\n(.*?)```', text, re.S): yield from ((file.stem, line) for line in block.splitlines() if line.startswith('vidbook '))
            yield from ((file.stem, line) for line in re.findall(r'`(vidbook [^`\n]*)`', text))


def test_command_lines_of_the_notebooks_can_be_typed(capsys):
    "Their words fit the command that they name"
    seen = []
    for name, line in documented():
        command, *words = shlex.split(line, comments=True)[1:]
        if not {command, *words}.isdisjoint(('--help', '...', 'WHAT', 'COMMAND')): continue
        function = None
        if command == 'prepare' and words: function, works_through = _function(words.pop(0)); function = _command(function) if works_through else function
        if not words: continue                                                # the text only names the command
        try: parse(function or find_command(command), words, line)
        except SystemExit:
            told = capsys.readouterr().err
            assert 'arguments are required' in told, f'{name}: {line}: {told}'       # `vidbook launch --dry-run` in a sentence
        seen.append(line)
    assert len(seen) > 30
