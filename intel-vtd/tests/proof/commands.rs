//! Every 256-bit command.

use crate::command_table::commands;
use crate::shown::Shown;
use std::ops::Range;
use viommu_plugin::Codec;
use viommu_plugin_check::proof::{self, CommandTable, Judged};

/// Every set of features that a command's legality depends on.
const EVERY: Range<u32> = 0..48;

/// Runs one part of the proof for each of these sets of features.
fn prove(
    name: &str,
    sets: impl IntoIterator<Item = u32>,
    part: impl Fn(u32, &dyn Codec, &CommandTable) -> Judged + Sync,
) {
    let sets: Vec<_> = sets.into_iter().map(|set| (set, Shown::of_commands(set))).collect();
    let judged = proof::every_set(&sets, |&(set, shown)| part(set, &shown.codec(), &commands(shown)));
    let judged = judged.unwrap_or_else(|wrong| panic!("{name} with {wrong}"));
    println!("{name}: {judged} commands and batches judged, all as the table says");
}

#[test]
fn tables_keep_their_own_rules() {
    prove("rules", EVERY, |_, _, table| table.check().map(|()| 1));
}

#[test]
fn every_legal_opcode_with_every_bit_and_pair_of_bits() {
    prove("bits", EVERY, |_, codec, table| proof::bits(codec, table));
}

/// With the least and with everything: no other feature brings an opcode.
#[test]
fn every_other_opcode_with_every_bit_and_pair_of_bits() {
    prove("unknown opcodes", [1, 45], |_, codec, table| proof::unknown(codec, table));
}

#[test]
fn every_value_of_restricted_fields() {
    prove("values", EVERY, |_, codec, table| proof::values(codec, table));
}

#[test]
fn every_bit_of_every_id() {
    prove("ids", EVERY, |_, codec, table| proof::ids(codec, table));
}

/// With device-TLBs and everything else, nested and shadowed: nothing else changes what one command means to the next.
#[test]
fn every_order_of_every_kind_of_command() {
    prove("batches", [45, 46], |set, codec, table| proof::batches(codec, table, set.into()));
}
