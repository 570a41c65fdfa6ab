//! Byte vectors, each with its section of the manual (Intel VT-d, revision 4.x), written by hand from the manual's
//! figures: take apart, and build.

mod descriptors;
mod entries;
mod kernel;
mod registers;

/// Little-endian words of a vector.
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    assert_eq!(BYTES, 8 * WORDS);
    std::array::from_fn(|word| u64::from_le_bytes(bytes[8 * word..][..8].try_into().unwrap()))
}
