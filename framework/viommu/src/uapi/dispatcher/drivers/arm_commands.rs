//! Which commands a guest of an SMMUv3 may have the host issue (SMMUv3 manual, chapter 4), as Linux 7.3 checks them: bits
//! that are not on an opcode's list must be zero, as an illegal command would stop the host's own queue.

use crate::uapi::Errno;

/// A command: two little-endian words.
pub(super) type Command = [u64; 2];

/// What the hardware has, as far as commands depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Features {
    /// IDR0.ATS.
    pub ats: bool,
    /// IDR0.ASID16.
    pub asid16: bool,
    /// IDR1.SSIDSIZE is not zero.
    pub substreams: bool,
    /// IDR3.RIL.
    pub ranges: bool,
    /// IDR5.DS.
    pub ds: bool,
}

impl Features {
    pub(super) fn of(idr: &[u32; 6]) -> Self {
        Self {
            ats: idr[0] >> 10 & 1 != 0,
            asid16: idr[0] >> 12 & 1 != 0,
            substreams: idr[1] >> 6 & 0x1f != 0,
            ranges: idr[3] >> 10 & 1 != 0,
            ds: idr[5] >> 7 & 1 != 0,
        }
    }
}

const OPCODE: u64 = 0xff;
const VMID: u64 = 0xffff << 32;
const SID: u64 = 0xffff_ffff << 32;
const SSID: u64 = 0xfffff << 12;
const LEAF: u64 = 1;
const ADDRESS: u64 = !0xfff;
const SSV: u64 = 1 << 11;
const GLOBAL: u64 = 1 << 9;
const NH_ALL: u64 = 0x10;

/// The command with the host's numbers; EIO if the guest may not send it. `stream` finds the host's stream of one of the
/// guest's.
pub(super) fn convert(
    command: Command,
    features: Features,
    vmid: u16,
    stream: impl Fn(u32) -> Option<u32>,
) -> Result<Command, Errno> {
    let [first, second] = command;
    let asid = if features.asid16 { 0xffff << 48 } else { 0xff << 48 };
    let ssid = if features.substreams { SSID } else { 0 };
    let vmid = u64::from(vmid) << 32;
    let only = |first_bits: u64, second_bits: u64| {
        if first & !(OPCODE | first_bits) == 0 && second & !second_bits == 0 { Ok(()) } else { Err(Errno::IO) }
    };
    let with_sid =
        || stream((first >> 32) as u32).map(|stream| first & !SID | u64::from(stream) << 32).ok_or(Errno::IO);
    match first & OPCODE {
        // CMD_TLBI_NSNH_ALL, which would be everybody's.
        0x30 => only(0, 0).map(|()| [NH_ALL | vmid, 0]),
        // CMD_TLBI_NH_ALL, _ASID, _VA, _VAA
        0x10 => only(VMID, 0).map(|()| [first & !VMID | vmid, second]),
        0x11 => only(VMID | asid, 0).map(|()| [first & !VMID | vmid, second]),
        0x12 | 0x13 => {
            let (range_first, range_second) = range_bits(features);
            let asid = if first & OPCODE == 0x12 { asid } else { 0 };
            only(VMID | asid | range_first, LEAF | ADDRESS | range_second)?;
            range(command, features)?;
            Ok([first & !VMID | vmid, second])
        }
        // CMD_ATC_INV
        0x40 => {
            let tagged = if features.substreams { SSV | GLOBAL } else { 0 };
            only(SID | ssid | tagged, 0x3f | ADDRESS)?;
            if !features.ats || second & 0x3f > 52 {
                return Err(Errno::IO);
            }
            Ok([with_sid()?, second])
        }
        // CMD_CFGI_CD, _CD_ALL
        0x05 => {
            only(SID | ssid, LEAF)?;
            Ok([with_sid()?, second])
        }
        0x06 => {
            only(SID, 0)?;
            Ok([with_sid()?, second])
        }
        _ => Err(Errno::IO),
    }
}

/// NUM and SCALE of the first word, TTL and TG of the second.
fn range_bits(features: Features) -> (u64, u64) {
    match (features.ranges, features.ds) {
        (false, _) => (0, 0),
        (true, ds) => (0x1f << 12 | 0x1f << 20 | u64::from(ds) << 25, 0xf << 8),
    }
}

/// Reserved combinations of a range.
fn range([first, second]: Command, features: Features) -> Result<(), Errno> {
    let (num, scale) = (first >> 12 & 0x1f, first >> 20 & 0x3f);
    let (ttl, tg) = (second >> 8 & 3, second >> 10 & 3);
    let nothing = num == 0 && scale == 0 && ttl == 0;
    let reserved = match tg {
        0 => !nothing,
        2 if ttl == 1 && !features.ds => true,
        _ => nothing,
    };
    if reserved { Err(Errno::IO) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Features = Features { ats: true, asid16: true, substreams: true, ranges: true, ds: false };

    fn run(command: Command, features: Features) -> Result<Command, Errno> {
        convert(command, features, 0x77, |stream| (stream == 3).then_some(0x40))
    }

    #[test]
    fn c10_12_and_13_legal_commands_get_the_hosts_numbers() {
        assert_eq!(run([0x30, 0], ALL), Ok([0x77_0000_0010, 0]));
        assert_eq!(run([0x1234_0000_0010, 0], ALL), Ok([0x77_0000_0010, 0]));
        assert_eq!(run([0xffff_1234_0000_0011, 0], ALL), Ok([0xffff_0077_0000_0011, 0]));
        assert_eq!(run([0x5_0000_0000_0012, 0x1000], ALL), Ok([0x5_0077_0000_0012, 0x1000]));
        assert_eq!(run([0x3_0000_1005, 1], ALL), Ok([0x40_0000_1005, 1]));
        assert_eq!(run([0x3_0000_0006, 0], ALL), Ok([0x40_0000_0006, 0]));
        assert_eq!(run([0x3_0000_0040, 52], ALL), Ok([0x40_0000_0040, 52]));
        for opcode in [0x01, 0x03, 0x04, 0x20, 0x21, 0x22, 0x28, 0x2a, 0x41, 0x44, 0x46, 0x00, 0xff] {
            assert_eq!(run([opcode, 0], ALL), Err(Errno::IO), "{opcode:#x}");
        }
    }

    #[test]
    fn c10_14_to_17_what_hardware_would_stop_on_is_refused() {
        let none = Features { ats: false, asid16: false, substreams: false, ranges: false, ds: false };
        let refused = [
            ([0x1_0000_0000_0013, 0x1000], ALL, "VAA with an ASID"),
            ([0x100_0000_0000_0011, 0], none, "an ASID of 16 bits"),
            ([0x111, 0], ALL, "a reserved bit"),
            ([0x10, 1], ALL, "a second word"),
            ([0x3_0000_0040, 53], ALL, "Size 53"),
            ([0x3_0000_0840, 0], Features { substreams: false, ..ALL }, "SSV without substreams"),
            ([0x3_0000_0040, 0], none, "no ATS"),
            ([0x4_0000_0040, 0], ALL, "an unknown stream"),
            ([0x4_0000_0005, 0], ALL, "an unknown stream"),
            ([0x1012, 0x1400], none, "a range without RIL"),
            ([0x1012, 0x1000], ALL, "NUM without TG"),
            ([0x12, 0x1400], ALL, "TG without NUM, SCALE or TTL"),
            ([0x12, 0x1900], ALL, "TTL 1 of 16K without DS"),
            ([0x12 | 1 << 25, 0x1500], ALL, "SCALE's sixth bit without DS"),
        ];
        for (command, features, why) in refused {
            assert_eq!(run(command, features), Err(Errno::IO), "{why}");
        }
        assert!(run([0x1012, 0x1400], ALL).is_ok() && run([0x12, 0x1500], ALL).is_ok());
        assert!(run([0x12, 0x1900], Features { ds: true, ..ALL }).is_ok());
    }
}
