"The contract of `vidbook.models.core` over every network of the library; a network that is not listed here fails"
import functools, hashlib, http.server, importlib, inspect, pkgutil, threading

import pytest
import torch

import vidbook.models
from vidbook.io.download import RemoteError
from vidbook.io.weights import read_state
from vidbook.models.core import check_model
from vidbook.pretrained import load_weights

small = 'tsn_slim tsm_slim slowonly_slim'.split()                                            # also exported
large = 'tsn_r50 tsm_r50 slowonly_r50'.split()
deep = 'tsn_r101 tsm_r101 slowonly_r101'.split()                                             # too slow for more than a look
bases = 'tsn_resnet tsm_resnet slowonly_resnet'.split()                                      # what the above are made of

modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(vidbook.models.__path__, 'vidbook.models.')]
found = {n: f for m in modules for n, f in inspect.getmembers(m, inspect.isfunction)
         if f.__module__ == m.__name__ and next(iter(inspect.signature(f).parameters), "") == "n_out"}


def test_every_network_is_listed(): assert set(found) == {*small, *large, *deep, *bases}


@pytest.mark.parametrize('name', small)
def test_small(name):
    seen = check_model(found[name], (2, 3, 8, 64, 64))
    assert seen['logits'] == (2, 5) and seen['features'] == [(2, 192, 8, 2, 2)] and .6e6 < seen['body']+seen['head'] < 1.2e6


@pytest.mark.parametrize('name', large)
def test_large(name): assert check_model(found[name], (2, 3, 1, 32, 32), export=False)['features'] == [(2, 2048, 1, 1, 1)]


@pytest.mark.parametrize('name', deep)
def test_deep(name):
    net = found[name](5).eval()
    with torch.no_grad(): assert net(torch.randn(1, 3, 2, 32, 32)).shape == (1, 5)
    assert sum(len(g) for g in net.splitter(net)) == len(list(net.parameters()))


@pytest.mark.parametrize('name', small)
def test_any_length_any_size_and_half_precision(name):
    net = found[name](7).eval()
    for shape in ((1, 3, 1, 64, 64), (2, 3, 5, 48, 80), (1, 3, 16, 33, 47)):
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16): assert net(torch.randn(shape)).shape == (shape[0], 7)


@pytest.mark.parametrize('name', small)
def test_other_channels_and_own_state(name):
    net, twin = found[name](3, c_in=10), found[name](3, c_in=10)
    load_weights(net, twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values()))
    assert net.eval()(torch.randn(1, 10, 2, 32, 32)).shape == (1, 3)


def test_three_ways_to_see_time():
    "TSN is blind to the order of frames, TSM and SlowOnly are not"
    clip = torch.randn(2, 3, 8, 64, 64)
    for name, blind in zip(small, (True, False, False)):
        net = found[name](4).eval()
        with torch.no_grad(): difference = (net(clip)-net(clip.flip(2))).abs().max()
        assert (difference < 1e-5) == blind, name


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
