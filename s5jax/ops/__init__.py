"""Pure functions on arrays: no modules, no state, no files."""

from s5jax.ops._complex import complex_to_pair as complex_to_pair
from s5jax.ops._complex import pair_to_complex as pair_to_complex
from s5jax.ops._convolution import fft_conv as fft_conv
from s5jax.ops._convolution import fft_conv_ref as fft_conv_ref
from s5jax.ops._discretize import discretize_bilinear as discretize_bilinear
from s5jax.ops._discretize import discretize_bilinear_ref as discretize_bilinear_ref
from s5jax.ops._discretize import discretize_zoh as discretize_zoh
from s5jax.ops._discretize import discretize_zoh_ref as discretize_zoh_ref
from s5jax.ops._discretize import phi1 as phi1
from s5jax.ops._scan import Backend as Backend
from s5jax.ops._scan import linear_scan as linear_scan
from s5jax.ops._scan import linear_scan_ref as linear_scan_ref
from s5jax.ops._scan import scan_backend as scan_backend
from s5jax.ops._state_space import StateSpace as StateSpace
