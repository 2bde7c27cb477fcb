"ZooExplorer: filters, another network, two lines of code"
import pytest


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.book('widgets/zoo')
    yield opened
    opened.close()


@pytest.fixture
def shown(lab, notebook): return notebook.show('ZooExplorer(some)')


def code(shown): return ' '.join(shown.area.locator('pre').all_inner_texts())


def test_choose(lab, shown):
    "Another algorithm narrows the networks down; the chosen one's code is shown"
    lab.until(lambda: shown.area.locator('.js-plotly-plot').count(), 'the plot')
    with shown.changes(lambda: shown.options('network')): shown.choose('algorithm', 'tsn')
    lab.until(lambda: 'presets.find' in code(shown), 'code')
    names = shown.options('network')
    with shown.changes(lambda: code(shown)): shown.choose('network', names[-1])
    lab.until(lambda: names[-1] in code(shown), 'the code of the chosen network')
    shown.screenshot('zoo')


def test_price(lab, shown):
    axis = shown.area.locator('.js-plotly-plot .xtitle').first
    axis.wait_for()
    shown.choose('against', 'million parameters')
    lab.until(lambda: axis.text_content() == 'million parameters', 'the other axis')
