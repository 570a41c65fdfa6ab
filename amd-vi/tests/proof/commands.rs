//! Every 128-bit command.

use crate::command_table::commands;
use crate::in_two_threads;
use crate::shown::Shown;
use viommu_plugin_check::proof;

/// Runs one part of the proof for every set of features that a command's legality depends on.
fn for_every_set(name: &str, prove: impl Fn(u32) -> proof::Judged + Sync) {
    let judged = in_two_threads(32, |set| {
        prove(set).unwrap_or_else(|wrong| panic!("{name} with {:?}: {wrong}", Shown::of_commands(set)))
    });
    println!("{name}: {judged} commands and batches judged, all as the table says");
}

#[test]
fn tables_keep_their_own_rules() {
    for_every_set("rules", |set| commands(Shown::of_commands(set)).check().map(|()| 1));
}

#[test]
fn every_legal_opcode_with_every_bit_and_pair_of_bits() {
    for_every_set("bits", |set| {
        let shown = Shown::of_commands(set);
        proof::bits(&shown.codec(), &commands(shown))
    });
}

#[test]
fn every_other_opcode_with_every_bit_and_pair_of_bits() {
    for_every_set("unknown opcodes", |set| {
        let shown = Shown::of_commands(set);
        proof::unknown(&shown.codec(), &commands(shown))
    });
}

#[test]
fn every_value_of_restricted_fields() {
    for_every_set("values", |set| {
        let shown = Shown::of_commands(set);
        proof::values(&shown.codec(), &commands(shown))
    });
}

#[test]
fn every_bit_of_every_id() {
    for_every_set("ids", |set| {
        let shown = Shown::of_commands(set);
        proof::ids(&shown.codec(), &commands(shown))
    });
}

/// With device caches and without, nested and shadowed: nothing else changes what one command means to the next.
#[test]
fn every_order_of_every_kind_of_command() {
    let judged = in_two_threads(4, |number| {
        let shown = Shown::of_commands([5, 1, 4, 0][number as usize] | 3 << 3);
        proof::batches(&shown.codec(), &commands(shown), number.into())
            .unwrap_or_else(|wrong| panic!("{shown:?}: {wrong}"))
    });
    println!("batches: {judged} judged, all as the table says");
}
