//! What was seen of a host, as it was seen: numbers and errnos, no judgement. It can be kept and reported on elsewhere.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use viommu::uapi::Errno;

/// How a call ended: "ok", or the errno's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Outcome(
    /// 0, or the positive errno.
    pub(crate) i32,
);

/// The errnos that have a name here; others are "errno N".
const NAMES: [(Errno, &str); 18] = [
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::IO, "EIO"),
    (Errno::NXIO, "ENXIO"),
    (Errno::TOOBIG, "E2BIG"),
    (Errno::BADF, "EBADF"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::FAULT, "EFAULT"),
    (Errno::BUSY, "EBUSY"),
    (Errno::EXIST, "EEXIST"),
    (Errno::NODEV, "ENODEV"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NOTTY, "ENOTTY"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::BADFD, "EBADFD"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
];

impl Outcome {
    pub(crate) const OK: Self = Self(0);

    pub(crate) fn is_ok(self) -> bool {
        self == Self::OK
    }

    pub(crate) fn is(self, errno: Errno) -> bool {
        self.0 == errno.raw_os_error()
    }

    /// "ok", or the errno's name.
    pub(crate) fn name(self) -> String {
        let known = NAMES.iter().find(|(errno, _)| self.is(*errno)).map(|(_, name)| (*name).to_owned());
        if self.is_ok() { "ok".into() } else { known.unwrap_or_else(|| format!("errno {}", self.0)) }
    }
}

impl<T> From<&Result<T, Errno>> for Outcome {
    fn from(result: &Result<T, Errno>) -> Self {
        Self(result.as_ref().err().map_or(0, |errno| errno.raw_os_error()))
    }
}

impl From<Outcome> for String {
    fn from(outcome: Outcome) -> Self {
        outcome.name()
    }
}

impl TryFrom<String> for Outcome {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let numbered = name.strip_prefix("errno ").and_then(|number| number.parse().ok());
        let known = NAMES.iter().find(|(_, known)| *known == name).map(|(errno, _)| errno.raw_os_error());
        match name.as_str() {
            "ok" => Ok(Self::OK),
            _ => known.or(numbered).map(Self).ok_or_else(|| format!("{name:?} is no outcome of a call")),
        }
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// What was opened.
    pub(crate) iommufd: String,
    /// How that ended.
    pub(crate) open: Outcome,
    /// Release of the running kernel.
    pub(crate) kernel: String,
    /// Machine of the running kernel.
    pub(crate) machine: String,
    /// What each command answers to an argument that is too short, by name: EINVAL from one that exists, ENOTTY from one that
    /// does not.
    pub(crate) commands: BTreeMap<String, Outcome>,
    /// OPTION RLIMIT_MODE: 0 by user, 1 by process.
    pub(crate) rlimit_mode: Option<u64>,
    /// FAULT_QUEUE_ALLOC.
    pub(crate) fault_queue: Option<Outcome>,
    /// IOMMUs that the kernel lists (`/sys/class/iommu`).
    pub(crate) iommus: Vec<String>,
    /// Device nodes that could be named (`/dev/vfio/devices`).
    pub(crate) candidates: Vec<String>,
    /// The devices that were named.
    pub(crate) devices: Vec<DeviceFacts>,
}

/// A device, bound for as long as it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceFacts {
    /// Its device node.
    pub(crate) path: String,
    /// How opening and binding it ended. Nothing more is known if it failed.
    pub(crate) bind: Outcome,
    /// GET_HW_INFO without a type: type, PASID bits, capabilities.
    pub(crate) default_type: Option<u32>,
    /// Width of PASIDs; 0 means none.
    pub(crate) max_pasid_log2: u8,
    /// `out_capabilities`.
    pub(crate) capabilities: u64,
    /// GET_HW_INFO of each type.
    pub(crate) hw_info: BTreeMap<u32, HwInfo>,
    /// HWPT_ALLOC on an IOAS, by the names of its flags.
    pub(crate) hwpt: BTreeMap<String, Outcome>,
    /// VIOMMU_ALLOC on a nesting parent, by type.
    pub(crate) viommu: BTreeMap<u32, Outcome>,
    /// HWPT_ALLOC of a nested HWPT, by what it was made on ("parent", "viommu 1").
    pub(crate) nested: BTreeMap<String, Outcome>,
    /// VEVENTQ_ALLOC, by vIOMMU and type ("viommu 1, type 1").
    pub(crate) veventq: BTreeMap<String, Outcome>,
    /// VDEVICE_ALLOC, by vIOMMU.
    pub(crate) vdevice: BTreeMap<u32, Outcome>,
    /// What could not be destroyed again.
    pub(crate) left: Vec<String>,
}

/// GET_HW_INFO of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HwInfo {
    pub(crate) outcome: Outcome,
    /// The payload in hexadecimal, byte by byte.
    pub(crate) data: String,
}

impl HwInfo {
    /// A payload.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { outcome: Outcome::OK, data: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// The payload; nothing if it is not there, or not hexadecimal.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let digits = self.data.as_bytes().as_chunks::<2>().0;
        let byte = |pair: &[u8; 2]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        digits.iter().map(byte).collect::<Option<_>>().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_named_and_read_back() {
        for errno in NAMES.map(|(errno, _)| errno.raw_os_error()).into_iter().chain([0, 133, 4095]) {
            let outcome = Outcome(errno);
            assert_eq!(Outcome::try_from(outcome.name()), Ok(outcome));
        }
        assert!(Outcome::try_from("EWHAT".to_owned()).is_err());
    }

    #[test]
    fn a_payload_is_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(HwInfo::of(&bytes).bytes(), bytes);
        assert!(HwInfo { outcome: Outcome::OK, data: "zz".into() }.bytes().is_empty());
    }
}
