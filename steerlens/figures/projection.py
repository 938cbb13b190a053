"""A text with its tokens coloured by how far each residual lies along a vector: one offline page, or a notebook's cell."""

import html
import json
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.figures.palette import SGD, TEACHER
from steerlens.files import write_text
from steerlens.forward import forward
from steerlens.models.bridge import parameters_device
from steerlens.models.identity import model_name
from steerlens.residuals.stream import OnResidual, Residual, watch_residuals
from steerlens.short import cut
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, encode_chat
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

PAGE = Path(__file__).with_suffix(".html")
FRAME_HEIGHT = 480
"""Pixels of the view in a notebook's cell; longer texts scroll."""
CLIP = 95
"""Percentile of a layer's absolute values at which the colour is full: the first token often lies far outside the rest."""


@dataclass(frozen=True)
class ShownProjection:
    """The tokens of a rendered chat, and at each layer the residual's projection <h, v_hat> and cosine with the vector.

    A notebook renders it; `save` writes it as one HTML file that needs no network.
    """

    title: str
    tokens: tuple[str, ...]
    n_prompt: int
    layers: tuple[int, ...]
    projection: Float[Tensor, "layer token"]
    cosine: Float[Tensor, "layer token"]
    first_layer: int

    def save(self, path: str | Path) -> None:
        """Write the page, atomically."""
        write_text(path, self._page())

    def __repr__(self) -> str:
        return cut(f"ShownProjection: {self}")

    def __str__(self) -> str:
        """The tokens that lie farthest along the vector, and against it, at the layer that is shown first."""
        row = self.projection[self.layers.index(self.first_layer)]
        order = row.argsort(descending=True).tolist()
        listed = [
            ", ".join(f"{self.tokens[token]!r} {row[token]:.3g}" for token in tokens)
            for tokens in (order[:5], order[: -min(5, len(order)) - 1 : -1])
        ]
        return f"{self.title}\nAt layer {self.first_layer}, most: {listed[0]}; least: {listed[1]}."

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self._page())}" title="{html.escape(self.title)}" '
            f'style="width:100%;height:{FRAME_HEIGHT}px;border:0"></iframe>'
        )

    def _page(self) -> str:
        spans = (
            f"<span{' class=generated' if index >= self.n_prompt else ''}>{_visible(token)}</span>"
            for index, token in enumerate(self.tokens)
        )
        fields = {
            "%TITLE%": html.escape(self.title),
            "%NEGATIVE%": f"rgb({' '.join(map(str, _light(SGD)))})",
            "%POSITIVE%": f"rgb({' '.join(map(str, _light(TEACHER)))})",
            "%DATA%": self._data(),
            "%TOKENS%": "<wbr>".join(spans),
        }
        return re.sub("%[A-Z]+%", lambda mark: fields[mark[0]], PAGE.read_text(encoding="utf-8"))

    def _data(self) -> str:
        values = {"projection": self.projection.numpy(), "cosine": self.cosine.numpy()}
        data = {
            "tokens": self.tokens,
            "layers": self.layers,
            "first": self.layers.index(self.first_layer),
            "negative": _light(SGD),
            "positive": _light(TEACHER),
            "scale": {name: np.percentile(np.abs(rows), CLIP, axis=1).tolist() for name, rows in values.items()},
            **{name: [[float(f"{value:.4g}") for value in row] for row in rows] for name, rows in values.items()},
        }
        return json.dumps(data).replace("<", "\\u003c")


@checked
def show_projection(model: "TransformerBridge", vector: SteeringVector, chat: str | Chat) -> ShownProjection:
    """Show how far the residual at every token of a chat lies along a vector, at each layer.

        show_projection(model, vector, [user("..."), assistant("...")])

    A vector of several layers is read along its own direction at each of them; one of a single layer along that direction
    at every layer of the model.

    Args:
        chat: a question or a chat; a last message by the assistant is the completion.

    Returns:
        An object that a notebook renders, `print` shows and `save` writes as an HTML file. Projections are in units of the
        residual stream.

    Raises:
        ValueError: the vector belongs to another model, or the chat cannot be rendered.
    """
    vector.check_model(model)
    prompt, completion = encode_chat(model.tokenizer, as_chat(chat))
    layers: list[int] = sorted(vector.layers) if len(vector.layers) > 1 else list(range(model.cfg.n_layers))
    directions = {
        layer: vector.at(layer if len(vector.layers) > 1 else next(iter(vector.layers))).unit[0] for layer in layers
    }
    found: dict[int, tuple[Tensor, Tensor]] = {}
    batch = pad_rows(model.tokenizer, [prompt], [completion]).to(parameters_device(model))
    with torch.no_grad(), watch_residuals(model, {layer: _read(layer, directions, found) for layer in layers}):
        forward(model, batch, logits_to_keep=1)
    return ShownProjection(
        title=f"{textwrap.shorten(vector.source.words, 120, placeholder=' ...')}, read in {model_name(model)}",
        tokens=tuple(model.tokenizer.decode([token]) for token in prompt + completion),
        n_prompt=len(prompt),
        layers=tuple(layers),
        projection=torch.stack([found[layer][0] for layer in layers]),
        cosine=torch.stack([found[layer][1] for layer in layers]),
        first_layer=layers[len(layers) // 2] if len(vector.layers) > 1 else next(iter(vector.layers)),
    )


def _read(layer: int, directions: dict[int, Tensor], found: dict[int, tuple[Tensor, Tensor]]) -> OnResidual:
    def read(resid: Residual) -> None:
        rows = resid[0].float().cpu()
        projection = rows @ directions[layer]
        found[layer] = projection, projection / rows.norm(dim=-1).clamp(min=1e-12)

    return read


def _visible(token: str) -> str:
    """The token's text, escaped, with line breaks that can be pointed at."""
    return html.escape(token).replace("\n", "⏎\n") or "∅"


def _light(colour: str) -> list[int]:
    """Red, green and blue of the colour with a quarter of white, on which black letters are read well."""
    return [255 - (255 - int(colour[start : start + 2], 16)) * 3 // 4 for start in (1, 3, 5)]
