"What a training costs: the peak is that of the steps, and no advice slows the training down"
import pytest

from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.squares import make_squares
from vidbook.interpret import cost as module
from vidbook.interpret.cost import Cost, cost, cost_sentence
from vidbook.learner.classify import video_learner
from vidbook.models.tsn import tsn_slim


@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    table = make_squares(tmp_path_factory.mktemp('squares'), n_train=2, n_valid=1, n_frames=6, side=32)
    return video_learner(VideoDataLoaders.from_table(table, size=32, bs=4, num_workers=0, index=None), tsn_slim)


def test_peak_is_that_of_the_steps(learn, monkeypatch):
    "On a GPU the search for the largest batch counts anew, with small batches"
    counted, timed = [0], module.timed_steps
    def count(value, result): counted[0] = value; return result
    monkeypatch.setattr(module, 'memory_mb', lambda device: counted[0])
    monkeypatch.setattr(module, 'timed_steps', lambda *args, **kw: count(900, timed(*args, **kw)))
    monkeypatch.setattr(module, 'largest_batch', lambda learn: count(30, 64))
    found = cost(learn, n=2)
    assert (found.peak_mb, found.largest_bs) == (900, 64)


@pytest.mark.parametrize('known', (True, False))
def test_bfloat16_is_advised_where_the_device_computes_in_it(monkeypatch, known):
    "Elsewhere it takes several times as long"
    monkeypatch.setattr(module, 'computes_bf16', lambda device: known)
    told = cost_sentence(Cost(20, 5., 5., 40., .01, 7200, 900, 64, 16, 4, 20, 'cpu'))
    assert ('to_bf16' in told) == known and told.startswith('The network') and 'smaller clips' in told
