"Packaging, read from settings.ini; decord has no wheel for every machine, hence the markers"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['=']); parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

setup(name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], license='Apache-2.0', url=cfg['git_url'],
      author=cfg['author'], author_email=cfg['author_email'], keywords=cfg['keywords'],
      long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
      packages=find_packages(include=['vidbook', 'vidbook.*']), include_package_data=True, zip_safe=False,
      python_requires='>='+cfg['min_python'], install_requires=cfg['requirements'].split()+cfg['decord_requirements'].split('|'),
      extras_require={o: cfg[f'{o}_requirements'].split() for o in ('onnx', 'dev', 'browser')},
      entry_points=dict(console_scripts=cfg['console_scripts'].split(), nbdev=[f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]))
