"""`/v1/models`: the one model of this server."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from hourllava.serving.context import ERRORS, Here
from hourllava.serving.routes.chat import check_model

router = APIRouter(responses=ERRORS)


class ModelObject(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "hourllava"
    context_tokens: int


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


@router.get("/v1/models")
async def list_models(here: Here) -> ModelList:
    """The model of this server."""
    return ModelList(data=[ModelObject(id=here.model, context_tokens=here.context_tokens)])


@router.get("/v1/models/{model:path}")
async def get_model(model: str, here: Here) -> ModelObject:
    """A model by its name."""
    check_model(here, model)
    return ModelObject(id=model, context_tokens=here.context_tokens)
