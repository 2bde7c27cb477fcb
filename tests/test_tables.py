"Tables on the way through pandas, pickling and other programs; what a person gets to read when one is wrong"
import multiprocessing, os, pickle, signal, subprocess, sys, time
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from vidbook.data.lists import read_frame_list, read_video_list, write_video_list
from vidbook.data.table import TableError, check_table, from_folders, read_table, read_vocab, split_by_group, table_x, vocab_of, write_table
from vidbook.utils import VidbookError, atomic_path


@pytest.fixture
def videos(tmp_path):
    for c in 'abc':
        for i in range(6):
            path = tmp_path/c/f'{i}.mp4'
            path.parent.mkdir(exist_ok=True); path.write_bytes(b'x')
    return tmp_path


def test_root_and_vocabulary_stay_with_the_table(videos):
    df = from_folders(videos)
    for same in (df[df['split'] == 'train'], df.sample(frac=1, random_state=0), df.reset_index(drop=True), df.assign(fps=25.), df.sort_values('id'),
                 pd.concat([df[:4], df[4:]]), df.copy(), pickle.loads(pickle.dumps(df)), split_by_group(df, 'label'), read_table(df)):
        assert same.attrs == dict(root=str(videos), vocab=['a', 'b', 'c'])


@pytest.mark.parametrize('name', ['t.csv', 'deep/er/t.csv'])
def test_saved_and_read(videos, name):
    df = from_folders(videos).assign(start=[None, 1.25]*9, note=['x, "y"\nz', 'tänzeln']*9)
    write_table(df, videos/name)
    back = read_table(videos/name, root=videos)
    pd.testing.assert_frame_equal(back.drop(columns='origin'), df, check_dtype=False)
    assert check_table(back).attrs == df.attrs


def test_parquet(videos):
    df = from_folders(videos).assign(label=[['a', 'b'], ['c']]*9)
    if not find_spec('pyarrow'):
        with pytest.raises(ImportError, match='pip install pyarrow'): write_table(df, videos/'t.parquet')
        assert not list(videos.glob('*.parquet'))
        return
    write_table(df, videos/'t.parquet')
    back = read_table(videos/'t.parquet', root=videos)
    assert back['label'].tolist() == df['label'].tolist() and check_table(back).attrs == df.attrs


def test_texts_stay_texts(tmp_path):
    "Classes called 007, NA, true or 1e3, and ids that look like numbers"
    labels = ['007', 'NA', 'true', '1e3', 'null', '[x', '3.0']
    df = pd.DataFrame(dict(id=[f'0{i}' for i in range(7)], video=[f'{i}.mp4' for i in range(7)], label=labels, split='train'))
    write_table(df, tmp_path/'t.csv')
    back = read_table(tmp_path/'t.csv')
    assert back['label'].tolist() == labels and back['id'].tolist() == df['id'].tolist() and set(vocab_of(back)) == set(labels)


def test_numbers_from_other_programs():
    df = read_table(pd.DataFrame(dict(video=['a', 'b', 'c'], label=[0, 2, None], split=['train', 'train', 'test'])))
    assert df['label'].tolist() == ['0', '2', None] and df.attrs['vocab'] == ['0', '2']
    check_table(df, check_files=False)


def test_split_repeats_and_covers():
    "Every seed: whole sources on one side, both sides in each class, a share near the one asked for"
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(id=[str(i) for i in range(300)], label=rng.choice(list('abc'), 300), source=[f's{i}' for i in rng.integers(0, 60, 300)]))
    for seed in range(20):
        split = split_by_group(df, seed=seed)
        assert split.groupby('source')['split'].nunique().max() == 1
        assert .12 < (split['split'] == 'valid').mean() < .3
        assert pd.crosstab(split['label'], split['split']).min().min() > 0
        assert split_by_group(df, seed=seed)['split'].tolist() == split['split'].tolist()


def test_joined_tables_are_dealt_out():
    "Rows may share an index, as after `pd.concat`; test rows stay"
    df = pd.DataFrame(dict(id=list('pqrst'), label=['a', 'b', 'a', 'b', 'a'], split='train'))
    both = pd.concat([df, df.assign(id=list('uvwxy'), split='test'), df.assign(id=list('zäöü_'))])
    assert split_by_group(both, 'id')['split'].tolist()[5:10] == ['test']*5
    assert split_by_group(both, 'id')['split'].value_counts().to_dict() == dict(train=8, valid=2, test=5)


def test_clips_without_a_source_stand_alone():
    df = pd.DataFrame(dict(id=list('pqrstuvwxy'), label=['a', 'b']*5, source=[None, np.nan]*5))
    assert split_by_group(df)['split'].value_counts().to_dict() == dict(train=8, valid=2)


def test_list_to_table_to_list(tmp_path):
    text = ''.join(f'some/path/{i:03}.mp4 {i % 4}\n' for i in range(100))
    (tmp_path/'list.txt').write_text(text)
    for vocab in None, 4, list('wxyz'):
        write_video_list(read_video_list(tmp_path/'list.txt', vocab=vocab), tmp_path/'again.txt')
        assert (tmp_path/'again.txt').read_text() == text


def test_labels_of_a_list_without_names_keep_their_numbers(tmp_path):
    (tmp_path/'list.txt').write_text('a.mp4 5\nb.mp4 2\n')
    df = read_video_list(tmp_path/'list.txt')
    assert vocab_of(df) == list('012345')
    write_video_list(df, tmp_path/'again.txt')
    assert (tmp_path/'again.txt').read_text() == 'a.mp4 5\nb.mp4 2\n'


def test_rows_become_values_that_workers_take(videos):
    df = from_folders(videos)
    items = [table_x(row, df.attrs['root']) for row in df.to_dict('records')]
    with multiprocessing.get_context('spawn').Pool(1) as pool: assert pool.map(os.path.exists, items) == [True]*18


@pytest.mark.parametrize('name, text, why', [
    ('t.csv', 'video,label\na.mp4,x\nb.mp4,y,z\n', 'is no csv table'),
    ('t.csv', 'video;label\na.mp4;x\n', "has no column 'video'"),
    ('t.csv', 'Video,label\na.mp4,x\n', "rename 'Video' to 'video'"),
    ('t.csv', 'video,label,split\na/0.mp4,x,train\nb/0.mp4,,train\n', 't.csv, line 3: the clip has no label'),
    ('t.csv', 'video,label,split\na/0.mp4,x,train\na/0.mp4,y,valid\n', "t.csv, line 3: the id 'a/0.mp4' comes a second time"),
    ('t.csv', 'video,label,split\na/0.mp4,x,train\nb,y,valid\n', 'is a folder where a video file should be'),
    ('t.csv', 'video,label,split\na/0.mp4,x,train\n,y,valid\n', 't.csv, line 3: there is no video'),
    ('t.csv', 'video,label,split\na/0.mp4,x,train\nb/9.mp4,y,valid\nb/8.mp4,y,valid\n', '9.mp4; correct the path, or root='),
    ('t.csv', 'video,label,split\na/0.mp4,x,0\n', "the split is '0'; write 'train'"),
    ('t.csv', 'video,label,split\na/0.mp4,x,train\nb/0.mp4,x,valid\n', "all 2 clips are labelled 'x'"),
    ('t.csv', 'video,label,split\n', 'the table has no rows'),
    ('l.txt', 'a/0.mp4 0\nb/0.mp4 3\n', 'l.txt, line 2: the label 3 is out of range'),
    ('l.txt', 'a/0.mp4 0\nb/0.mp4 x\n', "l.txt, line 2: the label is 'x'"),
    ('l.txt', 'a/0.mp4 0\nb/0.mp4\n', 'l.txt, line 2: the clip has no label'),
    ('l.txt', '', 'l.txt is empty'),
])
def test_one_sentence(videos, name, text, why):
    (videos/name).write_text(text)
    with pytest.raises(TableError) as e: check_table(read_table(videos/name) if name == 't.csv' else read_video_list(videos/name, vocab=['x', 'y', 'z']))
    assert why in str(e.value) and '\n' not in str(e.value) and str(e.value).endswith('.')


def test_frames(videos):
    (videos/'l.txt').write_text('a 6 0\nb 6 1\na/0.mp4 6 1\n')
    with pytest.raises(TableError, match='l.txt, line 3: .* is a file where a folder of frames should be'): check_table(read_frame_list(videos/'l.txt', vocab=2))


def test_names_with_braces(videos):
    "Texts of the data are not taken for format strings"
    df = from_folders(videos)
    df.loc[3, 'label'] = '{0}{nope}'
    with pytest.raises(TableError, match=r'\{0\}\{nope\}'): check_table(df)


def test_vocabularies(tmp_path):
    for text, why in ('a\n\nb\n', 'line 2: an empty line'), ('a\nb\na\n', "line 1: the class 'a' again"):
        (tmp_path/'v.txt').write_text(text)
        with pytest.raises(TableError, match=why): read_vocab(tmp_path/'v.txt')
    (tmp_path/'v.txt').write_text('2 step\n1 swing\nfox trot\n')   # not numbered throughout: names as they are
    assert read_vocab(tmp_path/'v.txt') == ['2 step', '1 swing', 'fox trot']


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_tidies(tmp_path):
    dest = tmp_path/'t.csv'
    dest.write_text('old')
    code = f'import sys, time\nfrom vidbook.utils import atomic_path\nwith atomic_path({str(dest)!r}) as p:\n p.write_text("half"); print("written", flush=True); time.sleep(60)'
    writer = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == 'written\n'
    writer.send_signal(signal.SIGKILL); writer.wait()
    assert dest.read_text() == 'old' and len(list(tmp_path.iterdir())) == 2
    with atomic_path(dest) as p: p.write_text('new')
    assert dest.read_text() == 'new' and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_old_table(tmp_path):
    df = pd.DataFrame(dict(id=['1'], video=['a'], label=['x'], split=['train']))
    write_table(df, tmp_path/'t.csv')
    code = (f'import resource, signal, sys\nimport pandas as pd\nfrom vidbook.data.table import read_table, write_table\n'
            f'signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n'
            f'df = pd.concat([read_table({str(tmp_path/"t.csv")!r})]*9999)\n'
            f'try: write_table(df, {str(tmp_path/"t.csv")!r})\nexcept OSError as e: sys.exit(7)')
    assert subprocess.run([sys.executable, '-c', code]).returncode == 7
    assert len(read_table(tmp_path/'t.csv')) == 1 and sorted(p.name for p in tmp_path.iterdir()) == ['t.classes.txt', 't.csv']


def test_reading_a_large_list_takes_no_time(tmp_path):
    "As many lines as Kinetics-400 has videos"
    (tmp_path/'list.txt').write_text(''.join(f'class {i % 400}/video{i}_000001_000011.mp4 {i % 400}\n' for i in range(240_000)))
    began = time.process_time()
    df = check_table(read_video_list(tmp_path/'list.txt', vocab=400), check_files=False)
    assert len(df) == 240_000 and time.process_time()-began < 10


def test_errors_are_vidbooks(): assert issubclass(TableError, VidbookError)
