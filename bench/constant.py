"""What the API is measured beside: FastAPI with one route that returns a constant."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/constant")
async def constant() -> dict[str, str]:
    """As little as there can be."""
    return {"status": "completed"}
