//! Arm's plugin before the kernel's rules: what the plugin lets a guest do, Linux takes. Neither knows the other's code.

use crate::vendor::Vendor;
use arm_smmuv3 as plugin;
use viommu::uapi::{
    dispatcher::{Options, drivers::ArmSmmuv3},
    flags::{VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, VIOMMU_TYPE_ARM_SMMUV3},
    payload::{HwInfoArmSmmuv3, HwptArmSmmuv3},
};
use viommu_plugin_host::{Codec, KernelAbi, Plugin};
use zerocopy::{FromBytes, IntoBytes};

/// The guest's name of the device.
const VSID: u32 = 3;
/// Both stages, AArch64, coherent, CDs in two levels, little-endian, streams in two levels; 16 bits of streams, queues of
/// 2^19; all granules, 48 bits.
const IDR: [u32; 6] =
    [3 | 2 << 2 | 1 << 4 | 1 << 19 | 2 << 21 | 1 << 27, 16 | 19 << 16 | 19 << 21, 0, 0, 0, 5 | 7 << 4];

struct Pair {
    vendor: Vendor,
    viommu: u32,
    abi: KernelAbi,
    codec: Codec,
}

/// An SMMU with these features more, and the plugin with the registers that it shows a guest of it.
fn pair(idr: [u32; 6]) -> Pair {
    let vendor = Vendor::new(ArmSmmuv3::new(idr), Options::default());
    let viommu = vendor.caller.viommu(vendor.device, vendor.parent, VIOMMU_TYPE_ARM_SMMUV3).unwrap();
    vendor.caller.vdevice(viommu, vendor.device, VSID.into()).unwrap();
    let plugin = Plugin::linked::<plugin::ArmSmmuv3>();
    let abi = plugin.kernel_abi().unwrap();
    let info = HwInfoArmSmmuv3 { idr, ..Default::default() };
    let registers = abi.registers(info.as_bytes(), 0, viommu::plugin::TranslationMode::NESTED).unwrap();
    let codec = plugin.codec(&registers).unwrap();
    Pair { vendor, viommu, abi, codec }
}

/// Every combination of ATS, 16-bit ASIDs, substreams and ranges.
fn machines() -> impl Iterator<Item = [u32; 6]> {
    (0..16u32).map(|features| {
        let bit = |number: u32| features >> number & 1;
        let mut idr = IDR;
        idr[0] |= bit(0) << 10 | bit(1) << 12;
        idr[1] |= (bit(2) * 10) << 6;
        idr[3] |= bit(3) << 10;
        idr
    })
}

/// SplitMix64.
fn draw(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A word with few bits, in places that matter as well as in others.
fn sparse(seed: &mut u64) -> u64 {
    match draw(seed) % 4 {
        0 => 0,
        1 => 1 << (draw(seed) % 64),
        2 => draw(seed) & draw(seed) & draw(seed),
        _ => (draw(seed) & 0xfff) << (draw(seed) % 52),
    }
}

#[test]
fn what_the_plugin_sends_the_kernel_takes() {
    use viommu::plugin::{Classes, HostIds, NO_STREAM, Stop};
    const OPCODES: [u64; 12] = [0x30, 0x10, 0x11, 0x12, 0x13, 0x40, 0x05, 0x06, 0x12, 0x40, 0x2a, 0x20];
    let streams = [NO_STREAM, NO_STREAM, NO_STREAM, VSID];
    let (mut sent, mut refused) = (0, 0);
    for (machine, idr) in machines().enumerate() {
        let pair = pair(idr);
        let mut seed = machine as u64;
        for number in 0..4000 {
            let opcode = OPCODES[draw(&mut seed) as usize % OPCODES.len()];
            let stream = if draw(&mut seed).is_multiple_of(4) { 0 } else { u64::from(VSID) << 32 };
            let named = if matches!(opcode, 0x40 | 0x05 | 0x06) { stream } else { 0 };
            let guest = [opcode | named | sparse(&mut seed) & !0xff, sparse(&mut seed)];
            // Checked, not rewritten: the kernel takes the guest's own numbers.
            let ids = HostIds { tag: 0, streams: &streams, domains: &[] };
            let mut words = [0; 4];
            let done = pair.codec.rewrite(&guest, Classes::NONE, ids, &mut words).unwrap();
            if done.stop != Stop::END || done.written == 0 {
                refused += 1;
                continue;
            }
            let mut bytes = [0; 64];
            let entries = pair.abi.entries(&words[..2 * done.written as usize], &mut bytes).unwrap();
            let commands = &bytes[..entries.written as usize];
            let count = entries.written / 16;
            let (result, handled) = pair.vendor.caller.invalidate_at(
                pair.viommu,
                VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
                commands.as_ptr() as u64,
                16,
                count,
            );
            let from = format!("machine {machine}, command {number}: {guest:x?}");
            assert!(count == 0 || (result, handled) == (Ok(()), count), "{from}: {result:?}");
            sent += count;
        }
        pair.vendor.close();
    }
    assert!(sent > 4000 && refused > 4000, "{sent} sent, {refused} refused: the draw shows nothing");
}

#[test]
fn what_the_plugin_makes_of_a_table_entry_the_kernel_takes() {
    let mut kinds = std::collections::BTreeMap::new();
    for (machine, idr) in machines().enumerate() {
        let pair = pair(idr);
        let mut seed = machine as u64;
        for number in 0..500 {
            let mut entry = [0u64; 8];
            entry.iter_mut().for_each(|word| *word = sparse(&mut seed));
            entry[0] = entry[0] & !0xf | (draw(&mut seed) % 8) << 1 | 1;
            let key = pair.codec.entry_key(&entry).unwrap();
            let mut bytes = [0; 64];
            let written = pair.abi.hwpt_data(&key, &mut bytes).unwrap();
            let payload = HwptArmSmmuv3::read_from_bytes(&bytes[..written]).unwrap();
            let data_type = pair.abi.facts().unwrap().hwpt_data_type;
            let nested = pair.vendor.nested(pair.viommu, 0, data_type, &payload);
            let from = format!("machine {machine}, entry {number}: {entry:x?}");
            assert_eq!(nested.map(|hwpt| pair.vendor.caller.destroy(hwpt)), Ok(Ok(())), "{from}");
            *kinds.entry(key.kind.0).or_insert(0) += 1;
        }
        pair.vendor.close();
    }
    assert_eq!(kinds.len(), 3, "abort, bypass and translate: {kinds:?}");
}
