"The recipes on miniatures of the published layouts, and on archives that mean harm"
import importlib.util, io, shutil, subprocess, sys, tarfile, zipfile

import pytest
from project import root

from vidbook.data.lists import read_video_list
from vidbook.data.recipe import run_recipe
from vidbook.data.table import TableError, check_table, read_table
from vidbook.utils import ArchiveError, VidbookError

script = root/'data_recipes'/'ucf101.py'
spec = importlib.util.spec_from_file_location('ucf101_recipe', script)
recipe = importlib.util.module_from_spec(spec); spec.loader.exec_module(recipe)

# Not the order of the alphabet, and one folder spelt unlike its files: as in the real data set
files = dict(HammerThrow='HammerThrow', Hammering='Hammering', HandstandPushups='HandStandPushups')
clips = [f'{c}/v_{f}_g{g:02}_c{i:02}.avi' for c, f in files.items() for g in (1, 2, 3, 4) for i in (1, 2)]
counts = dict(classes=3, videos=24, train=(18, 18, 18))


def lists(end='\n'):
    "The official annotation files: group k tests in split k"
    out = {'classInd.txt': [f'{i} {c}' for i, c in enumerate(files, 1)]}
    for k in (1, 2, 3):
        test = [o for o in clips if f'_g{k:02}_' in o]
        out[f'testlist{k:02}.txt'] = test
        out[f'trainlist{k:02}.txt'] = [f"{o} {list(files).index(o.split('/')[0])+1}" for o in clips if o not in test]
    return {f'ucfTrainTestlist/{name}': ''.join(o+end for o in lines) for name, lines in out.items()}


def zipped(path, members):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items(): z.writestr(name, data)
    return path


def tarred(path, members, **special):
    with tarfile.open(path, 'w:gz') as t:
        for name, data in members.items():
            info = tarfile.TarInfo(name); info.size = len(data)
            t.addfile(info, io.BytesIO(data.encode()))
        for name, kind in special.items():
            info = tarfile.TarInfo(name); info.type, info.linkname = kind, '/etc/passwd'
            t.addfile(info)
    return path


@pytest.fixture
def got(tmp_path):
    "What was downloaded"
    videos = {f'UCF-101/{o}': f'pictures of {o}' for o in clips}
    return tmp_path, zipped(tmp_path/'lists.zip', lists()), zipped(tmp_path/'videos.zip', videos), videos


def prepare(got, annotations=None, videos=None, **kw):
    work, a, v, _ = got
    return recipe.prepare(annotations or a, videos or v, work/'out'/'ucf101', counts=kw.pop('counts', counts), **kw)


def untouched(work, before):
    "Nothing new in the whole folder"
    return set(work.rglob('*')) - before <= {work/'out', work/'out'/'ucf101'}


def test_table_and_lists(got):
    df = check_table(read_table(prepare(got)))
    assert df.attrs['vocab'] == ['HammerThrow', 'Hammering', 'HandstandPushups']
    assert len(df) == 24 and df['split'].value_counts().to_dict() == dict(train=18, valid=6)
    assert set(df[df['split'] == 'valid']['source']) == {'g01'} and df['source'].nunique() == 4
    assert set(df[df['split2'] == 'valid']['source']) == {'g02'}
    out = got[0]/'out'/'ucf101'
    assert sorted(p.name for p in out.glob('ucf101_*')) == sorted(f'ucf101_{s}_split_{k}_videos.txt' for s in ('train', 'val') for k in (1, 2, 3))
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ['annotations', 'videos'] and (out/'annotations'/'classInd.txt').is_file()
    for k in (1, 2, 3):
        for split, name in dict(train='train', valid='val').items():
            got_list = check_table(read_video_list(out/f'ucf101_{name}_split_{k}_videos.txt', out/'videos', df.attrs['vocab'], split))
            rows = df[df[f'split{k}'] == split]
            assert got_list['id'].tolist() == rows['id'].tolist() and got_list['label'].tolist() == rows['label'].tolist()
    assert 'Hammering/v_Hammering_g01_c01.avi 1\n' in (out/'ucf101_val_split_1_videos.txt').read_text()


def test_again_with_another_split(got):
    first = read_table(prepare(got))
    second = read_table(prepare(got, split=3))
    assert first['split'].equals(first['split1']) and second['split'].equals(second['split3'])
    assert not [p for p in (got[0]/'out').rglob('.*')]


def test_tar_and_carriage_returns(got):
    work, *_, videos = got
    df = read_table(prepare(got, annotations=zipped(work/'cr.zip', lists('\r\n')), videos=tarred(work/'videos.tgz', videos)))
    assert len(check_table(df)) == 24


def test_folders_as_unpacked_by_hand_and_respelt(got):
    work, *_ = got
    for o in clips:
        path = work/'UCF-101'/o.replace('HandstandPushups', 'HandStandPushups')   # as a tidy person might do
        path.parent.mkdir(parents=True, exist_ok=True); path.write_text('pictures')
    df = check_table(read_table(prepare(got, videos=work/'UCF-101')))
    assert len(df) == 24 and set(df['label']) == set(files)
    assert not (work/'out'/'ucf101'/'videos').exists()
    assert 'HandStandPushups/v_HandStandPushups_g01_c01.avi 2\n' in (work/'out'/'ucf101'/'ucf101_val_split_1_videos.txt').read_text()


def changed(name, old, new):
    "The annotations with `old` for `new` in one file"
    files = lists()
    key = f'ucfTrainTestlist/{name}'
    assert old in files[key]
    return files | {key: files[key].replace(old, new)}


@pytest.mark.parametrize('name, old, new, why', [
    ('classInd.txt', '3 HandstandPushups\n', '', 'lists.zip/trainlist01.txt, line 13: HandstandPushups/v_HandStandPushups_g02_c01.avi is not in the folder of a class'),
    ('trainlist02.txt', '_g01_c01.avi 2', '_g01_c01.avi 1', 'line 7: Hammering has the number 1 but is class 2'),
    ('trainlist02.txt', 'HammerThrow/v_HammerThrow_g01_c01', '../../../etc', '../../../etc.avi is not in the folder of a class'),
    ('testlist03.txt', 'HammerThrow/v_HammerThrow_g03_c01.avi\n', '', 'is not in all three splits'),
    ('testlist03.txt', '_g03_c01.avi', '_g04_c01.avi', 'is in both lists'),
    ('testlist01.txt', '_g01_c01.avi', '.avi', 'is not in all three splits'),
])
def test_annotations_that_do_not_fit(got, name, old, new, why):
    "Named by archive, file and line"
    bad = zipped(got[0]/'lists.zip', changed(name, old, new))
    before = set(got[0].rglob('*'))
    with pytest.raises(TableError) as e: prepare(got, annotations=bad, counts={})
    assert why in str(e.value) and untouched(got[0], before)


def test_counts_and_sums(got):
    with pytest.raises(TableError, match='3 classes where 101 are expected'): prepare(got, counts=recipe.published)
    with pytest.raises(TableError, match='18 training videos in split 2 where 17'): prepare(got, counts=counts | dict(train=(18, 17, 18)))
    with pytest.raises(TableError, match='24 listed videos where 25'): prepare(got, counts=counts | dict(videos=25))
    with pytest.raises(TableError, match='lists.zip is not the file expected'): prepare(got, annotations_sha256='0'*64)
    with pytest.raises(TableError, match='videos.zip is not the file expected'): prepare(got, videos_sha256='0'*64)
    with pytest.raises(TableError, match='there is no split 4'): prepare(got, split=4)
    assert not list((got[0]/'out').rglob('*.*'))


def test_a_missing_video_and_a_second_download(got):
    "A failed start leaves no videos, so that the next archive is unpacked"
    work, *_, videos = got
    short = {k: v for k, v in videos.items() if 'Hammering_g02_c01' not in k}
    with pytest.raises(TableError, match='videos.zip lacks 1 of 24 listed videos, first Hammering/v_Hammering_g02_c01.avi'):
        prepare(got, videos=zipped(work/'videos.zip', short))
    assert not list((work/'out').rglob('*.*'))
    zipped(work/'videos.zip', videos)
    assert len(check_table(read_table(prepare(got)))) == 24


@pytest.mark.parametrize('why, evil', [
    ('outside', {'../../escaped.avi': 'x'}), ('outside', {'UCF-101/../../../escaped.avi': 'x'}), ('outside', {'/tmp/vidbook-escaped.avi': 'x'}),
    ('outside', {'..\\escaped.avi': 'x'}), ('outside', {'C:\\escaped.avi': 'x'}), ('broken', {'UCF-101': 'a file where a folder is'}),
    ('would unpack to more', {'UCF-101/bomb.avi': '\0'*80_000_000})])
@pytest.mark.parametrize('pack', [zipped, tarred])
def test_evil_members(got, pack, why, evil):
    work, *_, videos = got
    bad = pack(work/'bad', videos | evil)
    before = set(work.rglob('*'))
    with pytest.raises(ArchiveError, match=why): prepare(got, videos=bad)
    assert untouched(work, before)


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(got, kind):
    work, *_, videos = got
    bad = tarred(work/'bad.tgz', videos, odd=kind)
    before = set(work.rglob('*'))
    with pytest.raises(ArchiveError, match="'odd' is a link or device"): prepare(got, videos=bad)
    assert untouched(work, before)


def test_cut_and_changed_archives(got):
    "Wherever a download stopped, and whatever byte is wrong, there is one sentence and nothing left"
    work, *_, videos = got
    for pack, name in (zipped, 'videos.zip'), (tarred, 'videos.tgz'):
        whole = pack(work/name, videos).read_bytes()
        for data in [whole[:len(whole)*i//7] for i in range(1, 7)] + [whole[:i] + bytes([whole[i] ^ 0xff]) + whole[i+1:] for i in range(60, len(whole), len(whole)//9)]:
            (work/name).write_bytes(data)
            before = set(work.rglob('*'))
            try: prepare(got, videos=work/name)
            except VidbookError: assert untouched(work, before)
            else: assert {k: (work/'out/ucf101/videos'/k[8:]).read_text() for k in videos} == videos   # a byte that tells nothing, such as a date
            shutil.rmtree(work/'out')


def test_as_a_script(got, capsys):
    work, a, v, _ = got
    (work/'UCF101.rar').write_bytes(b'Rar!\x1a\x07\x01\x00'+bytes(20))
    done = subprocess.run([sys.executable, script, str(a), str(work/'UCF101.rar'), '--dest', str(work/'out')], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == 'ucf101: 3 classes where 101 are expected; download the archive again.\n'
    assert run_recipe(recipe.ucf101, [str(work/'UCF101.rar'), str(v), '--dest', str(work/'out')]) == 1
    assert 'unrar x' in (said := capsys.readouterr().err) and 'give the folder instead' in said and len(said.splitlines()) == 1


# ---- HMDB51 -----------------------------------------------------------------------------------------------------------------------
hmdb_spec = importlib.util.spec_from_file_location('hmdb51_recipe', root/'data_recipes'/'hmdb51.py')
hmdb = importlib.util.module_from_spec(hmdb_spec); hmdb_spec.loader.exec_module(hmdb)

hmdb_clips = {c: [f'{film}_{c}_u_nm_np1_ba_goo_{i}.avi' for film in ('April_09', 'Who&_(I);[Am]!', 'v2.0') for i in (0, 1)] for c in ('wave', 'brush_hair')}
hmdb_counts = dict(classes=2, videos=12, train=(4, 4, 4), valid=(4, 4, 4))


def hmdb_lists(end=' \n'):
    "One film to train with, one to test, one for neither, in turn"
    out = {}
    for label, names in hmdb_clips.items():
        for k in (1, 2, 3): out[f'testTrainMulti_7030_splits/{label}_test_split{k}.txt'] = ''.join(f'{o} {(i//2+k) % 3}{end}' for i, o in enumerate(names))
    return out


@pytest.fixture
def hmdb_got(tmp_path):
    videos = {f'hmdb51_org/{label}/{o}': o for label, names in hmdb_clips.items() for o in names}
    return tmp_path, zipped(tmp_path/'lists.zip', hmdb_lists()), zipped(tmp_path/'videos.zip', videos)


def test_hmdb51(hmdb_got):
    work, lists_, videos = hmdb_got
    df = check_table(read_table(hmdb.prepare(lists_, videos, work/'out', counts=hmdb_counts)))
    assert df.attrs['vocab'] == ['brush_hair', 'wave'] and len(df) == 8 and df['split'].value_counts().to_dict() == dict(train=4, valid=4)
    assert set(df[df['split'] == 'train']['source']) == {'April_09'} and set(df[df['split'] == 'valid']['source']) == {'Who&_(I);[Am]!'}
    for k in (1, 2, 3):
        for split, name in dict(train='train', valid='val').items():
            listed = check_table(read_video_list(work/'out'/f'hmdb51_{name}_split_{k}_videos.txt', work/'out'/'videos', df.attrs['vocab'], split))
            assert len(listed) == 4 and set(listed['label']) == {'brush_hair', 'wave'}
    third = read_table(hmdb.prepare(lists_, videos, work/'out', 3, counts=hmdb_counts))
    assert set(third[third['split'] == 'train']['source']) == {'Who&_(I);[Am]!'} and third['split'].equals(third['split3'])


@pytest.mark.parametrize('old, new, why', [(' 1 \n', ' 7 \n', 'is not a file name and 0, 1 or 2'), (' 1 \n', ' 0 \n', 'training videos in split 1'),
                                           ('goo_0.avi', 'goo_9.avi', 'is not in all three splits')])
def test_hmdb51_lists_that_do_not_fit(hmdb_got, old, new, why):
    work, _, videos = hmdb_got
    files, key = hmdb_lists(), 'testTrainMulti_7030_splits/wave_test_split1.txt'
    files[key] = files[key].replace(old, new)
    with pytest.raises(TableError, match=why): hmdb.prepare(zipped(work/'lists.zip', files), videos, work/'out', counts=hmdb_counts)
    assert not (work/'out'/'hmdb51.csv').exists()
