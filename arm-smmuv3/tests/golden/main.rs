//! Byte vectors, each with its section of the manual (IHI 0070), written by hand from the manual's figures.
//!
//! One array per kind, four tests over each: take apart, build, parse, emit. What is emitted goes into a buffer that
//! starts as 0xa5, so that a byte that was not written shows.

mod commands;
mod entries;
mod events;
mod kernel;

/// Little-endian words of a vector.
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    assert_eq!(BYTES, 8 * WORDS);
    std::array::from_fn(|word| u64::from_le_bytes(bytes[8 * word..][..8].try_into().unwrap()))
}

/// A buffer of words as it was before anything was emitted.
fn untouched<const WORDS: usize>() -> [u64; WORDS] {
    [0xa5a5_a5a5_a5a5_a5a5; WORDS]
}
