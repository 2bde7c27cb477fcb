"`python -m pytest tests/browser`: every widget is used in a real JupyterLab in a real Chromium; pictures of it go to `--artifacts`"
from importlib.util import find_spec
from pathlib import Path

import pytest

from lab import Lab, Server, find_chromium
from project import root


def pytest_addoption(parser):
    parser.addoption('--artifacts', default=str(root/'build'/'browser'), help='folder for screenshots')
    parser.addoption('--docs', action='store_true', help='also put the pictures of the widgets into nbs/images, where their notebooks show them')


def pytest_sessionstart(session):
    "Without a browser this fails, in one sentence"
    if not find_chromium(): pytest.exit('tests/browser needs Chromium, and there is none: install the chromium package of your system.', 1)
    missing = [o for o in ('playwright', 'jupyterlab', 'nbconvert') if not find_spec(o)]
    if missing: pytest.exit(f'tests/browser needs {", ".join(missing)}: pip install "vidbook[browser]"', 1)


@pytest.fixture(scope='session')
def artifacts(request):
    dest = Path(request.config.getoption('artifacts')); dest.mkdir(parents=True, exist_ok=True)
    return dest


@pytest.fixture(scope='session')
def browser():
    from lab import flags
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=find_chromium(), args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope='session')
def jupyter(tmp_path_factory, browser, artifacts, request):
    "One server, one page and one kernel for all tests of a process"
    server = Server(tmp_path_factory.mktemp('jupyter'))
    docs = root/'nbs'/'images' if request.config.getoption('docs') else None
    try: yield Lab(server, browser, artifacts, docs)
    finally: server.close()


@pytest.fixture
def lab(jupyter, request, artifacts):
    "A test fails if the page, the kernel or the server complains during it; how the page looks in the end is kept"
    yield jupyter
    jupyter.page.screenshot(path=artifacts/f'{request.node.name}.png')
    assert jupyter.troubles() == []


def pytest_sessionfinish(session, exitstatus):
    "A skip is a failure here; workers of xdist have no reporter: the process that started them counts"
    reporter = session.config.pluginmanager.get_plugin('terminalreporter')
    if reporter and reporter.stats.get('skipped') and not exitstatus: session.exitstatus = pytest.ExitCode.TESTS_FAILED
