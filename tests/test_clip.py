"CLIP's towers with the names of OpenAI and open_clip, and a network for video that grew out of them, against recorded numbers"
import json, gzip

import numpy as np
import pytest
import torch
from test_foreign import empty_state, files
from test_golden import check, folder, generator, state_of, tolerance

from vidbook import presets
from vidbook.models.clip import clip_b16, clip_b32, clip_l14, clip_model
from vidbook.pretrained import load_weights

sizes = {'ViT-B-16': clip_b16, 'ViT-B-32': clip_b32, 'ViT-L-14': clip_l14}
manifests = [n for n in files if n.partition('__')[2] in sizes]


@pytest.mark.parametrize('name', manifests)
def test_names(name):
    with torch.device('meta'): net = sizes[name.partition('__')[2]]()
    state = empty_state(files[name])
    numbers = {o: torch.tensor(1) for o in ('input_resolution', 'context_length', 'vocab_size')}
    assert len(load_weights(net, {f'module.{k}': v for k, v in state.items()} if name.startswith('open_') else state | numbers)) == len(state)
    assert sum(p.numel() for p in net.parameters()) == files[name]['num_params']


def test_the_archive_that_openai_publishes(tmp_path):
    "TorchScript of half precision, with OpenAI's names, a mask and three numbers that are no weights; in small: an eighth of the channels, two blocks for pictures"
    state, left_out = files['openai-clip__ViT-B-32']['state'], tuple(f'visual.transformer.resblocks.{i}.' for i in range(2, 12))
    shapes = {k: [n//8 if n >= 512 else n for n in shape] for k, shape, _ in state if not k.startswith(left_out)}
    root = torch.nn.Module(); root.register_buffer('input_resolution', torch.tensor(224))
    for name, shape in shapes.items():
        *path, last = name.split('.'); module = root
        for part in path: module = getattr(module, part) if hasattr(module, part) else module.add_module(part, torch.nn.Module()) or getattr(module, part)
        setattr(module, last, torch.nn.Parameter(torch.randn(shape)))
    root.transformer.resblocks.get_submodule('0').attn_mask = torch.ones(77, 77)
    root.half(); torch.jit.script(root).save(tmp_path/'ViT-B-32.pt')
    net = clip_model(dim=96, depth=2, patch=32, n_shared=64, n_tokens=49408//8)
    assert len(load_weights(net, tmp_path/'ViT-B-32.pt')) == len(shapes) == len(net.state_dict())
    assert torch.equal(net.visual.proj, root.visual.proj.float()) and torch.equal(net.text.token_embedding.weight, root.token_embedding.weight.float())


@torch.no_grad()
def test_both_towers():
    facts = files['openai-clip__ViT-B-32']; net = clip_b32().eval()
    load_weights(net, {k: v.half().float() if k == 'logit_scale' else v for k, v in state_of(facts).items()})
    image, text = facts['cases']
    x = torch.from_numpy(generator('input/imgs').standard_normal(image['inputs']['imgs']['shape']).astype(np.float32))
    check(net.encode_image(x), image['outputs']['image_features'], *tolerance(image))
    tokens = torch.tensor(text['inputs']['tokens']['value'])
    check(net.encode_text(tokens), text['outputs']['text_features'], *tolerance(text))
    assert net(x, tokens).shape == (2, 2)


@torch.no_grad()
def test_uniformerv2():
    "The first of two recorded clips: half of the sampled scores"
    facts = json.loads(gzip.decompress((folder/'uniformerv2_base_k400.json.gz').read_bytes())); net = presets.find(facts['config']).model().eval()
    load_weights(net, state_of(facts))
    case = next(c for c in facts['cases'] if c['name'] == 'forward'); want = case['outputs']['cls_score']
    x = torch.from_numpy(generator('input/imgs').standard_normal(case['inputs']['imgs']['shape']).astype(np.float32))[:1, 0]
    at = np.linspace(0, 2*400-1, 64).astype(int)
    np.testing.assert_allclose(net(x)[0].double().numpy()[at[at < 400]], np.array(want['sample'])[at < 400], *tolerance(case))
