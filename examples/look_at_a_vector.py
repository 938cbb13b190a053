"""A chat with its tokens coloured by how far each residual lies along a vector, and a figure in a paper's size.

Run: python examples/look_at_a_vector.py DIR
It needs kaleido for the figure (pip install 'steerlens[figures]') and Chrome or Chromium; without them the page alone.
"""

import sys
from pathlib import Path

import steerlens as sl


def main(directory: Path) -> None:
    """Write the page and the figure."""
    model = sl.load_model(device="cpu")
    owl = sl.preference_trait("owl", model)
    vector = sl.diff_in_means(model, owl.prompt)
    reply = model.tokenizer.decode(sl.generate(model, [sl.as_chat(owl.questions[0], owl.prompt)], max_new_tokens=12)[0])
    chat = [*sl.as_chat(owl.questions[0], owl.prompt), {"role": "assistant", "content": reply.strip()}]
    shown = sl.show_projection(model, vector, chat)
    directory.mkdir(parents=True, exist_ok=True)
    shown.save(directory / "projection.html")
    print(f"{shown}\nPage: {directory / 'projection.html'}")
    try:
        figure = sl.plot_readout(*sl.promoted_tokens(model, vector.at(2), owl.questions))
        sl.save_figure(figure, directory / "promoted.pdf")
        print(f"Figure: {directory / 'promoted.pdf'}")
    except (ImportError, OSError) as error:
        print(f"No figure: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
