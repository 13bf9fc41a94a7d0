"""A FastAPI service as people write it, over the network that all peers share: one text or many in, labels out.

MODEL=FOLDER ENGINE=torch THREADS=1 python -m load.peers.fastapi_app PORT
"""

from __future__ import annotations

import os
import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from load.peers.model import Model


class Body(BaseModel):
    """The texts of a call."""

    texts: list[str]


def application() -> FastAPI:
    """The network is computed where the call is handled: a thread of the pool, as FastAPI does with plain functions."""
    app = FastAPI()
    model = Model(os.environ["MODEL"], os.environ["ENGINE"], int(os.environ.get("THREADS", "1")))

    @app.post("/v1/classify")
    def classify(body: Body) -> list[dict[str, object]]:
        return [{"label": label, "score": score} for label, score in model.label(body.texts)]

    return app


if __name__ == "__main__":
    uvicorn.run(application(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
