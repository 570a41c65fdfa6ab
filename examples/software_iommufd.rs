//! A VMM's own code, tested without hardware, root or a special kernel: the piece below talks to an iommufd in ioctls, with
//! structs of its own, and knows nothing of viommu. Here it talks to a software iommufd that answers as Linux 7.3.4 does.
//!
//! The test finds two things that such code gets wrong. A flush that believes the kernel's count of handled commands loses
//! some: on an illegal command, the kernel counts commands that it never ran. And a constructor that fails half way leaves
//! objects behind, unless it was tested with every failure.
//! `cargo run -p viommu-examples --example software_iommufd`

use std::sync::{Arc, Mutex};
use viommu::uapi::dispatcher::{Cdev, Dispatcher, Options, driver::DeviceConfig, drivers};
use viommu::uapi::{Errno, ProcessMemory};
use vmm::{File, Flush, NestedDevice};

/// What the VMM already has.
mod vmm {
    use zerocopy::{Immutable, IntoBytes};

    /// Something open that takes ioctls; the error is the errno.
    pub(crate) trait File {
        fn ioctl(&self, request: u32, argument: &mut [u8]) -> Result<(), i32>;
    }

    const DESTROY: u32 = 0x3b80;
    const IOAS_ALLOC: u32 = 0x3b81;
    const HWPT_ALLOC: u32 = 0x3b89;
    const HWPT_INVALIDATE: u32 = 0x3b8d;
    const VIOMMU_ALLOC: u32 = 0x3b90;
    const VDEVICE_ALLOC: u32 = 0x3b91;
    const ATTACH: u32 = 0x3b77;
    const DETACH: u32 = 0x3b78;
    pub(crate) const EIO: i32 = 5;

    /// Its own idea of `struct iommu_hwpt_alloc`, in words; the others are short enough to write where they are used.
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct HwptAlloc {
        size: u32,
        flags: u32,
        dev_id: u32,
        pt_id: u32,
        out_hwpt_id: u32,
        reserved: u32,
        data_type: u32,
        data_len: u32,
        data_uptr: u64,
    }

    /// How a flush goes on behind a command that the kernel refused.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Flush {
        /// Behind what the kernel says it handled.
        Trusting,
        /// Behind what it surely ran: whole blocks of 63. The rest is sent again.
        Careful,
    }

    /// A passed-through device behind a guest's SMMUv3.
    pub(crate) struct NestedDevice<'a> {
        iommufd: &'a dyn File,
        device: &'a dyn File,
        /// Oldest first: they are destroyed the other way round.
        objects: Vec<u32>,
        viommu: u32,
        attached: bool,
    }

    impl<'a> NestedDevice<'a> {
        /// IOAS, nesting parent, vIOMMU, vDEVICE, nested HWPT; the device is attached to it.
        pub(crate) fn new(iommufd: &'a dyn File, device: &'a dyn File, dev_id: u32, vsid: u64) -> Result<Self, i32> {
            let mut own = Self { iommufd, device, objects: Vec::new(), viommu: 0, attached: false };
            let ioas = own.create(IOAS_ALLOC, &mut words(&[12, 0, 0]), 8)?;
            let parent = own.hwpt(dev_id, ioas, 1, None)?;
            own.viommu = own.create(VIOMMU_ALLOC, &mut words(&[40, 0, 1, dev_id, parent, 0, 0, 0, 0, 0]), 20)?;
            let name = [vsid as u32, (vsid >> 32) as u32];
            own.create(VDEVICE_ALLOC, &mut words(&[24, own.viommu, dev_id, 0, name[0], name[1]]), 12)?;
            // V, Config 5 (stage 1 translates), a context descriptor table.
            let ste = [0x1000u64 | 5 << 1 | 1, 0].map(u64::to_le);
            let nested = own.hwpt(dev_id, own.viommu, 0, Some(&ste))?;
            device.ioctl(ATTACH, &mut words(&[12, 0, nested]))?;
            own.attached = true;
            Ok(own)
        }

        fn hwpt(&mut self, dev_id: u32, pt_id: u32, flags: u32, ste: Option<&[u64; 2]>) -> Result<u32, i32> {
            let argument = HwptAlloc {
                size: size_of::<HwptAlloc>() as u32,
                flags,
                dev_id,
                pt_id,
                out_hwpt_id: 0,
                reserved: 0,
                data_type: if ste.is_some() { 2 } else { 0 },
                data_len: ste.map_or(0, |ste| size_of_val(ste) as u32),
                data_uptr: ste.map_or(0, |ste| ste.as_ptr() as u64),
            };
            self.create(HWPT_ALLOC, &mut argument.as_bytes().to_vec(), 16)
        }

        /// An object that an ioctl makes: its ID comes back at `at`.
        fn create(&mut self, request: u32, argument: &mut [u8], at: usize) -> Result<u32, i32> {
            self.iommufd.ioctl(request, argument)?;
            let id = u32::from_ne_bytes([argument[at], argument[at + 1], argument[at + 2], argument[at + 3]]);
            self.objects.push(id);
            Ok(id)
        }

        /// Carries out the guest's commands up to its SYNC; the positions of those that the kernel refused.
        pub(crate) fn flush(&self, commands: &[[u64; 2]], how: Flush) -> Result<Vec<usize>, i32> {
            let (mut next, mut refused) = (0, Vec::new());
            while next < commands.len() {
                let (result, handled) = self.invalidate(&commands[next..]);
                match result {
                    Ok(()) => break,
                    Err(EIO) => {
                        if how == Flush::Careful {
                            let sure = handled / 63 * 63;
                            self.invalidate(&commands[next + sure..next + handled]).0.or_else(|errno| {
                                // An empty array is EINVAL on Arm, and nothing to worry about.
                                if sure == handled { Ok(()) } else { Err(errno) }
                            })?;
                        }
                        refused.push(next + handled);
                        next += handled + 1;
                    }
                    Err(errno) => return Err(errno),
                }
            }
            Ok(refused)
        }

        fn invalidate(&self, commands: &[[u64; 2]]) -> (Result<(), i32>, usize) {
            let commands: Vec<[u64; 2]> = commands.iter().map(|command| command.map(u64::to_le)).collect();
            let at = commands.as_ptr() as u64;
            let count = commands.len() as u32;
            let mut argument = words(&[32, self.viommu, at as u32, (at >> 32) as u32, 1, 16, count, 0]);
            let result = self.iommufd.ioctl(HWPT_INVALIDATE, &mut argument);
            (result, u32::from_ne_bytes([argument[24], argument[25], argument[26], argument[27]]) as usize)
        }
    }

    impl Drop for NestedDevice<'_> {
        fn drop(&mut self) {
            if self.attached {
                // The file is open: detaching cannot fail.
                let _ = self.device.ioctl(DETACH, &mut words(&[8, 0]));
            }
            for id in self.objects.drain(..).rev() {
                if let Err(errno) = self.iommufd.ioctl(DESTROY, &mut words(&[8, id])) {
                    eprintln!("object {id} stays: errno {errno}");
                }
            }
        }
    }

    /// An argument of 32-bit words (of a little-endian machine, where 64-bit ones are two).
    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

impl File for Dispatcher {
    fn ioctl(&self, request: u32, argument: &mut [u8]) -> Result<(), i32> {
        Dispatcher::ioctl(self, request, argument, &ProcessMemory).map_err(Errno::raw_os_error)
    }
}

impl File for Cdev {
    fn ioctl(&self, request: u32, argument: &mut [u8]) -> Result<(), i32> {
        Cdev::ioctl(self, request, argument, &ProcessMemory).map_err(Errno::raw_os_error)
    }
}

/// The hardware's end: which commands ran.
#[derive(Debug, Default)]
struct Hardware(Mutex<Vec<[u64; 2]>>);

impl drivers::CommandQueue for Hardware {
    fn issue(&self, commands: &[[u64; 2]]) -> bool {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(commands);
        true
    }
}

/// A machine: an iommufd, a device bound to it, and the hardware behind.
fn machine() -> Result<(Dispatcher, Cdev, u32, Arc<Hardware>), Errno> {
    let hardware = Arc::new(Hardware::default());
    let smmu = drivers::ArmSmmuv3 { queue: hardware.clone(), ..drivers::ArmSmmuv3::new([0; 6]) };
    let iommufd = Dispatcher::new(Options::default());
    let device = iommufd.device(DeviceConfig::new(Arc::new(smmu), 0x40));
    let mut bind =
        [16, 0, iommufd.fd() as u32, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect::<Vec<u8>>();
    device.ioctl(0x3b76, &mut bind, &ProcessMemory)?;
    let id = u32::from_ne_bytes([bind[12], bind[13], bind[14], bind[15]]);
    Ok((iommufd, device, id, hardware))
}

/// How many of a guest's 99 good commands ran, when the 71st of 100 is illegal.
fn ran(how: Flush) -> Result<usize, i32> {
    let (iommufd, device, id, hardware) = machine().map_err(Errno::raw_os_error)?;
    let nested = NestedDevice::new(&iommufd, &device, id, 3)?;
    // TLBI_NH_ASID of 100 address spaces, one of which is no command at all.
    let mut commands: Vec<[u64; 2]> = (0..100).map(|asid| [0x11 | asid << 48, 0]).collect();
    commands[70] = [0xff, 0];
    assert_eq!(nested.flush(&commands, how)?, [70], "the guest sees an error at its command");
    let mut asids: Vec<u64> = hardware
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .iter()
        .map(|[first, _]| first >> 48)
        .collect();
    asids.sort_unstable();
    asids.dedup();
    Ok(asids.len())
}

/// Lets every step of the constructor fail, one after the other; how many there are, if none leaves anything behind.
fn every_failure() -> Result<u64, Errno> {
    for nth in 1.. {
        let (iommufd, device, id, _) = machine()?;
        let before = iommufd.objects();
        iommufd.fail_nth(nth);
        let failed = NestedDevice::new(&iommufd, &device, id, 3).is_err();
        iommufd.fail_nth(0);
        assert_eq!(iommufd.objects(), before, "failure {nth} leaves objects behind");
        if !failed {
            return Ok(nth - 1);
        }
    }
    Ok(0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let errno = |errno| format!("errno {errno}");
    for how in [Flush::Trusting, Flush::Careful] {
        println!("{how:?} flush: {} of 99 good commands ran", ran(how).map_err(errno)?);
    }
    println!("{} failures on the way to a nested device, none leaves an object", every_failure()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusting_the_count_loses_what_was_never_issued() {
        assert_eq!((ran(Flush::Trusting), ran(Flush::Careful)), (Ok(92), Ok(99)));
    }

    #[test]
    fn no_failure_leaves_an_object() {
        assert!(every_failure().unwrap() > 15);
    }
}
