"""A model server whose model is a file of answers: `python canned_model.py MODEL_DIR PORT`.

`answers.json` in the folder holds an answer for each question, and `delay_s`, read again for each request.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.endpoint_client.fake_endpoint import FakeEndpoint


def canned(folder):
    def reply(asked):
        known = json.loads((folder / "answers.json").read_text("utf-8"))
        time.sleep(known.get("delay_s", 0))
        return next((answer for question, answer in known["answers"].items() if question in asked), "no idea")

    return reply


if __name__ == "__main__":
    endpoint = FakeEndpoint(int(sys.argv[2]))
    endpoint.reply = canned(Path(sys.argv[1]))
    endpoint.server.serve_forever()
