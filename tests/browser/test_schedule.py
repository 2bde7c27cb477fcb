"ScheduleExplorer: another value, another axis, values under the pointer"
import pytest


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.book('widgets/schedule')
    yield opened
    opened.close()


@pytest.fixture
def shown(lab, notebook): return notebook.show("ScheduleExplorer(['tsm_r50_k400_1x1x8', plan_of(mine, 'mine', lr=.03)])")


def test_redraw(lab, shown):
    "Each choice draws the plot anew"
    title = shown.area.locator('.js-plotly-plot .ytitle')
    for label,option in (('value', 'momentum'), ('along', None), ('scale', 'log')):
        drawn = shown.area.locator('.js-plotly-plot .plot-container').first
        drawn.wait_for()
        with shown.changes(drawn.inner_html, f'{label} draws anew'):
            shown.choose(label, option if option in shown.options(label) else shown.options(label)[1])
    assert title.first.is_visible()
    shown.screenshot('schedule')


def test_hover(lab, shown):
    "Values under the pointer"
    plot = shown.area.locator('.js-plotly-plot .nsewdrag').first
    plot.wait_for(state='attached'); plot.scroll_into_view_if_needed(); box = plot.bounding_box()
    for share in (.3, .31, .32): lab.page.mouse.move(box['x']+share*box['width'], box['y']+box['height']/2)
    lab.until(lambda: shown.area.locator('.hoverlayer .hovertext, .hoverlayer .legend').count(), 'values appear')
