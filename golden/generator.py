"""Pseudo-random numbers that Python and Rust generate bit for bit alike (README.md says exactly how)."""

import numpy as np

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


def name_hash(name):
    """64-bit FNV-1a hash of the UTF-8 bytes of `name`."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    return np.uint64(state)


def integers(name, count):
    """`count` 64-bit integers: element i is the splitmix64 finaliser of hash + (i + 1) * GOLDEN_RATIO, modulo 2^64."""
    z = name_hash(name) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * GOLDEN_RATIO
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(name, shape):
    """Multiples of 2^-23 in [-1, 1), exact in f32: the upper 24 bits of each integer, centred. Returned as f64."""
    upper = (integers(name, int(np.prod(shape))) >> np.uint64(40)).astype(np.float64)
    return ((upper - 2.0**23) / 2.0**23).reshape(shape)


def parameter(network, name, shape):
    """Value of a parameter or buffer of `network`, computed in f64 and rounded to f32 (README.md has the table)."""
    u = uniform(f"{network}/{name}", shape)
    if len(shape) == 4:
        value = u * np.sqrt(6.0 / float(shape[1] * shape[2] * shape[3]))
    elif name.endswith("running_var"):
        value = 1.0 + 0.5 * u
    elif name.endswith("weight"):
        value = 1.0 + 0.25 * u
    else:
        value = 0.1 * u
    return value.astype(np.float32)


def indices(name, length, count):
    """`count` positions in a vector of `length`: each integer modulo `length` (repeats are allowed)."""
    return (integers(name, count) % np.uint64(length)).astype(np.int64)
