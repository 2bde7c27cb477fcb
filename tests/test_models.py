"The contract of `vidbook.models.core` over every network of the library, as listed in networks.py"
import functools, hashlib, http.server, threading

import pytest
import torch
from torch import nn
from networks import bases, found, full, slim, tasks
from test_golden import tensors

from vidbook.io.download import RemoteError
from vidbook.io.weights import read_state
from vidbook.models.core import check_model
from vidbook.pretrained import load_weights
from vidbook.utils import VidbookError

def shapes(features): return [features] if isinstance(features[0], int) else [*features]


def test_every_network_is_listed(): assert {*found} == {*slim, *full, *bases, *tasks}


@pytest.mark.parametrize('name', slim)
def test_slim(name):
    facts = slim[name]; seen = check_model(found[name], (2, *facts.shape))
    assert seen['logits'] == (2, 5) and seen['features'] == shapes(facts.features)
    assert facts.params[0] < seen['body']+seen['head'] < facts.params[1]


@pytest.mark.parametrize('name', slim)
def test_eps(name):
    "It is a part of the architecture that shapes and most outputs do not show"
    assert {m.eps for m in found[name]().modules() if hasattr(m, 'eps')} == {*slim[name].eps}


@pytest.mark.parametrize('name', slim)
def test_no_convolution_writes_outside_of_its_memory(name):
    "As the gradient of a 1x1 one with a stride from 2 to 7 channels does in torch 2.14 and 2.15, in channels-last with AVX2"
    assert not [m for m in found[name]().modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) != m.stride and 1 < m.in_channels < 8]


@pytest.mark.parametrize('name', full)
def test_full(name):
    facts = full[name]
    with torch.device('meta'): net, x = found[name](5).eval(), torch.empty(2, *facts.shape)
    with torch.no_grad(): assert net(x).shape == (2, 5) and [tuple(t.shape) for t in tensors(net.features(x))] == shapes(facts.features)
    assert sum(len(g) for g in net.splitter(net)) == len(list(net.parameters()))


@pytest.mark.parametrize('name', slim)
@torch.no_grad()
def test_other_clips_and_half_precision(name):
    net = found[name](7).eval()
    for shape in (slim[name].shape, *slim[name].others):
        with torch.autocast('cpu', torch.bfloat16): assert net(torch.randn(2, *shape)).isfinite().all()
    for shape, words in slim[name].refused:
        with pytest.raises((ValueError, VidbookError), match=words): net(torch.randn(2, *shape))


@pytest.mark.parametrize('name', slim)
@torch.no_grad()
def test_channels_and_own_state(name):
    facts = slim[name]; kw = dict(c_in=facts.shape[0]+7) if facts.any_channels else {}
    net, twin = found[name](3, **kw).eval(), found[name](3, **kw).eval()
    load_weights(net, twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values()))
    x = torch.randn(1, kw.get('c_in', facts.shape[0]), *facts.shape[1:])
    assert net(x).shape == (1, 3) and torch.equal(net(x), twin(x))


@pytest.mark.parametrize('name', slim)
@torch.no_grad()
def test_who_sees_the_order_of_frames(name):
    torch.manual_seed(0)
    net, clip = found[name](4).eval(), torch.randn(2, *slim[name].shape)
    frames = clip.flip(2)
    assert ((net(clip)-net(frames)).abs().max() > 1e-5) == slim[name].sees_order


@pytest.mark.parametrize('name', slim)
def test_learns_a_batch_by_heart(name):
    torch.manual_seed(0)
    facts, labels = slim[name], torch.arange(4)
    net, clips = found[name](4).train(), torch.randn(4, *facts.shape)
    opt, losses = torch.optim.Adam(net.parameters(), facts.lr), []
    while len(losses) < 40 and (not losses or losses[-1] > .1):
        loss = torch.nn.functional.cross_entropy(tensors(net(clips))[0], labels); loss.backward()
        opt.step(); opt.zero_grad(); losses.append(loss.item())
    assert losses[-1] <= .1, losses


@pytest.mark.parametrize('name', slim)
@torch.no_grad()
def test_compiles_as_a_whole(name):
    torch._dynamo.reset()
    net, x = found[name](4).eval(), torch.randn(2, *slim[name].shape)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend='eager')(x), net(x))


def test_weights_from_an_address(tmp_path, monkeypatch):
    "Downloaded once; a file name with a part of its SHA-256 is held to it, and nothing is left of a file that is not what it says"
    monkeypatch.setenv('VIDBOOK_CACHE', str(tmp_path/'home'))
    torch.save(found['tsn_slim'](3).state_dict(), tmp_path/'file.pth')
    data = (tmp_path/'file.pth').read_bytes()
    right, wrong = f'net-{hashlib.sha256(data).hexdigest()[:8]}.pth', 'net-00000000.pth'
    for name in (right, wrong): (tmp_path/name).write_bytes(data)
    files = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}/'
    try:
        load_weights(found['tsn_slim'](3), address+right)
        for name, why in ((wrong, 'and not 00000000, so it was removed'), ('absent.pth', '404')):
            with pytest.raises(RemoteError, match=why): read_state(address+name)
    finally: server.shutdown()
    assert [p.name for p in (tmp_path/'home').rglob('*') if p.is_file()] == [f'{right[4:12]}-{right}']
    read_state(address+right)                           # the server is gone: from the copy
