"""The platform that programs are made for."""

import jax


def target_platform() -> str:
    """Returns the platform by which ``algorithm="auto"`` chooses: that of the program's devices.

    It is the platform of the mesh in the context (`jax.set_mesh`), else of `jax.default_device`,
    else JAX's default. The devices of a mesh need not exist: under a mesh of
    `jax.experimental.topologies` a program is made for a machine that is elsewhere.

    Returns:
        ``"cpu"``, ``"gpu"`` or ``"tpu"``.

    Example:
        >>> import jax
        >>> from s5jax.ops import target_platform
        >>> with jax.default_device(jax.devices("cpu")[0]):
        ...     print(target_platform())
        cpu
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device or getattr(jax.config, "jax_default_device", None)
    platform = getattr(device, "platform", device) or jax.default_backend()
    return "gpu" if platform in ("cuda", "rocm") else platform
