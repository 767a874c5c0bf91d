import jax
import jax.numpy as jnp
import pytest

from experiments.bench.hlo import array_bytes, traffic

LOOP = """HloModule test

%fused (p0: f32[8,100], p1: s32[], p2: f32[1,100]) -> f32[8,100] {
  %p0 = f32[8,100]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %p2 = f32[1,100]{1,0} parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = f32[8,100]{1,0} dynamic-update-slice(%p0, %p2, %p1, %zero)
}

%body (carry: (f32[8,100], s32[])) -> (f32[8,100], s32[]) {
  %carry = (f32[8,100]{1,0}, s32[]) parameter(0)
  %rows = f32[8,100]{1,0} get-tuple-element(%carry), index=0
  %k = s32[] get-tuple-element(%carry), index=1
  %zero.1 = s32[] constant(0)
  %row = f32[1,100]{1,0} dynamic-slice(%rows, %k, %zero.1), dynamic_slice_sizes={1,100}
  %write = f32[8,100]{1,0} fusion(%rows, %k, %row), kind=kLoop, calls=%fused
  %sum = f32[1,100]{1,0} all-reduce(%row), replica_groups={{0,1}}, to_apply=%add
  ROOT %next = (f32[8,100]{1,0}, s32[]) tuple(%write, %k)
}

%condition (carry.1: (f32[8,100], s32[])) -> pred[] {
  %carry.1 = (f32[8,100]{1,0}, s32[]) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (x: f32[8,100]) -> f32[8,100] {
  %x = f32[8,100]{1,0} parameter(0)
  %start = s32[] constant(0)
  %both = (f32[8,100]{1,0}, s32[]) tuple(%x, %start)
  %loop = (f32[8,100]{1,0}, s32[]) while(%both), condition=%condition, body=%bodyTRIPS
  ROOT %out = f32[8,100]{1,0} get-tuple-element(%loop), index=0
}
"""
KNOWN = ', backend_config={"known_trip_count":{"n":"8"}}'
ROW = 400


@pytest.mark.parametrize(("trips", "times", "unknown"), [(KNOWN, 8, 0), ("", 1, 1)])
def test_a_loop_counts_what_one_pass_moves(trips, times, unknown):
    """A slice is read and written, an update in place is the row, and an exchange is the row."""
    counted = traffic(LOOP.replace("TRIPS", trips))
    slice_, update, exchange = 2 * ROW, ROW + 4 + ROW, 2 * ROW
    assert counted.moved == times * (slice_ + update + exchange)
    assert counted.launches == 3 * times
    assert counted.exchanged == {"all-reduce": (times, times * ROW)}
    assert counted.unknown_loops == unknown


def test_the_heaviest_branch_counts():
    text = """HloModule test

%small (p: f32[10]) -> f32[10] {
  %p = f32[10]{0} parameter(0)
  ROOT %n = f32[10]{0} negate(%p)
}

%large (q: f32[10]) -> f32[10] {
  %q = f32[10]{0} parameter(0)
  %m = f32[10]{0} negate(%q)
  ROOT %o = f32[10]{0} negate(%m)
}

ENTRY %main (c: pred[], x: f32[10]) -> f32[10] {
  %c = pred[] parameter(0)
  %x = f32[10]{0} parameter(1)
  ROOT %y = f32[10]{0} conditional(%c, %x, %x), true_computation=%small, false_computation=%large
}
"""
    assert traffic(text).moved == 4 * 40


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[3,5]{1,0}", 60),
        ("bf16[3,5]{1,0:T(8,128)}", 8 * 128 * 2),
        ("f32[3,5]{0,1:T(8,128)}", 8 * 128 * 4),
        ("f32[3,5]{1,0:T(8,128)S(1)}", 0),
        ("(f32[2]{0}, c64[]{})", 16),
        ("s4[6]{0}", 3),
        ("pred[]", 1),
    ],
)
def test_sizes_of_arrays(shape, size):
    assert array_bytes(shape) == size


def test_what_is_exchanged_counts_wherever_it_is():
    assert array_bytes("(f32[3,5]{1,0:T(8,128)S(1)}, s32[])", stored=False) == 64


def test_a_program_of_this_machine():
    """One kernel that reads two arrays and writes one."""
    x = jax.ShapeDtypeStruct((1000,), jnp.float32)
    counted = traffic(jax.jit(lambda x, y: x * jnp.sin(y)).lower(x, x).compile().as_text())
    assert (counted.moved, counted.launches) == (12_000, 1)
