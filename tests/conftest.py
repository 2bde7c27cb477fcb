"Tests run alone on their machine: no display, no network, and beside each other"
import os, sys
from pathlib import Path

os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
sys.path.insert(0, str(Path(__file__).parent))

collect_ignore = ['browser']   # a stage of its own: python -m pytest tests/browser
