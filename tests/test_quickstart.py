"The first command, in small: every file that it promises, a report without a network, and a second start that goes on"
import json

import pytest


@pytest.fixture(scope='module')
def dest(tmp_path_factory):
    "What `vidbook quickstart` leaves, of the tiny data set and one epoch"
    from vidbook.cli.quickstart import quickstart
    dest = tmp_path_factory.mktemp('quick')/'start'
    quickstart(str(dest), epochs=1, n_clips='tiny')
    return dest


def test_every_file_is_there(dest):
    assert {p.name for p in dest.iterdir()} == {'report.html', 'predictions.csv', 'predictions.json', 'predictions.npz', 'figures.json', 'model', 'puppets', 'new_sit_down.mp4'}
    figures = json.loads((dest/'figures.json').read_text())
    assert figures['clips'] == 12 and all(0 <= figures[k] <= 100 for k in ('top1', 'pairs', 'frozen', 'shuffled'))


def test_the_report_opens_without_a_network(dest):
    page = (dest/'report.html').read_text(encoding='utf-8')
    assert len(page) < 8e6 and not any(word in page for word in ('http://', 'https://', '<script', '<link'))
    assert page.count('<video') == 8 and page.count('<img') == 5


def test_predictions_are_the_held_out_clips(dest):
    from vidbook.all import load_predictions, read_table
    preds, table = load_predictions(dest/'predictions.csv'), read_table(dest/'puppets'/'puppets.csv')
    assert set(preds.table['id']) == set(table[table['split'] == 'valid']['id'])


def test_the_model_answers_for_a_file(dest):
    from vidbook.all import Predictor
    answer = Predictor(dest/'model')(dest/'new_sit_down.mp4')
    assert answer.probs.shape == (12,) and abs(answer.probs.sum()-1) < 1e-5


def test_a_second_start_renders_nothing_again(dest):
    from vidbook.cli.quickstart import quickstart
    before = {p: p.stat().st_mtime_ns for p in (dest/'puppets').rglob('*.mp4')}
    quickstart(str(dest), epochs=1, n_clips='tiny')
    assert {p: p.stat().st_mtime_ns for p in (dest/'puppets').rglob('*.mp4')} == before
    assert len(before) == 48


def test_bad_arguments_are_one_sentence(tmp_path, capsys):
    from vidbook.cli.core import main
    (tmp_path/'file').write_text('x')
    for words, part in ((['--dest', str(tmp_path/'a'), '--n_clips', 'huge'], 'huge'), (['--dest', str(tmp_path/'file')], 'file')):
        assert main(['quickstart', *words]) == 1
        err = capsys.readouterr().err.strip()
        assert part in err and len(err.splitlines()) == 1 and 'Traceback' not in err


@pytest.mark.parametrize('able', [True, False])
def test_bfloat16_only_where_the_device_computes_in_it(monkeypatch, able):
    from types import SimpleNamespace
    from vidbook.cli.quickstart import train
    monkeypatch.setattr('vidbook.callbacks.precision.computes_bf16', lambda device: able)
    done = []
    train(SimpleNamespace(dls=SimpleNamespace(device='cpu'), to_bf16=lambda: done.append('bf16'), fit_one_cycle=lambda *_: done.append('fit'),
                          recorder=SimpleNamespace(values=[])))
    assert done == ['bf16', 'fit'] if able else done == ['fit']
