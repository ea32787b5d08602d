"""The greeting service in Flask: two health endpoints that mean different things, and a switch to try them with.

Liveness says "the process works": it looks at nothing outside the process, for restarting us would not mend that.
Readiness says "send me requests": it is 503 until the start-up work is done, while we are asked to be out, and when
a check of our own raises. An exception in a health check is a failed check, never a stack trace with a status of luck.
"""

import os
import socket
import threading
import time

from flask import Flask, Response, jsonify

app = Flask(__name__)
version = os.environ.get("VERSION", "blue")
instance = os.environ.get("INSTANCE", socket.gethostname())


class Readiness:
    """Whether this instance may get requests, and if not, why."""

    def __init__(self) -> None:
        self.warm = threading.Event()
        self.wanted = True

    def warm_up(self, seconds: float) -> None:
        """Stands for what a real service does first: load a model, fill a cache, open its database pool."""
        time.sleep(seconds)
        self.warm.set()

    def problem(self) -> str:
        if not self.warm.is_set():
            return "still starting"
        return "" if self.wanted else "taken out by /toggle_health"


readiness = Readiness()
threading.Thread(target=readiness.warm_up, args=(float(os.environ.get("WARM_UP", "0")),), daemon=True).start()


@app.get("/greeting")
def greeting() -> Response:
    answer = jsonify(greeting="Hello, World!", version=version, instance=instance)
    answer.headers["X-Served-By"] = f"{version} {instance}"
    return answer


@app.get("/health/liveness")
def liveness() -> tuple[str, int]:
    return "OK", 200


@app.get("/health/readiness")
def ready() -> tuple[str, int]:
    try:
        problem = readiness.problem()
    except Exception as error:  # whatever it is: not ready, and the reason in the body for `lb explain`
        problem = f"{type(error).__name__}: {error}"
    return (f"Service is not ready: {problem}", 503) if problem else ("OK", 200)


@app.post("/toggle_health")
def toggle_health() -> Response:
    readiness.wanted = not readiness.wanted
    return jsonify(status="Health toggled", healthy=readiness.wanted)


if __name__ == "__main__":
    # To try it without Docker: Flask's own server, on loopback, without its debugger. The image runs gunicorn.
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "5000")))
