//! Byte vectors, written by hand from the facts that the `spec` modules name; those marked as recorded are what Linux
//! 7.3.4 wrote in the recordings.
//!
//! One array a structure, two tests over each: take apart and build.

mod commands;
mod entries;
mod events;
mod kernel;
mod registers;
mod sizes;

/// Little-endian words of a vector.
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    assert_eq!(BYTES, 8 * WORDS);
    std::array::from_fn(|word| u64::from_le_bytes(bytes[8 * word..][..8].try_into().unwrap()))
}
