"Every recogniser as ONNX: `export_onnx` tries the file itself, on numbers of clips and values that it was not traced with"
import pytest
import torch
from networks import found, slim

from vidbook.export.onnx import OnnxNetwork, export_onnx


@pytest.mark.parametrize('name', slim)
@torch.no_grad()
def test_every_network(name, tmp_path):
    torch.manual_seed(0)
    net, shape = found[name](5).eval(), slim[name].shape
    file = OnnxNetwork(export_onnx(net, tmp_path/'net.onnx', shape), threads=1)
    x = torch.randn(5, *shape)
    assert file.shape == shape and (file(x)-net(x)).abs().max() < 1e-3
    assert not any(p.numel() for p in file.parameters())                        # nothing of PyTorch computes
