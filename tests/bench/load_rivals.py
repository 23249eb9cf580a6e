"""Servers that the endpoint is compared with, each in its own process on loopback.

    python -m tests.bench.load_rivals plain|usual PORT LAKE PRECISION

- plain: the same model, runtime and preprocessing behind plain uvicorn, without queue, state, keys or batches.
- usual: the common tutorial: FastAPI, PIL, torchvision's transforms, one eager fp32 forward pass per request.
"""

import asyncio
import io
import sys
from concurrent.futures import ThreadPoolExecutor

import torch
import torchvision
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image
from torchvision import transforms

from chestai.imaging import preprocess
from chestai.labels.findings import NIH14
from tests.bench.champion import SIZE, load_champion


def make_plain_app(lake: str, precision: str) -> FastAPI:
    app, turn, version = FastAPI(), ThreadPoolExecutor(1), load_champion(lake, precision)

    @app.post("/infer")
    async def infer(request: Request) -> dict[str, object]:
        square = await asyncio.to_thread(preprocess.load, await request.body(), SIZE)
        (scored,) = await asyncio.get_running_loop().run_in_executor(turn, version.score, [square])
        return {"probabilities": scored.probabilities, "triage": scored.triage.model_dump()}

    return app


def make_usual_app(lake: str, precision: str) -> FastAPI:
    app, network = FastAPI(), torchvision.models.densenet121(num_classes=len(NIH14)).eval()
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    to_input = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.ToTensor(), normalise])

    @app.post("/infer")
    async def infer(request: Request) -> dict[str, float]:
        image = to_input(Image.open(io.BytesIO(await request.body())).convert("RGB"))
        with torch.no_grad():
            found = torch.sigmoid(network(image[None]))[0]
        return dict(zip(NIH14, found.tolist(), strict=True))

    return app


if __name__ == "__main__":
    which, port, *model = sys.argv[1:]
    uvicorn.run({"plain": make_plain_app, "usual": make_usual_app}[which](*model), port=int(port), log_level="warning")
