"""Where training moved a student, next to its teacher's vector: empirical activation similarity (EAS), and its floors.

EAS is cos(v_student, v_teacher), where v_student is the mean shift of the student's residuals against its base's (arXiv
2606.00995, section 3). A cosine says something only next to its floors: what students of other data, other traits' vectors
and random directions reach.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from jaxtyping import Float

from steerlens.arguments import checked
from steerlens.models.bridge import evaluating
from steerlens.records import ARRAY
from steerlens.text.chat import Chat
from steerlens.vectors.means import model_shift
from steerlens.vectors.vector import SteeringVector, mean_centred

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ByLayer = Annotated[Float[np.ndarray, " layer"], ARRAY]


@dataclass(frozen=True)
class Similarity:
    """A student's shift next to a vector, at the layers of both.

    Args:
        cosine: between -1 and 1; EAS where the vector is the teacher's.
        strength: <shift, v> / <v, v>: 1 where the student holds the vector whole.
    """

    cosine: ByLayer
    strength: ByLayer

    def __repr__(self) -> str:
        best = int(np.abs(self.cosine).argmax())
        return (
            f"Similarity at {len(self.cosine)} layers: cosine {self.cosine[best]:+.3f} where it is largest, with strength "
            f"{self.strength[best]:+.3f}"
        )

    @classmethod
    @checked
    def of(cls, shift: SteeringVector, vector: SteeringVector) -> "Similarity":
        """Of a shift and a vector."""
        strengths = shift.strength_along(vector)
        return cls(np.array([*shift.cosine(vector).values()]), np.array([*strengths.values()]))


@checked
def student_similarity(
    student: "TransformerBridge", base: "TransformerBridge", vector: SteeringVector, chats: Sequence[Chat]
) -> Similarity:
    """Where training moved the residuals at the last prompt token of these chats, next to `vector`."""
    with evaluating(student):
        return Similarity.of(model_shift(student, base, chats), vector)


@dataclass(frozen=True)
class Floors:
    """What EAS with a vector is worth at one layer.

    Args:
        control: the highest EAS of students of data without the trait; NaN where there are none.
        others_mean: the mean EAS of the students with the vectors of other traits; NaN where there are none.
        others_highest: the highest of these.
        random: the 97.5 % quantile of the cosine with a random direction.
        own_centred: EAS with the own vector, after the mean over all vectors, which is what all personas share, is taken off
            (arXiv 2606.00995, appendix F.2).
        others_centred: the highest EAS with another, after the same.
    """

    control: float
    others_mean: float
    others_highest: float
    random: float
    own_centred: float
    others_centred: float


@checked
def similarity_floors(
    shifts: Sequence[SteeringVector],
    vector: SteeringVector,
    *,
    others: Mapping[str, SteeringVector],
    control: Sequence[SteeringVector],
    layer: int,
) -> Floors:
    """The floors of these students' EAS with `vector`.

    Args:
        shifts: what training added, one a student.
        others: vectors of other traits, by name.
        control: shifts of students whose data have no trait.
    """

    if not shifts:
        raise ValueError("shifts is empty. Give what model_shift returned of at least one student.")
    shared = set(vector.layers).intersection(*(one.layers for one in (*shifts, *others.values(), *control)))
    if layer not in shared:
        raise ValueError(f"layer={layer} is not a layer of all the vectors. They share {sorted(shared)}.")

    def cosines(of: Sequence[SteeringVector], vectors: Sequence[SteeringVector]) -> np.ndarray:
        found = [shift.cosine(other)[layer] for shift in of for other in vectors]
        return np.array(found or [np.nan])

    own, *rest = mean_centred({"": vector, **others}).values() if others else [vector]
    other = cosines(shifts, [*others.values()])
    return Floors(
        control=float(cosines(control, [vector]).max()),
        others_mean=float(other.mean()),
        others_highest=float(other.max()),
        random=1.96 / vector.directions.shape[1] ** 0.5,
        own_centred=float(cosines(shifts, [own]).mean()),
        others_centred=float(cosines(shifts, rest).max()),
    )
