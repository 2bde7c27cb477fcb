"JupyterLab on this machine's loopback in a headless Chromium: notebooks are opened, run and used as by hand"
import os, re, secrets, shutil, signal, socket, subprocess, sys, time
from base64 import b64decode
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import nbformat
import numpy as np
import psutil
from playwright.sync_api import Error

from project import root
from render import skipped

flags = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync '
         '--autoplay-policy=no-user-gesture-required').split()
overrides = '''{"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
                "@jupyterlab/docmanager-extension:plugin": {"autosave": false},
                "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}'''

faint_words = '''area => {
    const rgb = c => c.match(/[\\d.]+/g).map(Number);
    const ink = e => { const s = getComputedStyle(e); return e.ownerSVGElement ? s.fill : s.color };
    const light = c => c.slice(0, 3).map(v => (v /= 255) > .04 ? ((v+.055)/1.055)**2.4 : v/12.92).reduce((s, v, i) => s + v*[.2126, .7152, .0722][i], .05);
    const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c } return [255, 255, 255] };
    const contrast = e => { const [a, b] = [light(rgb(ink(e))), light(ground(e))]; return Math.max(a, b)/Math.min(a, b) };
    const says = e => (e.ownerSVGElement ? e.getClientRects().length : e.offsetParent) && [...e.childNodes].some(o => o.nodeType == 3 && o.data.trim());
    return [...area.querySelectorAll('*')].filter(e => says(e) && contrast(e) < (e.ownerSVGElement ? 4.5 : 3)).map(e => e.textContent.trim().slice(0, 40)) }'''   # WCAG's ratio


def is_live(cell): return '#| browser' in cell.source.splitlines()


def find_chromium():
    "Path of a Chromium, or None"
    return next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


def free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]


class Server:
    "A JupyterLab that sees only `folder`, with settings of its own"
    def __init__(self, folder):
        self.notebooks, self.log, self.token = folder/'notebooks', folder/'server.log', secrets.token_hex()
        for o in ('notebooks', 'settings'): (folder/o).mkdir(parents=True)
        (folder/'settings'/'overrides.json').write_text(overrides, encoding='utf-8')
        self.port, own = free_port(), {f'JUPYTER_{o}_DIR': str(folder/o.lower()) for o in ('CONFIG', 'DATA', 'RUNTIME')}
        env = {**os.environ, **own, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore::FutureWarning', 'JUPYTER_TOKEN': self.token,
               'PYTHONPATH': str(root), 'PYTHONFAULTHANDLER': '1', 'PYDEVD_DISABLE_FILE_VALIDATION': '1'}
        env.pop('MPLBACKEND', None)                                       # the notebook's own, as a user has it
        words = ['--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={self.port}', '--ServerApp.port_retries=0',
                 f'--ServerApp.root_dir={self.notebooks}', f'--LabApp.app_settings_dir={folder/"settings"}',
                 f'--LabApp.user_settings_dir={folder/"user"}', f'--LabApp.workspaces_dir={folder/"workspaces"}', '--LabApp.expose_app_in_browser=True']
        self.process = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *words], env=env, cwd=self.notebooks, stdout=self.log.open('w'), stderr=subprocess.STDOUT)
        try: self._wait()
        except BaseException: self.close(); raise

    def _wait(self, seconds=60):
        for _ in range(seconds*10):
            with socket.socket() as s:
                if s.connect_ex(('127.0.0.1', self.port)) == 0: return
            assert self.process.poll() is None, f'JupyterLab ended: {self.log.read_text()[-2000:]}'
            time.sleep(.1)
        raise TimeoutError(f'JupyterLab does not answer after {seconds} s: {self.log.read_text()[-2000:]}')

    def tracebacks(self):
        "What went wrong in the server and, outside of cells, in its kernels"
        return re.findall(r'Traceback \(most recent call last\)[\s\S]*?\n\S*(?:Error|Exception)\b.*', self.log.read_text())

    def stacks(self):
        "End all kernels and their processes; where each of their threads was"
        start = self.log.stat().st_size
        for o in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess): o.send_signal(signal.SIGABRT)
            time.sleep(.5)                                                # one after the other: all write into one file
        with self.log.open() as f: f.seek(start); return '\n'.join(o[:300] for o in f.read().splitlines())

    def close(self):
        self.process.terminate()                                          # takes its kernels along
        try: self.process.wait(20)
        except subprocess.TimeoutExpired: self.process.kill(); self.process.wait()


class Lab:
    "A page with JupyterLab; one kernel serves all notebooks, one after the other: only its first connection in a page has widgets"
    def __init__(self, server, browser, artifacts, docs=None):
        self.server, self.artifacts, self.docs, self.trouble = server, artifacts, docs, []
        self.page = browser.new_page(viewport=dict(width=1280, height=1000))
        self.page.on('console', lambda o: self.trouble.append(f'console: {o.text}') if o.type == 'error' else None)
        self.page.on('pageerror', lambda o: self.trouble.append(f'page: {o} {o.stack}'))
        self.page.goto(f'http://127.0.0.1:{server.port}/lab?reset&token={server.token}')
        self.page.wait_for_selector('.jp-LauncherCard, .jp-DirListing', timeout=60_000)
        self.page.evaluate('() => { window.kernel_trouble = [] }')
        self.kernel = self.start_kernel()

    def notebook(self, name, *cells):
        "Open a notebook with these cells and run it to the end"
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
        nb.metadata['kernelspec'] = dict(name='python3', display_name='python3', language='python')
        nbformat.write(nb, self.server.notebooks/f'{name}.ipynb')
        return Notebook(self, f'{name}.ipynb')

    def ask(self, method, address):
        "An answer of the server's REST interface"
        return self.page.request.fetch(f'http://127.0.0.1:{self.server.port}/api/{address}', method=method, headers=dict(Authorization=f'token {self.server.token}'))

    def work(self, script, given=None, seconds=300):
        "What `script`, JavaScript that waits for a kernel, makes of `given`; kernels that take too long end and say where they were"
        limit = 'new Promise((_, no) => setTimeout(() => no(new Error("the kernel takes too long")), ms))'
        try: return self.page.evaluate(f'([given, ms]) => Promise.race([({script})(given), {limit}])', [given, seconds*1000])
        except Error as e:
            if 'the kernel takes too long' not in e.message: raise
            raise TimeoutError(f'{given}: not within {seconds} s\n{self.server.stacks()}') from None

    def start_kernel(self): return self.ask('POST', 'kernels').json()['id']

    def tutorial(self, name):
        "Open a tutorial as it stands, with its text, on a kernel of its own, and run it; cells that are slow or need a GPU are left out"
        nb = nbformat.read(root/'nbs'/'tutorials'/f'{name}.ipynb', as_version=4)
        nb.cells = [o for o in nb.cells if o.cell_type != 'code' or is_live(o) or not skipped(o)]
        for o in nb.cells:
            if o.cell_type == 'code': o.outputs, o.execution_count = [], None
        nbformat.write(nb, self.server.notebooks/f'{name}.ipynb')
        return Notebook(self, f'{name}.ipynb', self.start_kernel())

    def book(self, path, *cells):
        "Open one of vidbook's notebooks and run it, all but the cell that removes its files"
        nb = nbformat.read(root/'nbs'/f'{path}.ipynb', as_version=4)
        own = [o.source for o in nb.cells if o.cell_type == 'code' and '.cleanup()' not in o.source and not skipped(o)]
        return self.notebook(path.replace('/', '_'), 'import ipywidgets; ipywidgets.Widget.close_all()   # those of notebooks before', *own, *cells)

    def theme(self, name):
        "Light or Dark"
        self.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", f'JupyterLab {name}')
        self.page.wait_for_selector(f'body[data-jp-theme-name="JupyterLab {name}"]', state='attached')
        self.page.wait_for_selector('#jupyterlab-splash', state='detached')      # JupyterLab's veil: changed twice within its 200 ms it is removed twice

    def until(self, true, what, seconds=15):
        "Wait until `true()` is"
        end = time.time()+seconds
        while not (value := true()):
            assert time.time() < end, f'{what}: not within {seconds} s'
            self.page.wait_for_timeout(50)
        return value

    def troubles(self):
        "Errors of the page, of the kernel and of the server since the last call"
        found = self.trouble + self.page.evaluate('() => window.kernel_trouble.splice(0)') + self.server.tracebacks()
        self.trouble.clear()
        return found


class Notebook:
    "A notebook in the page, on the kernel that serves all or on one of its own, which ends with it"
    def __init__(self, lab, path, kernel=None):
        self.lab, self.page, self.kernel = lab, lab.page, kernel
        lab.work('''async ([path, id]) => {
            const panel = await jupyterapp.commands.execute('docmanager:open', {path, kernel: {id}});
            await panel.revealed; await panel.sessionContext.ready;
            panel.sessionContext.iopubMessage.connect((_, o) => {
                if (o.header.msg_type == 'error') kernel_trouble.push(o.content.traceback.join('\\n'));
                if (o.header.msg_type == 'stream' && o.content.text.includes('Traceback')) kernel_trouble.push(o.content.text);
            }); }''', [path, kernel or lab.kernel])
        self.element = self.page.locator('.jp-NotebookPanel:not(.lm-mod-hidden)')
        assert self.command('run-all-cells'), f'{path}: {self.errors() or self.lab.troubles()}'

    def cells(self):
        "Its cells with what they have shown, as nbformat has them"
        return self.page.evaluate('() => jupyterapp.shell.currentWidget.content.model.toJSON().cells')

    def errors(self):
        "Cells that ended in an error, with it"
        return [f'{o["source"]}\n{e["ename"]}: {e["evalue"]}' for o in self.cells() for e in o.get('outputs', ()) if e['output_type'] == 'error']

    def command(self, name): return self.lab.work("name => jupyterapp.commands.execute(`notebook:${name}`).then(o => o !== false)", name)

    def show(self, code):
        "Run `code` in a new last cell; its outputs"
        self.page.evaluate('''code => { const o = jupyterapp.shell.currentWidget.content; o.activeCellIndex = o.widgets.length-1; }''', code)
        self.command('insert-cell-below')
        self.page.evaluate('code => jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource(code)', code)
        assert self.command('run-cell'), f'{code}: {self.lab.troubles()}'
        return Shown(self.lab, self.element.locator('.jp-Cell').last.locator('.jp-OutputArea').first)

    def shown(self, text):
        "What the cell that ends in `text` shows"
        cell = self.element.locator('.jp-CodeCell', has=self.page.locator('.jp-InputArea', has_text=re.compile(re.escape(text)+r'\s*$'))).last
        cell.scroll_into_view_if_needed()
        return Shown(self.lab, cell.locator('.jp-OutputArea').first)

    def restart(self):
        "Another kernel under the same notebook, run to the end"
        self.lab.work("async () => { const o = jupyterapp.shell.currentWidget.sessionContext; await o.restartKernel(); await o.session.kernel.info }")
        assert self.command('run-all-cells'), f'after the restart: {self.lab.troubles()}'

    def outputs(self): return self.element.locator('.jp-OutputArea-output')

    def screenshot(self, name):
        "The whole of it from top to bottom, in the dark and in the light theme; what cells have shown must be readable in both"
        self.page.set_viewport_size(dict(width=1280, height=min(self.element.locator('.jp-WindowedPanel-outer').evaluate('o => o.scrollHeight')+150, 16_000)))
        self.page.mouse.move(0, 0)                                        # a row under the mouse has another colour
        for theme in ('Dark', 'Light'):
            self.lab.theme(theme)
            self.page.wait_for_timeout(500)                               # so large a page is drawn late
            self.element.screenshot(path=self.lab.artifacts/f'{name}_{theme.lower()}.png')
            faint = [o for area in self.outputs().all() for o in area.evaluate(faint_words)]
            assert faint == [], f'{theme}: {faint}'
        self.page.set_viewport_size(dict(width=1280, height=1000))

    def close(self):
        self.page.evaluate('() => jupyterapp.shell.currentWidget.dispose()')
        if self.kernel: self.lab.ask('DELETE', f'kernels/{self.kernel}')


class Shown:
    "What a cell shows, and what a hand can do to it"
    def __init__(self, lab, area): self.lab, self.page, self.area = lab, lab.page, area

    def choose(self, label, text):
        "Choose in the menu that `label` stands beside"
        self.row(label).locator('select').select_option(label=text)

    def row(self, label):
        "The control that `label` stands beside"
        return self.area.locator('.jupyter-widgets', has=self.page.locator('> .widget-label', has_text=re.compile(f'^{re.escape(label)}$'))).first

    def chosen(self, label): return self.row(label).locator('select').evaluate('o => o.selectedOptions[0]?.label')
    def options(self, label): return self.row(label).locator('option').evaluate_all(r'o => o.map(x => x.label.replace(/\s/g, " "))')
    def click(self, text): self.area.get_by_role('button', name=text, exact=True).click()

    def drag(self, share, slider=0):
        "Drag a slider's handle to a share of its way"
        handle, way = (self.area.locator(o).nth(slider) for o in ('.noUi-handle', '.noUi-base'))
        handle.scroll_into_view_if_needed()
        a, b = handle.bounding_box(), way.bounding_box()
        y = a['y']+a['height']/2
        self.page.mouse.move(a['x']+a['width']/2, y); self.page.mouse.down()
        self.page.mouse.move(b['x']+b['width']*share, y, steps=5); self.page.mouse.up()

    def pixels(self, image='.widget-image'):
        "The pixels of a picture, uint8 (H, W, 3)"
        url = self.area.locator(image).first.evaluate('''async o => {
            for (let i = 0; i < 20; i++) try { await o.decode(); break } catch { await new Promise(f => setTimeout(f, 50)) }   // just replaced
            const c = document.createElement('canvas');
            c.width = o.naturalWidth; c.height = o.naturalHeight; c.getContext('2d').drawImage(o, 0, 0); return c.toDataURL(); }''')
        return cv2.imdecode(np.frombuffer(b64decode(url.split(',')[1]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    @contextmanager
    def changes(self, look, what='what is seen changes'):
        "After the block `look()` is another one than before"
        before = look()
        yield
        self.lab.until(lambda: not np.array_equal(look(), before), what)

    def screenshot(self, name):
        "Into the artifacts' folder, in the dark and in the light theme; all words must be readable in both"
        for theme in ('Dark', 'Light'):
            self.lab.theme(theme)
            self.area.screenshot(path=self.lab.artifacts/f'{name}_{theme.lower()}.png')
            assert (faint := self.area.evaluate(faint_words)) == [], f'{theme}: {faint}'
        if self.lab.docs: self.area.screenshot(path=self.lab.docs/f'{name}.png')
