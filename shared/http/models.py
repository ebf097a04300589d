"""The base of the models of bodies and answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class HttpModel(BaseModel):
    """The docstring below a field is its description in the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)
