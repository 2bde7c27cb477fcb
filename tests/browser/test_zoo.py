"ZooExplorer: filters, another network by the menu or by its point, two lines of code"
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


def test_press_a_point(lab, shown):
    "The code is that of the network whose point is pressed, as its label says; so it is on the chart that is drawn then"
    plot = shown.area.locator('.js-plotly-plot')
    plot.locator('.point').first.wait_for(); plot.scroll_into_view_if_needed()
    for _ in range(2):
        before = shown.chosen('network')
        name = point_at(lab, plot, lambda o: o != before)
        lab.page.mouse.down(); lab.page.mouse.up()
        lab.until(lambda: f"presets.find('{name}')" in code(shown), 'the code of the network whose point is pressed')
        assert shown.chosen('network') == name and before not in code(shown).replace(name, '')
        lab.until(lambda: plot.locator('.point').count(), 'the chart is drawn anew')


def point_at(lab, plot, wanted):
    "Move over the points until one with a wanted name tells it"
    for point in plot.locator('.point').all():
        box = point.bounding_box()
        lab.page.mouse.move(box['x']+box['width']/2, box['y']+box['height']/2, steps=3)
        label = plot.locator('.hoverlayer .hovertext .line').first
        label.wait_for()
        lab.page.wait_for_timeout(200)                                    # the label of the point before may still be there
        if wanted(name := label.text_content()): return name
    raise AssertionError('no such point')
