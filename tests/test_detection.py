"""Spatio-temporal detection against facts read off MMAction2 1.2.0 (tests/golden/detection)"""
import gzip, json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.ops import box_iou

from test_golden import check, folder, generator, read, state_of
from vidbook import presets
from vidbook.cli.core import main
from vidbook.data.ava import read_ava, read_ava_set
from vidbook.data.boxes import clip_boxes
from vidbook.data.item import Item
from vidbook.data.transforms import CenterCrop, Flip, Resize
from vidbook.data.people import DetectDataLoaders, FrameBoxes
from vidbook.data.puppets import PuppetSize, make_puppets
from vidbook.io.ava import read_label_map
from vidbook.io.sample import Clip, Sampling
from vidbook.io.source import VideoFile
from vidbook.io.write import write_video
from vidbook.learner.checkpoint import read_card
from vidbook.learner.detect import action_boxes, detect_learner
from vidbook.metrics.detection import ava_map, frame_map, video_map
from vidbook.models.person import person_slim
from vidbook.models.roi import BoxActionLoss, roi_slowfast_r50_4x16, roi_slowfast_r50_8x8, roi_slowonly_r101, roi_slowonly_r50, roi_slowonly_r50_nl, roi_slowonly_slim
from vidbook.pretrained import load_weights
from vidbook.widgets.zoo import network_size

home = folder/'detection'


def cases(name, part): return {c['name']: c for c in read(name)['cases'] if c['name'].split('/')[0] == part}
def where(path): return path and next(p for p in (home/path.removeprefix('data_detection/'), home/'media'/path) if p.exists())


# ---- metrics -----------------------------------------------------------------------------------------------------------------------
def same(got, want): assert {k: got[k] for k in want} == pytest.approx(want, abs=2e-3, nan_ok=True)      # equal scores in any order


@pytest.mark.parametrize('name', cases('metrics_detection', 'ava'))
def test_ava_map(name):
    i, want = (cases('metrics_detection', 'ava')[name][k] for k in ('inputs', 'outputs'))
    kw = dict(excluded=where(i['excluded']), classes=i.get('custom_classes'), ignore_empty_frames=i.get('ignore_empty_frames', True))
    same(ava_map(where(i['det']), where(i['gt']), where(i['labels']), **kw), want)


def test_tubes():
    d = json.loads(gzip.decompress((home/'ms_a.json.gz').read_bytes())); want = cases('metrics_detection', 'multisports')['multisports/ms_a']['outputs']
    truth = dict(d, gttubes={v: {int(c): [np.array(t) for t in ts] for c, ts in q.items()} for v, q in d['gttubes'].items()})
    for iou, value in want['frameAP'].items(): assert frame_map(d['detections'], truth, float(iou)) == pytest.approx(value, abs=.05)
    for n in (5, 15):       # all scores are equal there, so only the least overlap does not depend on a processor's way of sorting
        for iou, value in want[f'videoAP_len{n}'].items(): assert video_map(d['detections'], truth, float(iou), n) == pytest.approx(value, abs=1.5)


def test_equal_scores_keep_their_order(tmp_path):
    (tmp_path/'true.csv').write_text('v,0902,0,0,.5,.5,1,0\n'); (tmp_path/'found.csv').write_text('v,0902,0,0,.5,.5,1,0.9000\nv,0902,.5,.5,1,1,1,0.9000\n')
    assert ava_map(tmp_path/'found.csv', tmp_path/'true.csv', {1: 'stand'})['overall'] == 1


# ---- data --------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', cases('transforms_detection', 'boxes'))
def test_boxes_follow(name):
    i, want = (cases('transforms_detection', 'boxes')[name][k] for k in ('inputs', 'outputs')); w, h = i['w'], i['h']
    item = Item(None, frames=np.zeros((1, 1, h, w, 3), np.uint8))
    stages = dict(resize=[Resize(48)], resize_exact=[Resize((64, 64), keep_ratio=False)], flip=[Flip(1.)], centercrop=[CenterCrop(40)],
                  resize_flip_crop=[Resize(48), CenterCrop(48), Flip(1.)]).get(name.split('/')[1])
    if stages is None:                                                       # drawn at random there: the same numbers here
        sx, sy = want['scale_factor'] or (1, 1); item.resize((round(w*sx), round(h*sy)))
        item.cut([tuple(want['crop_bbox'])], want['img_shape'][::-1])
    for stage in stages or (): stage(item)
    for k in ('gt_bboxes', 'proposals'):
        np.testing.assert_allclose(clip_boxes(np.array(i[k])/[w, h, w, h], item.moves, item.size), want[k], rtol=1e-5, atol=1e-5)
    assert list(item.size) == want['img_shape'][::-1]


@pytest.mark.parametrize('name', cases('transforms_detection', 'SampleAVAFrames'))
def test_frames_around_a_key_frame(name):
    i, want = (cases('transforms_detection', 'SampleAVAFrames')[name][k] for k in ('inputs', 'outputs'))
    sampling = Sampling(Clip(i['clip_len'], i['frame_interval']), 'centred')
    n = i['shot_info'][1]
    assert sampling(n, True, fps=i['fps'], at=i['timestamp']-i['timestamp_start'], shot=i['shot_info'])[0].tolist() == want['frame_inds']


@pytest.mark.parametrize('name', cases('transforms_detection', 'AVADataset'))
def test_ava_table(name, tmp_path):
    i, want = (cases('transforms_detection', 'AVADataset')[name][k] for k in ('inputs', 'outputs')); names = {k: str(k) for k in range(1, 81)}
    for video in ('0f39OWEqJ24', '_-Z6wFjXtGQ'): (tmp_path/f'{video}.mp4').write_bytes(b'pictures')
    custom = i.get('custom_classes'); label = (lambda k: str(k)) if custom is None else (lambda k: str(custom[k-1]))
    df = read_ava(where(i['ann_file']), tmp_path, names, excluded=where(i['exclude_file']), proposals=where(i['proposal_file']),
                  least_score=i.get('person_det_score_thr', .9), classes=custom and [str(k) for k in custom])
    assert df['id'].tolist() == [o['img_key'] for o in want['items']]
    for row, o in zip(df.to_dict('records'), want['items']):
        assert row['at'] == o['timestamp']-o['timestamp_start'] and row['entities'] == o['entity_ids']
        np.testing.assert_allclose(row['boxes'], o['gt_bboxes']); assert row['box_labels'] == [[label(k) for k in b] for b in o['gt_labels']]
        if 'proposals' in o: np.testing.assert_allclose(row['proposals'], np.column_stack([o['proposals'], o['scores']]))


# ---- networks ----------------------------------------------------------------------------------------------------------------------
archs = {'slowonly_kinetics400-pretrained-r50-nl': roi_slowonly_r50_nl, 'slowonly_kinetics400-pretrained-r101': roi_slowonly_r101, 'slowonly': roi_slowonly_r50,
         'slowfast_kinetics400-pretrained-r50-context_8xb16-4x16x1': roi_slowfast_r50_4x16, 'slowfast_kinetics400-pretrained-r50_8xb16-4x16x1': roi_slowfast_r50_4x16,
         'slowfast': roi_slowfast_r50_8x8}
stored = {p.name.removesuffix('.json.gz'): p for p in sorted((home/'models').iterdir())}
computed = ['slowonly_k700-pre-r50-context-temporal-max-nl-head_8xb8-8x8x1-focal-10e_ava-kinetics-rgb', 'slowfast_kinetics400-pretrained-r50-context_8xb16-4x16x1-20e_ava21-rgb',
            'slowonly_kinetics400-pretrained-r50_8xb16-4x16x1-8e_multisports-rgb']


def facts(name): return json.loads(gzip.decompress(stored[name].read_bytes()))
def network(fx):
    head, roi = fx['facts']['head'], fx['facts']['roi']
    arch = next(a for k, a in archs.items() if fx['config'].startswith(k))
    return arch(head['num_classes'], dropout=head['dropout_ratio'], time=roi['temporal_pool_mode'], context=roi['with_global'],
                hidden=any(k == 'roi_head.bbox_head.fc_cls.0.weight' for k, *_ in fx['state']))


@pytest.mark.parametrize('name', stored)
def test_parameters(name):
    fx = facts(name)
    with torch.device('meta'): net = network(fx)
    assert sum(p.numel() for p in net.parameters()) == fx['num_params']


def sampled(case):
    "Boxes and many-hot labels of the reference's training step: a positive box has the labels of the true box that it overlaps most"
    i, s = case['inputs'], case['sampled']; boxes = [torch.tensor([r[1:] for r in s['rois'] if r[0] == b]) for b in range(len(s['num_pos']))]
    rows = []
    for own, true, labels, n in zip(boxes, i['gt_boxes'], i['gt_labels_on'], s['num_pos']):
        hot = torch.zeros(len(own), i['num_classes'])
        for j, best in enumerate(box_iou(own, torch.tensor(true)).argmax(1)[:n]): hot[j, labels[best]] = 1
        rows.append(hot)
    return boxes, torch.cat(rows)


@pytest.mark.parametrize('name', computed)
def test_network_and_loss(name):
    fx = facts(name); net = network(fx).eval(); head = fx['facts']['head']; load_weights(net, state_of(fx))
    case = {c['name']: c for c in fx['cases']}; forward, loss = case['forward'], case['loss']
    x = torch.from_numpy(generator('input/imgs').standard_normal(forward['inputs']['imgs']['shape']).astype(np.float32))
    boxes, labels = sampled(loss)
    with torch.no_grad():
        features = net.features(x)
        out = net.head(features, [torch.tensor(b) for b in forward['inputs']['proposals']]); trained = net.head(features, boxes)
    check(out, forward['outputs']['cls_score'], forward['rtol'], forward['atol'])
    focal = [('loss', head['focal_alpha'], head['focal_gamma'])] if 'loss_focal_alpha3_gamma1' not in case else [('loss', 1., 0.), ('loss_focal_alpha3_gamma1', 3., 1.)]
    for k, alpha, gamma in focal:
        parts = BoxActionLoss(head['background_class'], head['multilabel'], alpha, gamma)(trained, labels); want = {n: o['sample'][0] for n, o in case[k]['outputs'].items()}
        assert float(parts['loss_action_cls']) == pytest.approx(want['loss_action_cls'], rel=1e-3)
        if head['multilabel']: assert [float(parts['recall']), float(parts['precision'])] == pytest.approx([want['recall@thr=0.5'], want['prec@thr=0.5']], abs=1e-5)


# ---- presets -----------------------------------------------------------------------------------------------------------------------
zoo = {e['config']: e for e in read('detection/zoo')}


@pytest.mark.parametrize('name', [n for n in stored if n in zoo])
def test_preset_has_the_network_and_the_loss(name):
    fx, p = facts(name), presets.find(name); head = fx['facts']['head']; loss = p.loss()
    with torch.device('meta'):
        net = p.model(); load_weights(net, {k: torch.empty(shape, dtype=getattr(torch, kind)) for k, shape, kind in fx['state']})
    pool = net.head.pool; roi = fx['facts']['roi']
    assert sum(o.numel() for o in net.parameters()) == fx['num_params'] and (pool.time, pool.context) == (roi['temporal_pool_mode'], roi['with_global'])
    assert (loss.first, loss.multi, loss.alpha, loss.gamma) == (head['background_class'], head['multilabel'], head['focal_alpha'], head['focal_gamma'])
    assert net.head.dropout.p == head['dropout_ratio']


def published(e): return next(float(v) for row in [*(r['metrics'] for r in e['results'] or []), *e['readme_rows']] for v in row.values())


@pytest.mark.parametrize('e', zoo.values(), ids=lambda e: e['config'])
def test_presets_are_as_published(e):
    p, r = presets.find(e['config']), e['recipe']; train, opt = r['train'], r['optimizer']
    assert p.urls == (e['weights_url'],) and [*p.metrics.values()] == [published(e)] and e['paper_url'] in (p.paper, None)
    assert (p.opt, p.base_lr, p.weight_decay, p.opt_kw) == (opt['type'], opt['lr'], opt['weight_decay'], dict(momentum=opt['momentum']))
    assert (p.batch, p.clip_grad, p.fit.epochs) == (r['batch_size_per_gpu'], r['clip_grad']['max_norm'], r['max_epochs'])
    assert p.base_batch == (r['auto_scale_lr'] or {}).get('base_batch_size', 8*p.batch) and [*p.mean, *p.std] == [*r['mean'], *r['std']]
    assert (p.n_out, p.background) == (r['head']['num_classes'], r['head']['multilabel']) and p.arch_kw.get('hidden', False) == ('nl-head' in p.mm or 'tricks' in p.mm)
    clip = p.sample.clip; assert (clip.clip_len, clip.interval) == (train['sampling']['clip_len'], train['sampling']['frame_interval'])
    first, crop, flip = train['spatial']; assert [first['scale_range'], crop['size'], flip['flip_ratio']] == [[256, 320], p.size, .5]
    assert p.train_tfms == (('RandomResize', dict(lo=256, hi=320)), ('RandomCrop', {}), ('Flip', {})) and r['test']['spatial'][0]['scale'] == [-1, p.short_side]
    warmup, fall = r['schedule']; rise, then = p.fit.lr
    assert (rise.end, rise.by_epoch) == (warmup['end'], not warmup.get('convert_to_iter_based', False))
    assert [*then.at] == fall['milestones'] if 'milestones' in fall else (then.begin, then.by_epoch) == (fall['begin'], False)


# ---- presets on a real clip --------------------------------------------------------------------------------------------------------
by_pipeline = {repr(p.clip_spec()): p for p in presets._all if p.task == 'detection'}


@pytest.mark.parametrize('p', by_pipeline.values(), ids=lambda p: p.name)
def test_pipelines(p, tmp_path):
    "Training sees a crop of the published size, tests the whole picture; boxes are where their people are in both"
    frames = np.random.default_rng(0).integers(0, 60, (120, 120, 160, 3), dtype=np.uint8); frames[:, 30:90, 40:80] = 250
    video = VideoFile(write_video(tmp_path/'v.mp4', frames), at=2.4); boxes = FrameBoxes(np.array([[.25, .25, .5, .75]]))
    spec = p.clip_spec()
    train, test = (pipeline.run(video, np.random.default_rng(1)) for pipeline in (spec.train_pipeline(), spec.test_pipeline()))
    assert train.clip.shape == spec.shape() and test.clip.shape == (3, p.sample.n_seen, 256, 341)
    for item in (train, test):
        (x1, y1, x2, y2), = boxes.follow(item).round().long().tolist()
        inside, rows, cols = item.clip[:, :, y1+6:y2-6, x1+6:x2-6].float(), item.clip[:, :, :max(y1-6, 0)], item.clip[..., :max(x1-6, 0)]
        assert inside.numel() and inside.mean() > 220 and all(o.float().mean() < 80 for o in (rows, cols) if o.numel())


def test_every_network_has_a_price():
    "Counted without memory, the whole frame's context included"
    for p in by_pipeline.values():
        operations, parameters = network_size(p)
        assert operations > 10 and parameters > 20
    assert network_size(presets.find('slowfast_r50_ava21_4x16_context'))[1] > network_size(presets.find('slowfast_r50_ava21_4x16'))[1]


# ---- the shell ---------------------------------------------------------------------------------------------------------------------
def test_from_the_shell(tmp_path, capsys):
    "Train, test with true and with found boxes, as AVA's protocol does, from one file that says what belongs together"
    def shell(*words): assert main([str(o) for o in words]) == 0; return capsys.readouterr().out
    make_puppets(tmp_path/'puppets', size=PuppetSize((0, 0), (0, 0), (4, 2)), parts=('groups',), progress=False)
    notes, told = 'puppets/annotations/groups', tmp_path/'scenes.json'
    files = {name: dict(boxes=f'{notes}_{o}.csv', excluded=f'{notes}_{o}_excluded_timestamps.csv') for name,o in (('train', 'train'), ('valid', 'val'))}
    told.write_text(json.dumps(dict(videos='puppets/groups', labels=f'{notes}_action_list.pbtxt', start=0, **files)))
    save_file(person_slim().state_dict(), tmp_path/'finder.safetensors')
    assert 'key frames' in shell('prepare', 'people', told, tmp_path/'found.npz', 'person_slim', '--weights', tmp_path/'finder.safetensors', '--least', 0)
    files['valid'] |= dict(proposals='found.npz', least_score=0)
    told.write_text(json.dumps(dict(videos='puppets/groups', labels=f'{notes}_action_list.pbtxt', start=0, **files)))
    small = 'arch=roi.roi_slowonly_slim', 'size=48', 'short_side=48', 'batch=4', 'epochs=1'
    made = shell('train', 'slowonly_r50_ava21_4x16', told, '--set', *small, '--weights', 'none', '--out', tmp_path/'made', '--workers', 0)
    assert '12 classes' in made and 'mAP@0.5' in made
    said = dict(o.rsplit(maxsplit=1) for o in shell('test', tmp_path/'made', told, '--workers', 0).splitlines() if o.startswith('mAP'))
    assert list(said) == ['mAP@0.5', 'mAP@0.5, found boxes']
    table = read_ava_set(told)
    learn = detect_learner(DetectDataLoaders.from_table(table, read_card(tmp_path/'made').clip_spec(), num_workers=0), roi_slowonly_slim)
    load_weights(learn.model, tmp_path/'made'/'model.safetensors')
    for column,value in zip(('boxes', 'proposals'), said.values()):
        found = action_boxes(learn, table[table['split'] == 'valid'], column, read_label_map(tmp_path/f'{notes}_action_list.pbtxt'))
        true = ava_map(found, tmp_path/f'{notes}_val.csv', tmp_path/f'{notes}_action_list.pbtxt', tmp_path/f'{notes}_val_excluded_timestamps.csv')
        assert float(value) == pytest.approx(true['overall'], abs=1e-4)
