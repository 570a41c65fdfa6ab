//! Whatever words A puts into its command queue: no physical word names a tag or a stream of B.

use crate::guest::SYNC;
use crate::world::{DEVICE, NONE, QUEUE, STREAM_A, STREAM_B, Setup, World};
use arm_smmuv3::features::Features;
use arm_smmuv3::spec::commands::{AtcInv, CfgiCd, Opcode, Tlbi};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::sync::{Arc, Mutex};
use viommu::backend::{Batch, Host, Owner, Position, Sink, SinkError};

type Seen = Arc<Mutex<Vec<(Owner, Vec<u64>)>>>;

/// Writes down what goes by.
struct Recording {
    inner: Arc<dyn Sink<Accepts = Host>>,
    seen: Seen,
}

impl Sink for Recording {
    type Accepts = Host;

    fn submit(&self, batch: Batch<'_, Host>) -> Result<Position, SinkError> {
        self.seen.lock().unwrap().push((batch.owner, batch.words.as_slice().to_vec()));
        self.inner.submit(batch)
    }
    fn wait(&self, owner: Owner, position: Position) -> Result<(), SinkError> {
        self.inner.wait(owner, position)
    }
}

/// A command as a hostile guest might write it: anything, or something legal with IDs that may be another's and a bit
/// that may be wrong.
fn command(random: &mut Pcg32, tags: &[u32]) -> [u64; 2] {
    let pick = |random: &mut Pcg32, from: &[u32]| u64::from(from[random.next_u32() as usize % from.len()]);
    let any = random.next_u32();
    let stream = pick(random, &[DEVICE, DEVICE, STREAM_A, STREAM_B, 0, any]) << 32;
    let tag = pick(random, &[tags[0], tags[1], 0, any & 0xffff]) << 32;
    let asid = (random.next_u64() & 3) << 48;
    let address = random.next_u64() & !0xfff;
    let [mut w0, mut w1] = match random.next_u32() % 14 {
        0 => [random.next_u64(), random.next_u64()],
        1 => [random.next_u64() & 0xff, 0],
        2 => [0x10 | tag, 0],
        3 => [0x11 | tag | asid, 0],
        4 => [0x12 | tag | asid, address | 1],
        5 => [0x12 | tag | asid | random.next_u64() & 0x01f1_f000, address | 0x501],
        6 => [0x13 | tag, address],
        7 => [0x30, 0],
        8 => [0x05 | stream | random.next_u64() & 0xffff_f000, 1],
        9 => [0x06 | stream, 0],
        10 => [0x40 | stream | random.next_u64() & 0xffff_fa00, address | (u64::from(any) % 53)],
        11 => [0x03 | stream, 1],
        12 => [0x01 | stream, 0],
        _ => SYNC,
    };
    if random.next_u32().is_multiple_of(16) {
        w0 ^= 1 << (random.next_u32() % 64);
    }
    if random.next_u32().is_multiple_of(16) {
        w1 ^= 1 << (random.next_u32() % 64);
    }
    [w0, w1]
}

/// Whom a physical command concerns, by the manual's fields: a tag, or a stream.
fn named(words: [u64; 2]) -> (Option<u16>, Option<u32>) {
    match Opcode::of(words[0]) {
        Opcode::TLBI_NH_ALL | Opcode::TLBI_NH_ASID | Opcode::TLBI_NH_VA | Opcode::TLBI_NH_VAA => {
            (Some(Tlbi::from_words(words).vmid()), None)
        }
        Opcode::ATC_INV => (None, Some(AtcInv::from_words(words).stream_id())),
        Opcode::CFGI_CD | Opcode::CFGI_CD_ALL => (None, Some(CfgiCd::from_words(words).stream_id())),
        opcode => panic!("opcode {:#x} is no guest's to send: {words:#x?}", opcode.0),
    }
}

#[test]
fn no_physical_word_names_another_guests_tag_or_stream() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut random = Pcg32::seed_from_u64(seed);
        let seen = Seen::default();
        let features = Features::default();
        let idr1 = features.idr1.with_ssidsize(if seed % 3 == 0 { 20 } else { 0 });
        let features = Features { idr0: features.idr0.with_ats(seed % 2 == 0), idr1, ..features };
        let record = seen.clone();
        let world = World::with(Setup {
            registers: features.registers().into(),
            host: Box::new(move |builder| {
                builder.wrap_sink(move |inner| Arc::new(Recording { inner, seen: record.clone() }))
            }),
            ..Setup::default()
        });
        let tags = [&world.a, &world.b].map(|vm| vm.viommu.handle().info().tag);
        let owner = world.a.viommu.pipeline().owner();
        let mut refused = 0;
        seen.lock().unwrap().clear();
        world.trouble(|a| {
            for _ in 0..40 {
                let commands: Vec<_> = (0..1 + random.next_u32() % 24).map(|_| command(&mut random, &tags)).collect();
                a.guest.send(&commands);
                // Its driver puts a SYNC in the place of what was refused.
                while a.error() != NONE {
                    refused += 1;
                    a.store(QUEUE + 16 * (a.cons() & 0xff), SYNC);
                    a.guest.acknowledge();
                }
                assert!(a.guest.all_taken(), "seed {seed}");
            }
        });
        let mut reached = 0;
        for (of, words) in seen.lock().unwrap().iter().filter(|(of, _)| *of == owner) {
            for &words in words.as_chunks::<2>().0 {
                let (tag, stream) = named(words);
                assert!(tag.is_none_or(|tag| u32::from(tag) == tags[0]), "seed {seed}: {of:?} {words:#x?}");
                assert!(stream.is_none_or(|stream| stream == STREAM_A), "seed {seed}: {of:?} {words:#x?}");
                reached += 1;
            }
        }
        assert!(reached > 50 && refused > 10, "seed {seed}: {reached} reached the hardware, {refused} were refused");
    }
}
