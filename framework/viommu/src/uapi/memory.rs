//! What pointers in arguments lead to.

use super::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use std::io::{IoSlice, IoSliceMut};

/// Memory of whoever calls: what pointers in arguments lead to.
pub trait UserMemory {
    /// Reads all of `bytes` from `address`.
    ///
    /// # Errors
    /// EFAULT if not all of it is there.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno>;

    /// Writes all of `bytes` to `address`.
    ///
    /// # Errors
    /// EFAULT if not all of it is there.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno>;
}

/// This process: for code with real pointers. A pointer that leads nowhere answers EFAULT, as in the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessMemory;

impl UserMemory for ProcessMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let remote = [RemoteIoVec { base: usize::try_from(address).map_err(|_| Errno::FAULT)?, len: bytes.len() }];
        let length = bytes.len();
        whole(process_vm_readv(Pid::this(), &mut [IoSliceMut::new(bytes)], &remote), length)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let remote = [RemoteIoVec { base: usize::try_from(address).map_err(|_| Errno::FAULT)?, len: bytes.len() }];
        whole(process_vm_writev(Pid::this(), &[IoSlice::new(bytes)], &remote), bytes.len())
    }
}

fn whole(moved: nix::Result<usize>, length: usize) -> Result<(), Errno> {
    match moved {
        Ok(moved) if moved == length => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(error) => Err(Errno::from_raw_os_error(error as i32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_of_this_process_lead_there_and_others_nowhere() {
        let (mut here, mut copy) = (vec![1u8, 2, 3], [0; 3]);
        let address = here.as_mut_ptr() as u64;
        ProcessMemory.read(address, &mut copy).unwrap();
        assert_eq!(copy, [1, 2, 3]);
        ProcessMemory.write(address, &[7, 8, 9]).unwrap();
        ProcessMemory.read(address, &mut copy).unwrap();
        assert_eq!(copy, [7, 8, 9]);
        assert_eq!(ProcessMemory.read(0, &mut copy), Err(Errno::FAULT));
        assert_eq!(ProcessMemory.write(u64::MAX - 1, &copy), Err(Errno::FAULT));
    }
}
