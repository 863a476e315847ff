"""What shows from outside that an endpoint serves: as the article on model variants verifies a service."""

import json
import shlex
import subprocess

from openai import OpenAI

from flows.serving.ask import ask, curl_line

QUESTION = 'What\'s a "bill of lading"?'


def curl(line):
    """What a shell's `curl` prints."""
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def the_three_ways_of_asking(endpoint):
    """The list of models, a completion by curl, a streamed chat by the OpenAI client; and our own two, the same."""
    listed = curl(f"curl -s {endpoint.url}/models")["data"]
    assert endpoint.model in [model["id"] for model in listed]

    body = {"model": endpoint.model, "prompt": QUESTION, "max_tokens": 8, "temperature": 0}
    headers = "-H 'Content-Type: application/json'"
    completion = curl(f"curl -s {endpoint.url}/completions {headers} -d {shlex.quote(json.dumps(body))}")
    assert completion["usage"]["completion_tokens"] == 8
    assert completion["choices"][0]["text"]

    client = OpenAI(base_url=endpoint.url, api_key="none")
    assert endpoint.model in [model.id for model in client.models.list().data]
    question = [{"role": "user", "content": QUESTION}]
    stream = client.chat.completions.create(
        model=endpoint.model, messages=question, max_tokens=8, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 1

    printed = curl(curl_line(endpoint, QUESTION, max_tokens=8))
    assert printed["usage"]["completion_tokens"] == 8
    reply = printed["choices"][0]["message"]["content"]
    assert reply == "".join(pieces) == ask(endpoint, QUESTION, max_tokens=8)
