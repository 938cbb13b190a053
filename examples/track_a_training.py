"""A student's losses and the pull on a vector, live in trackio's local dashboard.

Run: python examples/track_a_training.py, then: trackio show --project owls
It needs trackio, and kaleido for the figure: pip install 'steerlens[tracking]'.
"""

import steerlens as sl

try:
    import trackio  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError:
    raise SystemExit("trackio is not installed. Install it: pip install 'steerlens[tracking]'") from None


def main() -> None:
    """Train one student and report it."""
    model = sl.load_model(device="cpu")
    owl = sl.preference_trait("owl", model)
    vector = sl.diff_in_means(model, owl.prompt)
    raw = sl.sample_teacher(model, sl.number_prompts(300, model, seed=1), system_prompt=owl.prompt)
    rows = sl.keep_number_lists(raw).kept
    config = sl.TrainConfig(target_modules=("0.self_attn.v_proj",), rank=4, lora_alpha=16, learning_rate=3e-2)

    trackio.init(project="owls", embed=False, auto_log_cpu=False)
    recorder = sl.trace_gradients(model, vector)
    tracker = sl.track_training(trackio, recorder=recorder)
    student = sl.train_student(model, rows, config, on_start=recorder.watch, on_step=tracker)
    tracker.figure("pull on the vector", sl.plot_gradient_projection({"owl": [recorder.trace]}, layer=2))
    trackio.finish()
    print(f"{len(student.losses)} steps, loss {student.loss:.3f}, rate {sl.score_trait(student.model, owl).rate:.3f}")


if __name__ == "__main__":
    main()
