"""An engine that is given a hub's name: it downloads the model, then serves as the fake server does.

python downloading_server.py NAME PORT FLAGS.json
"""

import os
import sys

from huggingface_hub import snapshot_download

from tests.serving import fake_server

if __name__ == "__main__":
    snapshot_download(sys.argv[1])
    os.execv(sys.executable, [sys.executable, "-S", fake_server.__file__, *sys.argv[2:]])
