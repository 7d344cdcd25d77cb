"""The API's peer: FastAPI with one route that returns a constant."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/constant")
async def constant() -> dict[str, str]:
    """Return the smallest answer."""
    return {"status": "completed"}
