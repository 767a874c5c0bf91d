import dataclasses
import json
import subprocess
import sys

import pytest
from jax.profiler import ProfileData
from toys import ToyTask

from experiments.bench import __main__, measure, profiler, report, suites, timing
from experiments.bench.compiled import all_cases
from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.measure import Job, Measured
from experiments.bench.page import write_page
from experiments.bench.programs import Case
from experiments.bench.report import Outcome, Workers, measure_jobs, report_jobs, run_tests
from experiments.bench.roofline import Roofline

SMALL = Size(H=8, N=8)
MACHINE = Roofline(bytes_per_s=1e9, flops_per_s=1e10)
WHERE = {
    "device": "1 x cpu",
    "roofline": MACHINE._asdict(),
    "versions": {"jax": "1", "jaxlib": "2"},
    "commit": "abc",
}


def small(job: Job) -> Job:
    batch = 8 if job.case.mode == "step" else 2
    return dataclasses.replace(
        job, case=dataclasses.replace(job.case, length=64, batch=batch, n_layers=1)
    )


S5 = Case(target="gpu", name="S5", mode="forward+backward", length=32, batch=2)
TIME, VALUES = Job(kind="time", case=S5), Job(kind="values", case=S5)
PROFILE = Job(kind="profile", case=S5)


@pytest.fixture
def here(monkeypatch, one_device, toy):
    """Measures on this machine and in this process, without repetition."""
    monkeypatch.setattr(timing, "ROUND_S", 0.0)
    monkeypatch.setattr(measure, "ROUNDS", 1)
    return lambda job, limit_s: measure.measure(job, one_device, SMALL, toy())


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    monkeypatch.setattr(report, "time", clock := Clock())
    return clock


def test_a_layer(here):
    row, values = measure_jobs([TIME, VALUES], here, MACHINE, end=float("inf"))
    assert (row.failure, row.algorithm) == (None, "sequential")
    assert row.bound_s == pytest.approx(row.moved / 1e9)
    assert row.times_bound == pytest.approx(row.seconds / row.bound_s)
    assert min(row.temporary, row.peak, row.launches) > 0
    assert 0 < values.outputs < 1e-6
    assert 0 < values.gradients < 1e-5
    assert f"bytes {1e3 * row.bound_s:.3f} ms" in str(row)
    assert f"outputs {values.outputs:.1e}" in str(values)


def test_a_step_runs_the_algorithm_of_its_case(here):
    case = Case(target="gpu", name="pathx", mode="step", algorithm="associative", batch=8)
    row = here(Job(kind="time", case=case), 0)
    assert (row.failure, row.algorithm) == (None, "associative")
    assert row.tokens_per_s == pytest.approx(8 * ToyTask.length / row.seconds)
    wrong = here(Job(kind="time", case=dataclasses.replace(case, algorithm="pallas")), 0)
    assert wrong.failure.startswith("ValueError: s5_scan: the kernels run on a GPU")


def test_values_in_bfloat16_deviate_more(here):
    case = dataclasses.replace(S5, dtype="bfloat16", algorithm="associative")
    row = here(Job(kind="values", case=case), 0)
    assert 1e-4 < row.outputs < 1e-1
    assert 1e-4 < row.gradients < 1e-1


def test_a_wrong_layer_is_noticed(here, monkeypatch):
    """The reference is a layer of its own, so a layer with another result deviates."""
    layer = measure.CONTESTANTS["S5"].layer
    plain = layer.__call__

    def call(self, u):
        return (1.5 if self.algorithm == "associative" else 1) * plain(self, u)

    monkeypatch.setattr(layer, "__call__", call)
    row = here(Job(kind="values", case=dataclasses.replace(S5, algorithm="associative")), 0)
    assert row.outputs == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory.\nA table"), "out of memory"),
        (ValueError("first line\nsecond line"), "ValueError: first line"),
    ],
)
def test_a_failure_is_a_row(here, monkeypatch, error, sentence):
    def fail(*_):
        raise error

    monkeypatch.setattr(measure, "traffic", fail)
    failed, values = measure_jobs([TIME, VALUES], here, MACHINE, end=float("inf"))
    assert failed == Measured(job=TIME, failure=sentence)
    assert str(failed).endswith(sentence)
    assert values.failure is None


def test_values_that_are_not_finite(here, monkeypatch):
    monkeypatch.setattr(measure, "_deviation", lambda *_: float("nan"))
    assert here(VALUES, 0).failure == "RuntimeError: outputs or gradients are not finite"


def test_what_no_longer_fits_is_skipped(clock):
    limits = []

    def run(job, limit_s):
        limits.append(limit_s)
        clock.now += 70
        return Measured(job=job, seconds=1.0, moved=10**9)

    rows = list(measure_jobs([TIME] * 5, run, MACHINE, end=220))
    assert limits == [150, 150, 80]
    assert [row.failure for row in rows] == [None] * 3 + ["skipped, because the time was over"] * 2
    assert rows[0].bound_s == 1


def test_a_profiler_that_fails_is_not_tried_again():
    def run(job, limit_s):
        return Measured(job=job, failure="no counters" if job.kind == "profile" else None)

    rows = measure_jobs([PROFILE, TIME, PROFILE], run, MACHINE, end=float("inf"))
    skipped = "skipped, because the profiler had failed before"
    assert [row.failure for row in rows] == ["no counters", None, skipped]


def test_a_process_here_has_no_counters(here):
    assert here(PROFILE, 0).failure.startswith(
        "RuntimeError: JAX's profiler recorded no counters of memory traffic"
    )


def test_counters_are_summed_over_runs(here, monkeypatch, tmp_path):
    """A profile as XLA writes it: samples are events on the line ``_counters_`` of a GPU."""
    samples = "".join(
        f"events {{ metadata_id: 1 offset_ps: {i} stats {{ metadata_id: 1 double_value: 1e6 }} }}"
        for i in range(4)
    )
    counters = f'lines {{ name: "_counters_" {samples} }}'
    names = "".join(
        f'{kind}_metadata {{ key: 1 value {{ id: 1 name: "dram__bytes_read.sum" }} }}'
        for kind in ("event", "stat")
    )
    kernels = f'lines {{ name: "Stream #1" {samples} }}'
    text = f'planes {{ name: "/device:GPU:0" {counters} {kernels} {names} }}'
    text += f'planes {{ name: "/host:CPU" {counters} {names} }}'
    profile = ProfileData.text_proto_to_serialized_xspace(text)
    assert profiler.sum_of_counters(profile) == 4e6
    monkeypatch.setattr(profiler, "sum_of_counters", lambda _: 4e6)
    calls = []
    found = profiler.profiled_bytes(lambda: calls.append(1), profiler.TRACE_S / 8)
    assert (found, len(calls)) == (0.5e6, 1 + 8)


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("import time; time.sleep(60)", "did not end within 1 s"),
        ("import sys; sys.exit('a\\nb')", "crashed: b"),
        ("import os; os.abort()", "crashed: no message"),
        ("print('log'); print('{\"seconds\": 2.0}')", None),
    ],
)
def test_programs_that_end_their_process(monkeypatch, program, failure):
    def start():
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([sys.executable, "-S", "-c", program], text=True, **pipes)

    monkeypatch.setattr(report, "_start", start)
    with Workers() as run:
        row = run(TIME, 1 if "sleep" in program else 60)
    assert (row.job, row.failure, row.seconds) == (TIME, failure, None if failure else 2.0)


@pytest.mark.slow
def test_a_job_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with Workers() as run:
        rows = [run(job, 300) for job in (TIME, VALUES)]
    assert [row.failure for row in rows] == [None, None]
    assert rows[0].job == TIME
    assert rows[1].gradients < 1e-4


def test_all_documented_programs_are_measured():
    jobs = report_jobs()
    assert len(jobs) == len({str(job) for job in jobs})
    for case in all_cases():
        if case.target == "h200":
            assert Job(kind="time", case=dataclasses.replace(case, target="gpu")) in jobs
    steps = {job.case.algorithm for job in jobs if job.case.mode == "step"}
    assert steps == {"auto", "associative", "pallas", "chunked", "sequential"}
    timed = {(job.case.name, job.case.algorithm) for job in jobs if job.kind == "time"}
    compared = {(job.case.name, job.case.algorithm) for job in jobs if job.kind == "values"}
    assert timed - compared == {("pathx", algorithm) for algorithm in steps}
    for name, contestant in CONTESTANTS.items():
        assert timed & compared >= {(name, algorithm) for algorithm in contestant.algorithms}
    assert all(job.case.batch == 1 for job in jobs if job.kind == "values")


def test_the_page(here):
    bfloat16 = dataclasses.replace(S5, dtype="bfloat16")
    rows = [
        Outcome(summary="38 passed in 60 s", passed=True),
        Measured(job=TIME, algorithm="block", seconds=2e-3, bound_s=1e-3, moved=10**9, peak=10**8),
        Measured(
            job=Job(kind="time", case=dataclasses.replace(S5, mode="forward")),
            algorithm="block",
            seconds=1e-3,
        ),
        Measured(job=VALUES, algorithm="block", outputs=1e-4, gradients=2e-4),
        Measured(job=PROFILE, algorithm="block", moved=10**9, profiled=9e8),
        Measured(
            job=Job(kind="time", case=dataclasses.replace(S5, name="pathx", mode="step")),
            tokens_per_s=8e6,
        ),
        Measured(job=Job(kind="time", case=bfloat16), failure="out of memory"),
        Measured(job=Job(kind="values", case=bfloat16), failure="out of memory"),
    ]
    page = write_page(WHERE, rows)
    assert page.startswith("# 1 x cpu\n")
    assert "copies 1 GB/s" in page
    assert "commit abc." in page
    assert "Tests marked `gpu`: 38 passed in 60 s" in page
    program = "S5, `block`, float32, 2 x 32"
    assert f"| {program} | 1.000 / 2.000 | - / 1.000 | - / 2.0 | - / 1,000 | - / - |" in page
    assert f"| {program} | 1.0e-04 | 2.0e-04 |" in page
    assert f"| {program} | 1,000 | 900 |" in page
    assert "| pathx, depth 1, `auto`, float32, 2 x 32 | 8.00 |" in page
    failed = "S5, `auto`, bfloat16, 2 x 32, forward+backward"
    assert f"- out of memory: time of {failed}; values of {failed}.\n" in page
    assert "## Not measured" not in write_page(WHERE, rows[:1])


def test_rows_and_page_are_written(here, command, monkeypatch, tmp_path):
    rows = [
        Outcome(summary="1 passed", passed=True),
        *measure_jobs([TIME], here, MACHINE, end=1e99),
    ]
    monkeypatch.setattr(suites, "check_gpu", lambda: None)
    monkeypatch.setattr(suites, "gpu_report", lambda machine: iter(rows))
    monkeypatch.setattr(__main__, "measure_roofline", lambda: MACHINE)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    code, out, err = command(__main__, "--suite=gpu", f"--json={tmp_path / 'new' / 'a.json'}")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [str(row) for row in rows]
    found = json.loads((tmp_path / "new/a.json").read_text())
    assert found["device"] == "1 x cpu"
    assert found["rows"] == [dataclasses.asdict(row) for row in rows]
    assert (tmp_path / "new/a.md").read_text().startswith("# 1 x cpu\n")


@pytest.mark.slow
def test_tests_of_a_mark(monkeypatch, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    program = "import os\nimport pytest\n\n@pytest.mark.gpu\ndef test_a():\n    assert {}\n"
    path = tmp_path / "test_a.py"
    (tmp_path / "test_b.py").write_text("def test_b():\n    assert False\n")
    monkeypatch.setattr(report, "TESTS", tmp_path)
    path.write_text(program.format("os.environ['JAX_PLATFORMS'] == 'cuda'"))
    tested = run_tests("gpu", platform="cuda", limit_s=60)
    assert tested.passed
    assert tested.summary.startswith("1 passed")
    path.write_text(program.format("False"))
    tested = run_tests("gpu", platform="cuda", limit_s=60)
    assert (tested.passed, tested.summary[:8]) == (False, "1 failed")
    late = run_tests("gpu", platform="cuda", limit_s=0.01)
    assert late == Outcome(summary="did not end within 0 s", passed=False)


@pytest.mark.slow
def test_the_whole_report(here):
    """All programs in small, here: only the GPU's own kernels and counters are missing."""
    jobs = {str(job): job for job in map(small, report_jobs())}.values()
    rows = list(measure_jobs(jobs, here, MACHINE, end=float("inf")))
    for_gpu = [
        row for row in rows if "pallas" in row.job.case.algorithm or row.job.kind == "profile"
    ]
    assert all(row.failure for row in for_gpu)
    assert [str(row) for row in rows if row.failure and row not in for_gpu] == []
    for row in rows:
        if row.job.kind == "values" and not row.failure:
            exact = row.job.case.dtype == "float32"
            assert max(row.outputs, row.gradients) < (1e-4 if exact else 0.1)
    page = write_page(WHERE, rows)
    assert page.count("\n## ") == 4
