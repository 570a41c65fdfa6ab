//! Proof by exhaustion that the codec lets nothing pass but what the tables of this folder allow, for every set of
//! features that matters; and that the prover finds a codec that is wrong in one bit.

mod command_table;
mod commands;
mod entries;
mod entry_table;
mod mutants;
mod physical;
mod shown;
