"""A model server that costs next to nothing: it streams 128 tokens, each `pace` seconds after the last one.

python fast_server.py PORT PACE_S
"""

import asyncio
import json
import sys

TOKENS = 128


def event(word, more=None):
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "fast",
        "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": more}],
    }
    data = f"data: {json.dumps(chunk)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


# Not one word for all: the LiteLLM proxy breaks off what repeats itself.
WORDS = [event(f"word{number} ") for number in range(TOKENS)]
LAST = event("", "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = {"object": "list", "data": [{"id": "fast", "object": "model", "created": 0, "owned_by": "me"}]}
WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 0,
    "model": "fast",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def whole(body):
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)


async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().lower().split("\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
            body = await reader.readexactly(length) if length else b""
            if not length:
                writer.write(whole(MODELS if "/models" in lines[0] else {}))
            elif not json.loads(body).get("stream"):
                writer.write(whole(WHOLE))
            else:
                await stream(writer)
            await writer.drain()
            if "connection: close" in lines:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def stream(writer):
    writer.write(HEAD)
    clock = asyncio.get_running_loop().time
    due = clock()
    for word in WORDS:
        writer.write(word)
        await writer.drain()
        due += PACE_S
        await asyncio.sleep(max(0, due - clock()))
    writer.write(LAST)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    PACE_S = float(sys.argv[2])
    asyncio.run(main())
