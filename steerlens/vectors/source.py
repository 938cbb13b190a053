"""VectorSource: on which model, in which form, and how a vector was made."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from steerlens.checks import a_model
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import bridge_mode, commit_hash, model_name, weights_dtype, weights_fingerprint
from steerlens.text.positions import Positions
from steerlens.text.wording import wording_of
from steerlens.warn import warn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

METHOD_LENGTH = 300
"""Longest description of a method, in characters; algebra would let it grow without end."""


@dataclass(frozen=True)
class VectorSource:
    """Where a vector comes from; travels in its file. None is "not known" everywhere.

    `chat_fingerprint` is that of the context without prompt, in which the vector is meant to act. `revision` is the
    model's commit on the Hub, `weights` a fingerprint of its weights in `dtype`, `architecture` Hugging Face's
    model_type, `bridge` how the model was wrapped (steerlens.models.identity.bridge_mode), and `wording` names how steerlens
    speaks to it (steerlens.text.wording). `positions` are those at which a vector was fitted to act; a measured difference
    has none, wherever it was read.
    """

    model: str
    method: str
    prompt: str | None = None
    chat_fingerprint: str | None = None
    seed: int | None = None
    revision: str | None = None
    weights: str | None = None
    dtype: str | None = None
    architecture: str | None = None
    n_layers: int | None = None
    bridge: str | None = None
    wording: str | None = None
    positions: Positions | None = None

    @classmethod
    def of(
        cls,
        model: "TransformerBridge | str",
        *,
        method: str,
        prompt: str | None = None,
        chat_fingerprint: str | None = None,
        seed: int | None = None,
        positions: Positions | None = None,
    ) -> "VectorSource":
        """The source of a vector that `method` makes on `model`; of a model that is only named, the name is all."""
        identity: dict[str, Any] = {"model": model} if isinstance(model, str) else _identity(a_model(model, "model"))
        return cls(
            method=method, prompt=prompt, chat_fingerprint=chat_fingerprint, seed=seed, positions=positions, **identity
        )

    def warn_of_every_token(self, where: str) -> None:
        """Warn where a vector that was fitted at some tokens goes to what adds it at every token.

        Warns:
            UserWarning: it was; says where.
        """
        if self.positions not in (None, "all"):
            warn(
                f"The vector was fitted at {self.positions!r} tokens, and {where} adds it at every token, where its strength and "
                "what was measured of it need not hold. Fit one for all tokens, FitConfig(positions='all'), or use steer here."
            )

    @property
    def words(self) -> str:
        """Method and prompt, at most METHOD_LENGTH characters."""
        return _shortened(self.method if self.prompt is None else f"{self.method}, prompt {self.prompt!r}")

    @property
    def shortened(self) -> "VectorSource":
        """The same, with at most METHOD_LENGTH characters of method."""
        return replace(self, method=_shortened(self.method))

    def differences(self, other: "VectorSource") -> list[str]:
        """In what the two name different models, in words; what one of them does not know is no difference."""
        compared = {"model": "model", "revision": "revision", "n_layers": "number of layers", "bridge": "bridge"}
        if self.dtype == other.dtype and None in (self.revision, other.revision):
            compared["weights"] = "weights' fingerprint"
        mine, theirs = asdict(self), asdict(other)
        return [
            f"the {word} {mine[field]!r} is not {theirs[field]!r}"
            for field, word in compared.items()
            if None not in (mine[field], theirs[field]) and mine[field] != theirs[field]
        ]

    def shared_with(self, other: "VectorSource", method: str) -> "VectorSource":
        """What holds of both, for a vector that `method` makes of theirs."""
        mine, theirs = asdict(self), asdict(other)
        shared = {field: value if value == theirs[field] else None for field, value in mine.items()}
        return VectorSource(**{**shared, "model": self.model, "method": method}).shortened

    def moved_to(self, model: "TransformerBridge") -> "VectorSource":
        """The same origin, for a vector that is declared to be meant for `model`."""
        identity = _identity(model)
        method = self.method if self.model == identity["model"] else f"{self.method}, on {self.model}"
        return replace(self, **{**identity, "method": method}).shortened


def _identity(model: "TransformerBridge") -> dict[str, Any]:
    hf = huggingface_model(model)
    return {
        "model": model_name(model),
        "revision": commit_hash(model),
        "weights": weights_fingerprint(model),
        "dtype": weights_dtype(model),
        "architecture": hf.config.model_type,
        "n_layers": model.cfg.n_layers,
        "bridge": bridge_mode(model),
        "wording": wording_of(model).name,
    }


def _shortened(text: str) -> str:
    return text if len(text) <= METHOD_LENGTH else text[: METHOD_LENGTH - 4] + " ..."
