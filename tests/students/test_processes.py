"""Two processes train the student that one trains, and trace every row once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from steerlens.gradients.parts import TraceParts

SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from steerlens import SampleSet, SteeringVector, TrainConfig, load_model, trace_gradients, train_student
from steerlens.students.processes import Processes
from steerlens.vectors.vector import VectorSource

checkpoint, rows, root = sys.argv[1:]
model, samples, root = load_model(checkpoint, device="cpu"), SampleSet.load(rows), Path(root)
vector = SteeringVector((1, 3), torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), VectorSource("llama", ""))
for name, changes in {"plain": {}, "clipped": {"row_clip_norm": 0.3, "row_drop_share": 0.2, "micro_batch_size": 2}}.items():
    config = TrainConfig(
        rank=2, learning_rate=0.3, optimizer="sgd", epochs=3, batch_size=19, state_every=3, checkpoint_every=2, **changes
    )
    recorder = trace_gradients(model, vector, directory=root / name / "trace")
    student = train_student(
        model, samples, config, checkpoints=root / name / "checkpoints",
        on_start=recorder.watch, on_step=recorder.record,
    )
    student.save(root / name / "student")
(root / f"process-{Processes.of_environment(torch.device('cpu')).index}").touch()
"""
# accelerate's own launcher starts several CPU processes through MPI alone; on GPUs it does as torchrun does
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def run(command: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_end_at_the_weights_and_the_trace_of_one(checkpoints, samples, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    samples.save(tmp_path / "rows.jsonl")
    arguments = [str(tmp_path / "script.py"), str(checkpoints["llama"]), str(tmp_path / "rows.jsonl")]
    run([sys.executable, *arguments, str(tmp_path / "one")])
    run([sys.executable, *LAUNCH, *arguments, str(tmp_path / "two")])
    assert {path.name for path in (tmp_path / "two").glob("process-*")} == {"process-0", "process-1"}
    for name in ("plain", "clipped"):
        one, two = (tmp_path / which / name for which in ("one", "two"))
        for file in ("student/adapter_model", "checkpoints/step-4/adapter_model"):
            ours, theirs = (load_file(path / f"{file}.safetensors") for path in (one, two))
            for key in ours:
                torch.testing.assert_close(ours[key], theirs[key], atol=1e-5, rtol=1e-4)
        ours, theirs = (TraceParts(path / "trace").whole() for path in (one, two))
        assert theirs.pull.shape == (6, 19, 2)  # 20 rows in batches of 19 and of 1, which one process has to itself
        torch.testing.assert_close(ours.pull, theirs.pull, atol=1e-5, rtol=1e-3, equal_nan=True)
        torch.testing.assert_close(ours.norm, theirs.norm, atol=1e-5, rtol=1e-3, equal_nan=True)
