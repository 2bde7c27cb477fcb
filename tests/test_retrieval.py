"Sentences and videos: CLIP4Clip and the ranks of videos against numbers of the reference (golden/retrieval)"
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_golden import check, generator, read, state_of, tolerance

from vidbook import presets
from vidbook.callbacks.schedule import Linear, Schedule
from vidbook.data.puppets import make_puppets
from vidbook.interpret.cost import cost
from vidbook.io.sample import Clip, Sampling
from vidbook.learner.retrieve import retrieval_results, retrieve_learner
from vidbook.metrics.retrieval import grounding_recall, retrieval_metrics
from vidbook.models.clip4clip import clip4clip_slim
from vidbook.pretrained import WeightsError, load_weights
from vidbook.utils import VidbookError

mean, order = (read(f'retrieval/clip4clip_vit-base-p32_{kind}') for kind in ('meanP', 'seqTransf'))


@torch.no_grad()
def test_the_network():
    "Vectors of clips and sentences, their cosines, and the loss in both directions"
    preset = presets.find(mean['config']); net, (features, cosines, losses) = preset.model().eval(), mean['cases']
    load_weights(net, state_of(mean)); assert sum(p.numel() for p in net.parameters()) == mean['num_params']
    x = torch.from_numpy(generator('input/imgs').standard_normal(features['inputs']['imgs']['shape']).astype(np.float32)).transpose(1, 2)
    rows = [[o for o in row if isinstance(o, int)] for row in features['inputs']['text']]
    tokens = torch.tensor([row+[0]*(77-len(row)) for row in rows])
    video, text = net.encode_video(x), net.encode_text(tokens)
    check(video, features['outputs']['video_feature'], *tolerance(features)); check(text, features['outputs']['text_feature'], *tolerance(features))
    check(net.similarity(text, video), cosines['outputs']['text_by_video'], *tolerance(cosines))
    scale = net.backbone.logit_scale.exp(); check(scale, cosines['outputs']['logit_scale_exp'], *tolerance(cosines))
    parts = preset.loss()(scale*net.similarity(text, video))
    for way in ('v2t', 't2v'): check(parts[f'loss_{way}'], losses['outputs'][f'sim_loss_{way}'], *tolerance(losses))


def empty(facts): return {k: torch.empty(shape, dtype=getattr(torch, kind)) for k, shape, kind in facts['state']}


def test_the_network_that_sees_the_order():
    with torch.device('meta'):
        net, state = presets.find(f'{order["config"]}:{order["variant"]}').model(), empty(order)
        assert len(load_weights(net, state)) == len(state) and sum(p.numel() for p in net.parameters()) == order['num_params']
        for broken in ({k: v for k, v in state.items() if k != 'adapter.positional_embedding'}, {**state, 'made_up.weight': torch.empty(3)}):
            with pytest.raises(WeightsError): load_weights(net, broken)


cases = {c['name']: c for c in read('metrics_retrieval')['cases']}


@pytest.mark.parametrize('name', cases)
def test_ranks(name):
    inputs = cases[name]['inputs']
    if 'matrix' in inputs: similarity = np.array(inputs['matrix'])
    else:
        video = generator('input/ret_a/video').standard_normal(inputs['video']['shape']).astype(np.float32)
        text = (video+1.5*generator('input/ret_a/noise').standard_normal(video.shape)).astype(np.float32)
        text, video = (o/np.linalg.norm(o, axis=1, keepdims=True) for o in (text, video))
        similarity = text@video.T
    assert retrieval_metrics(similarity) == pytest.approx(cases[name]['outputs'])


def test_grounding():
    "17 of 30 sentences are found at once, all among the first five"
    true, said = [], []
    for k in range(30):
        r = generator(f'rtk/{k}')
        a = r.uniform(0, .5); b = a+r.uniform(.1, .5); found = np.sort(np.stack([r.uniform(0, .6, 6), r.uniform(.3, 1, 6)], -1), -1)
        found[0 if k % 2 else 3] = a+.02, b-.01
        true.append((a, b)); said.append(found)
    np.testing.assert_allclose(grounding_recall(said, true, (1, 5), (.5,)), [[17/30], [1]])


def test_a_preset_trains_tests_and_tells_its_cost(tmp_path):
    "Its recipe, made small"
    preset = presets.clip4clip_b32_msrvtt9k
    make_puppets(tmp_path, 'tiny', parts=('clips',), progress=False)
    small = preset.but(arch=clip4clip_slim, arch_kw=dict(frames='meanP'), tokenizer='words', batch=4, size=64, short_side=68,
                       sample=Sampling(Clip(2), 'uniform'), train_tfms=(('RandomCrop', {}),), fit=Schedule(1, Linear(0, 1, first=.05)))
    dls = small.data(tmp_path/'puppets.csv', num_workers=0)
    learn = small.train(dls, weights=False)
    assert [type(o).__name__ for o in (learn.model, learn.opt.opt.opt)] == ['Clip4Clip', 'AdamW'] and {h['wd'] for h in learn.opt.hypers} == {0, .05}
    values = small.test(dls, learn.model.state_dict())
    assert values == retrieval_results(learn) and list(values) == ['R1', 'R5', 'R10', 'MdR', 'MnR']
    found = cost(small, dls, n=2)
    assert found.bs == 4 and found.clips_per_s > 0 and found.largest_bs > 4
    with pytest.raises(VidbookError, match='CaptionDataLoaders'): retrieve_learner(SimpleNamespace())
