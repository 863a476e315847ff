"""A model server whose model is a file of answers: `python canned_model.py MODEL_DIR PORT`.

`answers.json` in the folder holds an answer for each question, `delay_s`, and words `fails`: a question with one of
them gets a 500. It is read again for each request.
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


def faulty(folder):
    def fault(number, body):
        known = json.loads((folder / "answers.json").read_text("utf-8"))
        return 500 if any(word in json.dumps(body) for word in known.get("fails", [])) else None

    return fault


if __name__ == "__main__":
    endpoint = FakeEndpoint(int(sys.argv[2]))
    endpoint.reply = canned(Path(sys.argv[1]))
    endpoint.fault = faulty(Path(sys.argv[1]))
    endpoint.server.serve_forever()
